"""Measure how fast an adapter is tuned with fused LoRA layers, compared with those of peft.

    OMP_NUM_THREADS=1 python benchmarks/tuning_speed.py CORPUS [--base smollm2-135m-instruct] [--tokens 1024]
        [--rank 16] [--dtype auto] [--rounds 5]

CORPUS was written by `slmre convert`. A step computes the loss and gradients of one packed sequence and updates the
adapter; each round times a step with each kind of layer on the same sequence. Prints tokens per second of CPU time
(median of the rounds), and the ratio of both with its range.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import torch
from common import make_parser, read_instances
from peft.tuners import lora
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spacy_slmre.models.causal_lm.fused_lora import FusedLora
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import Batch, as_batch, packed_loss
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.hub import PACKAGED_BASE

KINDS = {"peft": lora.Linear, "fused": FusedLora}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--base", default=PACKAGED_BASE)
    parser.add_argument("--tokens", type=int, default=1024, help="maximum length of a sequence")
    parser.add_argument("--rank", type=int, default=16, help="rank of the LoRA weights")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    lm = make_small_lm(base=arguments.base, adapter=None, dtype=arguments.dtype, device="cpu")
    instances, schema = read_instances(arguments.corpus)
    model = lm.begin_training(schema, LoraSettings(rank=arguments.rank, alpha=2 * arguments.rank)).train()
    sequences = TrainingSequences(lm.prompts, instances, schema, max_tokens=arguments.tokens)
    layers = [module for module in model.modules() if isinstance(module, FusedLora)]
    optimizer = torch.optim.AdamW(lm.trainable_parameters(), lr=1e-5)

    def step(batch: Batch, kind: str) -> float:
        """Return the CPU time of a step in seconds."""
        for layer in layers:
            layer.__class__ = KINDS[kind]
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=lm.network.dtype == torch.bfloat16):
            loss = packed_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in track(range(-1, arguments.rounds), "Tuning …", console=Console(stderr=True)):
        batch = as_batch(sequences[number % len(sequences)])
        for kind, of_kind in speeds.items():
            seconds = step(batch, kind)
            if number >= 0:  # the first round prepares kernels for the shapes
                of_kind.append(batch["input_ids"].shape[1] / seconds)
    ratios = [fused / plain for plain, fused in zip(*speeds.values(), strict=True)]
    title = f"{arguments.base}, rank {arguments.rank}, {lm.network.dtype}, {torch.get_num_threads()} threads"
    table = Table("layers", "tokens/s", "ratio", title=title)
    table.add_row("peft", f"{median(speeds['peft']):.0f}", "1")
    table.add_row(
        "fused", f"{median(speeds['fused']):.0f}", f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
