"""The packaged encoder, trained on the demo corpus with spaCy's own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import spacy

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.study.benchmarks.card import get_benchmark
from tests.conftest import ALL_THREADS

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "rel_classifier_cpu.cfg"

pytestmark = pytest.mark.slow


def spacy_command(*args: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": str(ALL_THREADS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "spacy", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, real_encoder: str) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    for split in ("train", "dev"):
        source = ROOT / "assets" / "demo_corpus" / f"{split}.txt"
        convert(get_benchmark("demo"), source, folder / f"{split}.spacy", split=split)
    return folder


@pytest.mark.parametrize("name", ["universal", "cpu", "roberta", "large"])
def test_configs_are_complete(work: Path, name: str, tmp_path: Path) -> None:
    config = ROOT / "configs" / f"rel_classifier_{name}.cfg"
    paths = ("--paths.train", work / "train.spacy", "--paths.dev", work / "dev.spacy")
    assert "Config is valid" in spacy_command("debug", "config", config, *paths)
    spacy_command("init", "fill-config", config, tmp_path / "filled.cfg")


def test_spacy_commands_train_evaluate_and_package(work: Path, tmp_path: Path) -> None:
    paths = ("--paths.train", work / "train.spacy", "--paths.dev", work / "dev.spacy")
    spacy_command("init", "labels", CONFIG, work / "labels", *paths)
    labels = json.loads((work / "labels" / "rel_classifier.json").read_text())
    assert labels["negative_label"] == "no_relation" and len(labels["labels"]) > 10
    # Half of the weights are embeddings; frozen, they take no time in the optimizer.
    frozen = ("--components.rel_classifier.model.frozen_layers", 0)
    short = ("--training.max_epochs", 6, "--training.eval_frequency", 20, *frozen)
    # Command-line options cannot add the section for a labels file.
    config = work / "labeled.cfg"
    labels_file = json.dumps(str(work / "labels" / "rel_classifier.json"))
    section = ["[initialize.components.rel_classifier]", "[initialize.components.rel_classifier.labels]"]
    values = ['@readers = "spacy.read_labels.v1"', f"path = {labels_file}"]
    config.write_text("\n".join([CONFIG.read_text(), *section, *values]))
    steps = "--training.optimizer.learn_rate"
    schedule = (f"{steps}.warmup_steps", 5, f"{steps}.total_steps", 70)
    spacy_command("train", config, "--output", work / "out", *paths, *short, *schedule)

    best = work / "out" / "model-best"
    nlp = spacy.load(best)
    assert nlp.meta["performance"]["rel_micro_f"] > 0.4
    spacy_command("evaluate", best, work / "dev.spacy", "--per-component", "--output", work / "scores.json")
    assert "rel_micro_f" in json.loads((work / "scores.json").read_text())["rel_classifier"]

    spacy_command("package", best, tmp_path, "--name", "demo_classifier", "--version", "0.1.0", "--build", "none")
    ((package),) = tmp_path.glob("*/*/*/config.cfg")
    packaged = spacy.load(package.parent)
    gold = relation_corpus(work / "dev.spacy")
    answers = [
        [
            [(r.head.start, r.tail.start, r.label, r.score) for r in doc._.relations]
            for doc in pipeline.pipe(example.predicted for example in gold(pipeline))
        ]
        for pipeline in (nlp, packaged)
    ]
    assert answers[0] == answers[1] and any(answers[0])
