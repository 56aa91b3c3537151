"""The commands study train-classifiers and study evaluate, and evaluate and calibrate with their results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.evaluation.runs import read_run
from spacy_slmre.study.commands import study_cli

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "rel_classifier_cpu.cfg"


def run(*args: object, code: int = 0) -> str:
    cli = study_cli if args[0] in ("convert-all", "train-classifiers", "study-evaluate") else slmre_cli
    arguments = [str(arg).removeprefix("study-") for arg in args]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    run("convert-all", ROOT / "assets", "-o", folder, "-b", "demo")
    return folder


@pytest.fixture(scope="module")
def settings(tiny_encoder: Path) -> list[str]:
    return [
        *("--components.rel_classifier.model.base", str(tiny_encoder)),
        *("--training.max_epochs", "1"),
        *("--training.logger.progress_bar", "false"),
    ]


@pytest.fixture(scope="module")
def trained(corpora: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    shown = run("train-classifiers", CONFIG, corpora, "-o", output, "-b", "demo", *settings)
    assert "Expected calibration error" in shown
    return output


def test_training_is_recorded(trained: Path, corpora: Path) -> None:
    record = json.loads((trained / "demo" / "run.json").read_text())
    assert record["benchmark"] == "demo" and record["pairs"] == 348 and record["seed"] == 42
    assert set(record["data"]) == {"demo/train.spacy", "demo/dev.spacy"}
    assert all(len(digest) == 64 for digests in record["data"].values() for digest in digests)
    assert record["calibration"]["after"]["nll"] <= record["calibration"]["before"]["nll"]
    nlp = spacy.load(trained / "demo")
    assert nlp.get_pipe("rel_classifier").temperature == pytest.approx(record["calibration"]["temperature"])
    assert nlp.get_pipe("rel_classifier").labels[-1] == "no_relation"
    assert [path.name for path in trained.glob("[!.]*")] == ["demo"]


def test_a_finished_classifier_is_not_trained_again(trained: Path, corpora: Path, settings: list[str]) -> None:
    before = (trained / "demo" / "run.json").read_bytes()
    arguments = (CONFIG, corpora, "-o", trained, "-b", "demo", *settings)
    assert "already trained" in run("train-classifiers", *arguments)
    other = run("train-classifiers", *arguments, "--training.seed", "1", code=1)
    assert "was made by another run (different config)" in other
    assert (trained / "demo" / "run.json").read_bytes() == before


def test_a_mixture_trains_each_converted_benchmark(corpora: Path, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "mixture.cfg").write_text(
        '[mixture]\nname = "two"\nbenchmarks = ["tacred", "demo"]\n[mixture.caps]\ntrain = 0\n'
    )
    arguments = (CONFIG, corpora, "-o", tmp_path / "out", "--mixture", tmp_path / "mixture.cfg", *settings)
    shown = run("train-classifiers", *arguments)
    assert (
        "Skipping benchmarks that are not converted: tacred" in shown
        and (tmp_path / "out" / "demo" / "run.json").exists()
    )


def test_a_failure_does_not_stop_the_others(trained: Path, corpora: Path, settings: list[str]) -> None:
    arguments = (CONFIG, corpora, "-o", trained, "-b", "gids", "-b", "demo", *settings)
    shown = run("train-classifiers", *arguments, code=1)
    assert "gids failed: There is no training corpus" in shown and "demo: already trained" in shown
    assert "1 of 2 failed: gids" in shown


def test_the_test_split_is_evaluated_once(trained: Path, corpora: Path, tmp_path: Path) -> None:
    arguments = (trained, corpora, "-o", tmp_path / "runs", "-b", "demo")
    first = run("study-evaluate", *arguments)
    done = read_run(tmp_path / "runs" / trained.name / "demo-test")
    assert done.info["pairs"] == 112 and f"{done.metrics['micro']['f']:.3f}" in first
    assert done.info["kind"] == "encoder" and done.metrics["calibration"] is not None
    stamp = (done.folder / "run.json").stat().st_mtime_ns
    assert "is already complete" in run("study-evaluate", *arguments)
    assert (done.folder / "run.json").stat().st_mtime_ns == stamp


def test_evaluate_writes_a_run(trained: Path, corpora: Path, tmp_path: Path) -> None:
    shown = run("evaluate", trained / "demo", corpora / "demo" / "dev.spacy", "-o", tmp_path)
    assert "all (micro)" in shown and "64 pairs" in shown
    assert read_run(tmp_path / "demo-demo-dev").info["params"] > 0
    for option in (("--prompt", "generic"), ("--decoding", "generated")):
        shown = run("evaluate", trained / "demo", corpora / "demo" / "dev.spacy", *option, code=1)
        assert "is not a language model" in shown


def test_calibrate_writes_another_pipeline(trained: Path, corpora: Path, tmp_path: Path) -> None:
    dev = corpora / "demo" / "dev.spacy"
    shown = run("calibrate", trained / "demo", dev, "--output", tmp_path / "calibrated", "--thresholds")
    assert "Expected calibration error" in shown and "Micro-F1 on the same pairs" in shown
    summary = json.loads((tmp_path / "calibrated" / "calibration.json").read_text())
    pipe = spacy.load(tmp_path / "calibrated").get_pipe("rel_classifier")
    assert pipe.temperature == pytest.approx(summary["temperature"]) and set(pipe.label_thresholds) <= set(pipe.labels)
    assert "choose a folder to save to" in run("calibrate", "some_package", dev, code=1)
    again = ("calibrate", trained / "demo", dev, "--output", tmp_path / "calibrated")
    assert "already exists" in run(*again, code=1)
    run(*again, "--overwrite")
    assert not spacy.load(tmp_path / "calibrated").get_pipe("rel_classifier").label_thresholds


def test_other_folders_are_not_replaced(corpora: Path, settings: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "demo" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("years")
    arguments = (CONFIG, corpora, "-o", tmp_path, "-b", "demo", "--overwrite", *settings)
    assert "will not be replaced" in run("train-classifiers", *arguments, code=1)
    assert notes.read_text() == "years"


def test_invalid_arguments_are_errors(corpora: Path, tmp_path: Path) -> None:
    assert "Choose benchmarks" in run("train-classifiers", CONFIG, corpora, "-o", tmp_path, code=1)
    assert "does not exist" in run(
        "train-classifiers", tmp_path / "no.cfg", corpora, "-o", tmp_path, "-b", "demo", code=1
    )
