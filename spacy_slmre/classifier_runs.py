"""One classifier a benchmark by `spacy train`, with all that follows from the corpus filled in."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacy
from spacy import util

from spacy_slmre.corpora.benchmark import get_benchmark
from spacy_slmre.corpora.readers import relation_corpus
from spacy_slmre.corpora.shards import corpus_files, file_hash
from spacy_slmre.corpora.sources import CorpusError
from spacy_slmre.pipeline.calibrating import calibrate
from spacy_slmre.pipeline.relation_pipe import RelationPipe
from spacy_slmre.relations import PAIRS

RUN_FILE = "run.json"
HOLDOUT = 0.15
"""The share of documents held out for choices where a benchmark has one split beside its test split."""


@dataclass(frozen=True)
class Splits:
    """Which documents of a converted benchmark train, and which choose.

    Attributes:
        train: The training corpus.
        dev: The corpus for choices; the same one where a share of it is held out.
        holdout: That share; 0 where there are two corpora.
    """

    train: Path
    dev: Path
    holdout: float


def find_splits(corpora: Path, benchmark: str) -> Splits:
    """Train and dev split of a converted benchmark.

    Where only one of the two is there, it trains, but for a held-out share.

    Raises:
        CorpusError: Neither is there.
    """
    train, dev = (corpora / benchmark / f"{split}.spacy" for split in ("train", "dev"))
    if train.exists() and dev.exists():
        return Splits(train, dev, 0.0)
    for only in (train, dev):
        if only.exists():
            return Splits(only, only, HOLDOUT)
    raise CorpusError(f"There is no corpus to train on in {train.parent}. Convert it: slmre convert-all")


def train_classifier(
    config_path: Path,
    benchmark: str,
    corpora: Path,
    output: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    use_gpu: int = -1,
) -> dict[str, Any]:
    """Train, keep the best checkpoint, calibrate it, and write down how it was made.

    Args:
        config_path: A config like `configs/rel_classifier_cpu.cfg`.
        benchmark: The benchmark.
        corpora: Folder of converted benchmarks.
        output: Where the pipeline goes; it is there only when all is done.
        overrides: Values of the config, by dotted names.
        use_gpu: As in `spacy train`.

    Returns:
        What is written as `run.json`: benchmark, config, data with hashes, scores on the development set,
        calibration, seconds, versions.

    Raises:
        ValueError: The corpus or the config cannot be used.
    """
    from spacy.cli.train import train

    splits = find_splits(corpora, benchmark)
    schema = get_benchmark(benchmark).schema
    given = dict(overrides or {})
    config = util.load_config(config_path, overrides=given, interpolate=False)
    values: dict[str, Any] = {
        "paths.train": str(splits.train),
        "paths.dev": str(splits.dev),
        "vars.holdout": splits.holdout,
        "vars.held_out": splits.holdout > 0,
        "components.rel_classifier.negative_label": schema.negative_label if schema else "no_relation",
    }
    pairs = _count_pairs(splits)
    steps = max(1, -(-pairs // config["training"]["batcher"]["size"])) * config["training"]["max_epochs"]
    # The rate falls to zero when the last epoch ends, and the dev set is scored four times an epoch.
    values["training.optimizer.learn_rate.total_steps"] = steps
    values["training.optimizer.learn_rate.warmup_steps"] = max(1, steps // 20)
    values["training.eval_frequency"] = max(1, steps // config["training"]["max_epochs"] // 2)
    values |= given
    aside = output.with_name(f".{output.name}.training")
    started = time.perf_counter()
    train(config_path, aside, use_gpu=use_gpu, overrides=values)
    nlp = spacy.load(aside / "model-best")
    pipe = next(pipe for _, pipe in nlp.pipeline if isinstance(pipe, RelationPipe))
    held_out = relation_corpus(splits.dev, holdout=splits.holdout, held_out=splits.holdout > 0)
    calibration = calibrate(pipe, held_out(nlp))
    run = {
        "benchmark": benchmark,
        "config": str(config_path),
        "overrides": given,
        "seed": nlp.config.interpolate()["training"]["seed"],
        "pairs": pairs,
        "holdout": splits.holdout,
        "data": {
            str(path.relative_to(corpora)): [file_hash(file) for file in corpus_files(path)]
            for path in sorted({splits.train, splits.dev})
        },
        "dev": nlp.meta["performance"],
        "calibration": calibration,
        "seconds": time.perf_counter() - started,
        "versions": {name: version(name) for name in ("spacy-slmre", "spacy", "torch", "transformers")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    nlp.meta["performance"] = {**nlp.meta["performance"], "calibration": calibration}
    finished = aside / "finished"
    nlp.to_disk(finished)
    (finished / RUN_FILE).write_text(json.dumps(run, indent=2), encoding="utf-8")
    if output.exists():
        shutil.rmtree(output)
    finished.rename(output)
    shutil.rmtree(aside)
    return run


def read_run(output: Path) -> dict[str, Any] | None:
    """What `train_classifier` wrote into a pipeline; None where there is none that is complete."""
    try:
        return json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _count_pairs(splits: Splits) -> int:
    """Annotated pairs that train."""
    examples = relation_corpus(splits.train, holdout=splits.holdout)(spacy.blank("en"))
    return sum(len(getattr(example.reference._, PAIRS)) for example in examples)
