"""One classifier a benchmark by `spacy train`, with all that follows from the corpus filled in."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacy
from confection import Config
from spacy import util
from spacy.util import registry

from spacy_slmre.corpus.docbin import corpus_files, file_hash
from spacy_slmre.corpus.readers import Reader
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.pipeline.calibrate import calibrate
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.relations import PAIRS
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.util.io import atomic_replace, is_replaceable

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
        ValueError: The corpus or the config cannot be used, or the output is no classifier of an earlier run.
    """
    if not is_replaceable(output, RUN_FILE):
        raise ValueError(
            f"{output} is there already and has no {RUN_FILE}, so that no run has made it: it will not be "
            "replaced. Give another --output."
        )
    splits = find_splits(corpora, benchmark)
    schema = get_benchmark(benchmark).schema
    values: dict[str, Any] = {
        "paths.train": str(splits.train),
        "paths.dev": str(splits.dev),
        "vars.holdout": splits.holdout,
        "vars.held_out": splits.holdout > 0,
        "components.rel_classifier.negative_label": schema.negative_label if schema else "no_relation",
        **(overrides or {}),
    }
    config = util.load_config(config_path, overrides=values, interpolate=True)
    train_corpus, dev_corpus = _readers(config)
    pairs, batches = _count(config, train_corpus)
    epochs = config["training"]["max_epochs"]
    if epochs < 1:
        raise ValueError(
            f"training.max_epochs = {epochs}, but the schedule needs a number of epochs: 1 or more."
        )
    schedule = {
        # The rate falls to zero when the last epoch ends. The dev set is scored twice an epoch, the last time
        # at the end: spaCy scores after every n-th step only, whether or not there were some since.
        "training.optimizer.learn_rate.total_steps": batches * epochs,
        "training.optimizer.learn_rate.warmup_steps": max(1, batches * epochs // 20),
        "training.eval_frequency": max(1, (batches * epochs - 1) // (2 * epochs)),
    }
    aside = output.with_name(f".{output.name}.training")
    started = time.perf_counter()
    _train(config_path, aside, {**schedule, **values}, use_gpu)
    nlp = spacy.load(aside / "model-best")
    pipe = next(pipe for _, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor))
    calibration = calibrate(pipe, dev_corpus(nlp))
    run = {
        "benchmark": benchmark,
        "config": str(config_path),
        "overrides": dict(overrides or {}),
        "seed": config["training"]["seed"],
        "pairs": pairs,
        "holdout": config["vars"]["holdout"],
        "data": {
            os.path.relpath(path, corpora): [file_hash(file) for file in corpus_files(Path(path))]
            for path in sorted({config["paths"]["train"], config["paths"]["dev"]})
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
    atomic_replace(finished, output)
    shutil.rmtree(aside)
    return run


def read_run(output: Path) -> dict[str, Any] | None:
    """What `train_classifier` wrote into a pipeline; None where there is none that is complete."""
    try:
        return json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _readers(config: Config) -> tuple[Reader, Reader]:
    """The readers of the training and the development set."""
    corpora = registry.resolve({"corpora": config["corpora"]})["corpora"]
    names = (config["training"][f"{split}_corpus"].removeprefix("corpora.") for split in ("train", "dev"))
    train, dev = (corpora[name] for name in names)
    return train, dev


def _count(config: Config, corpus: Reader) -> tuple[int, int]:
    """Annotated pairs that train, and batches of an epoch."""
    batcher = registry.resolve({"batcher": config["training"]["batcher"]})["batcher"]
    pairs = batches = 0
    for batch in batcher(corpus(spacy.blank(config["nlp"]["lang"]))):
        batches += 1
        pairs += sum(len(getattr(example.reference._, PAIRS)) for example in batch)
    if not pairs:
        raise CorpusError("There are no annotated pairs to train on.")
    return pairs, batches


def _train(config_path: Path, output: Path, overrides: dict[str, Any], use_gpu: int) -> None:
    """`spacy train`, whose errors in a config end the process."""
    from spacy.cli.train import train

    try:
        train(config_path, output, use_gpu=use_gpu, overrides=overrides)
    except SystemExit as error:
        raise ValueError(f"{config_path} cannot be trained: see the messages above.") from error
