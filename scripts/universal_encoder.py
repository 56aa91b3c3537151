"""Train the encoder for any labels, which is shipped, on tasks with random labels.

    python scripts/universal_encoder.py OUTPUT --train FOLDER … --dev FOLDER … [--names SET …] [--steps 1900]

The folders have label sets; `configs/tune/universal.cfg` names those of the shipped weights, which `python -m spacy
project run universal-corpora` makes, and how often each is drawn. A step has two tasks of eight passages, about 1,100
tokens. The threshold with the best mean F1 on the dev sets is stored. `spacy_slmre/adapters/universal_encoder` has what
was written to OUTPUT.
"""

from __future__ import annotations

import fnmatch
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import deque
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from unseen_labels import THRESHOLDS, score  # noqa: E402

CONFIG = ROOT / "configs" / "tune" / "universal.cfg"
TASKS, PASSAGES = 2, 8
LEARN_RATE, HEAD_RATE, DROPOUT, WARMUP = 2e-4, 1e-3, 0.1, 100
MAX_CONTEXT_TOKENS = 300


def train(model: UniversalEncoder, sampler: LabelSampler, steps: int) -> None:
    """Train on random tasks."""
    network = model.load().network
    encoder = [one for name, one in network.named_parameters() if name.startswith("encoder.") and one.requires_grad]
    others = [one for name, one in network.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": encoder, "lr": LEARN_RATE}, {"params": others, "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    console, losses = Console(stderr=True), deque(maxlen=100)
    for step in track(range(steps), "Training …", console=console):
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
            console.print(f"step {step + 1:,}: loss {fmean(losses):.3f}")


def main() -> None:
    """Train, choose the threshold, and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--train", nargs="+", required=True, help="folders with label sets")
    parser.add_argument("--dev", nargs="+", required=True, help="folders with label sets that are not trained on")
    parser.add_argument("--names", nargs="*", default=[], help="names of the dev sets (default: all)")
    parser.add_argument("--pairs", type=int, default=400, help="maximum number of pairs of a dev set")
    parser.add_argument("--steps", type=int, default=1900)
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
    model = UniversalEncoder.from_base(UniversalEncoderSettings(dropout=0.05, max_batch_tokens=1024))
    train(model, LabelSampler(corpora, sampling), arguments.steps)
    scored = [score(model, corpus, arguments.pairs, 0, 0) for corpus in dev]
    means = {threshold: fmean(one.counts(threshold).f1 for one in scored) for threshold in THRESHOLDS}
    best = max(means, key=lambda threshold: means[threshold])
    model.default_threshold = best
    model.save(arguments.output, embed=False)
    file = arguments.output / WEIGHTS_FILE
    save_file({name: value.to(torch.float16) for name, value in load_file(file).items()}, file)
    print(f"threshold {best}: mean F1 {means[best]:.3f}; {file.stat().st_size:,} bytes in {file}")


if __name__ == "__main__":
    main()
