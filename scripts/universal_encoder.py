"""Train the encoder for any labels, which is shipped, on tasks with random labels.

    python scripts/universal_encoder.py OUTPUT --train FOLDER … --dev FOLDER … [--names SET …] [--steps 7600]
        [--continue-from auto]

The folders have label sets; `configs/tune/universal.cfg` names those of the shipped weights, which `python -m spacy
project run universal-corpora` makes, and how often each is drawn. A step has two tasks of eight passages, about 1,100
tokens. The threshold with the best mean F1 on the dev sets is stored. `spacy_slmre/adapters/universal_encoder` has what
was written to OUTPUT. The state after every thousand steps is stored next to OUTPUT: rerun the same command to resume.
"""

from __future__ import annotations

import fnmatch
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from transformers import get_linear_schedule_with_warmup

from spacy_slmre.corpus.label_sets import LabelSetReader
from spacy_slmre.models.checkpoint import WEIGHTS_FILE
from spacy_slmre.models.encoder.universal import UniversalEncoder, UniversalEncoderSettings
from spacy_slmre.training.config import read_config
from spacy_slmre.training.label_sampling import LabelSampler, SamplingSettings
from spacy_slmre.util.io import temporary_output

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from unseen_labels import THRESHOLDS, score  # noqa: E402

CONFIG = ROOT / "configs" / "tune" / "universal.cfg"
TASKS, PASSAGES = 2, 8
LEARN_RATE, HEAD_RATE, DROPOUT, WARMUP = 2e-4, 1e-3, 0.1, 100
MAX_CONTEXT_TOKENS = 300
CHECKPOINT_STEPS = 1000
CONSOLE = Console(stderr=True)


def train(
    model: UniversalEncoder, sampler: LabelSampler, steps: int, checkpoint: Path, report: Callable[[int], object]
) -> None:
    """Train on random tasks, from the checkpoint if there is one."""
    network = model.load().network
    encoder = [one for name, one in network.named_parameters() if name.startswith("encoder.") and one.requires_grad]
    others = [one for name, one in network.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": encoder, "lr": LEARN_RATE}, {"params": others, "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        done = stored.pop("step")
        if stored.pop("steps") != steps:
            raise SystemExit(f"{checkpoint} belongs to a run with another number of steps. Remove it to start over.")
        for name, values in stored.items():
            state[name].load_state_dict(values)
    losses: deque[float] = deque(maxlen=100)
    for step in track(range(done, steps), "Training …", console=CONSOLE):
        loss = 0.0
        for number in range(TASKS):
            task = sampler.draw(f"{step}/{number}", PASSAGES, with_examples=False)
            fitting = model.truncate(task.instances, task.schema, MAX_CONTEXT_TOKENS)
            instances = [instance for instance in fitting if instance is not None]
            if instances:
                weights = np.full(len(instances), 1 / TASKS)
                loss += model.update(instances, task.schema, drop=DROPOUT, weights=weights)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss)
        if (step + 1) % 100 == 0:
            CONSOLE.print(f"step {step + 1:,}: loss {fmean(losses):.3f}")
        if (step + 1) % CHECKPOINT_STEPS == 0:
            report(step + 1)
            weights = {name: one.state_dict() for name, one in state.items()}
            with temporary_output(checkpoint) as temporary:
                torch.save({"step": step + 1, "steps": steps, **weights}, temporary)


def main() -> None:
    """Train, choose the threshold, and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--train", nargs="+", required=True, help="folders with label sets")
    parser.add_argument("--dev", nargs="+", required=True, help="folders with label sets that are not trained on")
    parser.add_argument("--names", nargs="*", default=[], help="names of the dev sets (default: all)")
    parser.add_argument("--pairs", type=int, default=400, help="maximum number of pairs of a dev set")
    parser.add_argument("--steps", type=int, default=7600)
    parser.add_argument(
        "--continue-from", metavar="WEIGHTS", help="train these weights further; auto for the shipped ones"
    )
    arguments = parser.parse_args()
    corpora = LabelSetReader(tuple(arguments.train))()
    dev = LabelSetReader(tuple(arguments.dev), tuple(arguments.names))()
    known = [corpus.name for corpus in corpora]
    weights = read_config(CONFIG)["sampling"]["weights"]
    sampling = SamplingSettings(
        weights={name: weight for name, weight in weights.items() if fnmatch.filter(known, name)},
        negatives=4.0,
        definitions=0.8,
        examples=0.0,
    )
    continued = arguments.continue_from
    settings = UniversalEncoderSettings(weights=continued or "auto", dropout=0.05, max_batch_tokens=1024)
    model = UniversalEncoder(settings) if continued else UniversalEncoder.from_base(settings)

    def best_threshold(step: int) -> float:
        """Print and return the threshold with the best mean F1 on the dev sets."""
        scored = [score(model, corpus, arguments.pairs, 0, 0) for corpus in dev]
        means = {threshold: fmean(one.counts(threshold).f1 for one in scored) for threshold in THRESHOLDS}
        best = max(means, key=lambda threshold: means[threshold])
        of_sets = ", ".join(f"{one.corpus.name} {one.counts(best).f1:.3f}" for one in scored)
        CONSOLE.print(f"step {step:,}: mean F1 {means[best]:.3f} with threshold {best} ({of_sets})")
        return best

    checkpoint = arguments.output.with_name(f"{arguments.output.name}.pt")
    train(model, LabelSampler(corpora, sampling), arguments.steps, checkpoint, best_threshold)
    model.default_threshold = best_threshold(arguments.steps)
    model.save(arguments.output, embed=False)
    file = arguments.output / WEIGHTS_FILE
    save_file({name: value.to(torch.float16) for name, value in load_file(file).items()}, file)
    checkpoint.unlink(missing_ok=True)
    CONSOLE.print(f"{file.stat().st_size:,} bytes in {file}")


if __name__ == "__main__":
    main()
