"""Train one classifier per benchmark with `spacy train`; settings that depend on the corpus are filled in."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from confection import Config
from spacy import util
from spacy.util import registry

from spacy_slmre.corpus.docbin import corpus_files
from spacy_slmre.corpus.readers import ExampleReader
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.gold import gold_pairs
from spacy_slmre.models.hub import identify, locate_base
from spacy_slmre.pipeline.calibrate import calibrate
from spacy_slmre.pipeline.components import get_relation_extractor
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.util.io import file_hash, remove
from spacy_slmre.util.run_folder import RUN_FILE, RunFolder
from spacy_slmre.util.system import versions

HOLDOUT = 0.15
"""Fraction of the documents held out if a benchmark has only one split besides its test split."""


@dataclass(frozen=True)
class TrainingSplits:
    """The documents of a converted benchmark for training and for development.

    Attributes:
        train: The training corpus.
        dev: The development corpus; the training corpus itself if part of it is held out.
        holdout: Fraction of the training corpus that is held out; 0 if there are two corpora.
    """

    train: Path
    dev: Path
    holdout: float


def find_splits(corpora: Path, benchmark: str) -> TrainingSplits:
    """Return the train and dev splits of a converted benchmark; if only one exists, part of it is held out.

    Raises:
        CorpusError: Neither exists.
    """
    train, dev = (corpora / benchmark / f"{split}.spacy" for split in ("train", "dev"))
    if train.exists() and dev.exists():
        return TrainingSplits(train, dev, 0.0)
    for only in (train, dev):
        if only.exists():
            return TrainingSplits(only, only, HOLDOUT)
    raise CorpusError(f"There is no training corpus in {train.parent}. Convert it with: slmre study convert-all")


def train_classifier(
    config_path: Path,
    benchmark: str,
    corpora: Path,
    output: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    use_gpu: int = -1,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a classifier, keep and calibrate the best checkpoint, and record how it was made.

    Args:
        config_path: A config like `configs/rel_classifier_cpu.cfg`.
        benchmark: The benchmark.
        corpora: Folder of converted benchmarks.
        output: Folder for the pipeline; it is created when the run is complete.
        overrides: Config values to override, by dotted name.
        use_gpu: GPU id, as in `spacy train`.
        overwrite: Replace an existing output.
        log: Receives messages for the user.

    Returns:
        The content of `run.json`: benchmark, config, data with hashes, scores on the development set, calibration,
        seconds, versions.

    Raises:
        ValueError: The corpus or the config cannot be used, or the output belongs to another run.
    """
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
    key = {
        "benchmark": benchmark,
        # Leave out the location of the corpora: their content is hashed instead.
        "config": {name: section for name, section in config.items() if name not in ("paths", "corpora")},
        "data": {
            os.path.relpath(path, corpora): [file_hash(file) for file in corpus_files(Path(path))]
            for path in sorted({config["paths"]["train"], config["paths"]["dev"]})
        },
        "base": {name: identity for name, block in config["components"].items() if (identity := _identify(block))},
    }
    inputs = [config_path, splits.train, splits.dev]
    with RunFolder(output, inputs=inputs, kind="folder", overwrite=overwrite) as run:
        if (done := run.completed(key)) is not None:
            log(f"{benchmark}: already trained, in {output}")
            return done
        run.begin(key)
        with run.explain_disk_errors():
            training = run.partial / "training"
            remove(training)  # `spacy train` cannot be resumed
            started = time.perf_counter()
            train_corpus, dev_corpus = _readers(config)
            pairs, batches = _count(config, train_corpus)
            _train(config_path, training, {**_schedule(config, batches), **values}, use_gpu)
            nlp = spacy.load(training / "model-best")
            calibration = calibrate(get_relation_extractor(nlp)[1], dev_corpus(nlp))
            record = {
                "benchmark": benchmark,
                "config": str(config_path),
                "overrides": dict(overrides or {}),
                "seed": config["training"]["seed"],
                "pairs": pairs,
                "holdout": config["vars"]["holdout"],
                "data": key["data"],
                "dev": nlp.meta["performance"],
                "calibration": calibration,
                "seconds": time.perf_counter() - started,
                "versions": versions(),
                "machine": f"{platform.system()} {platform.machine()}",
                "key": key,
            }
            nlp.meta["performance"] = {**nlp.meta["performance"], "calibration": calibration}
            result = run.partial / "output"
            remove(result)
            nlp.to_disk(result)
            (result / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
            run.publish(result)
    error = {when: calibration[when]["ece"] for when in ("before", "after")}
    log(
        f"{benchmark}: micro-F1 {record['dev']['rel_micro_f']:.3f} on the development set after "
        f"{record['seconds'] / 60:.1f} minutes. Expected calibration error {error['before']:.3f}, and "
        f"{error['after']:.3f} at temperature {calibration['temperature']:.2f}. Pipeline: {output}"
    )
    return record


def _identify(component: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return name, revision and fingerprint of a component's base model, if it has one."""
    model = component.get("model", {})
    if "base" not in model:
        return None
    base, revision = model["base"], model.get("revision")
    return identify(locate_base(base, revision), base, revision).to_dict()


def _readers(config: Config) -> tuple[ExampleReader, ExampleReader]:
    corpora = registry.resolve({"corpora": config["corpora"]})["corpora"]
    names = (config["training"][f"{split}_corpus"].removeprefix("corpora.") for split in ("train", "dev"))
    train, dev = (corpora[name] for name in names)
    return train, dev


def _count(config: Config, corpus: ExampleReader) -> tuple[int, int]:
    """Count the training pairs with known labels, and the batches per epoch."""
    batcher = registry.resolve({"batcher": config["training"]["batcher"]})["batcher"]
    pairs = batches = 0
    for batch in batcher(corpus(spacy.blank(config["nlp"]["lang"]))):
        batches += 1
        pairs += sum(len(gold_pairs(example.reference).known_pairs()) for example in batch)
    if not pairs:
        raise CorpusError("There are no annotated pairs to train on.")
    return pairs, batches


def _schedule(config: Config, batches: int) -> dict[str, int]:
    epochs = config["training"]["max_epochs"]
    if epochs < 1:
        raise ValueError(f"training.max_epochs = {epochs}, but the schedule needs a number of epochs: 1 or more.")
    return {
        # The learning rate reaches zero when the last epoch ends. The dev set is scored twice per epoch, the last time
        # at the end: spaCy only scores after every n-th step, even if more steps follow.
        "training.optimizer.learn_rate.total_steps": batches * epochs,
        "training.optimizer.learn_rate.warmup_steps": max(1, batches * epochs // 20),
        "training.eval_frequency": max(1, (batches * epochs - 1) // (2 * epochs)),
    }


def _train(config_path: Path, output: Path, overrides: dict[str, Any], use_gpu: int) -> None:
    from spacy.cli.train import train

    try:
        train(config_path, output, use_gpu=use_gpu, overrides=overrides)
    except SystemExit as error:  # spaCy prints config errors and exits
        raise ValueError(f"{config_path} cannot be used for training: see the messages above.") from error
