"""The simulation of reviews runs with a tiny model; its scores are not tested."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from spacy_slmre.cli import slmre_cli

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["corpora", "label set"])
def test_choices_of_pairs_are_compared(
    kind: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source: list[object] = [ROOT / "assets" / "universal_corpus", "--set", "knowledgenet"]
    if kind == "corpora":
        for split in ("train", "test"):
            text, corpus = ROOT / "assets" / "demo_corpus" / f"{split}.txt", tmp_path / f"{split}.spacy"
            slmre_cli(["convert", str(text), "--format", "demo", "-o", str(corpus)], standalone_mode=False)
        source = [tmp_path / "train.spacy", "--test", tmp_path / "test.spacy"]
    model = ("--model.base", tiny_base, "--model.adapter", "null", "--model.quantization", "null")
    run = ("--model.dtype", "float32", "--model.device", "cpu", "--training.max_steps", 2)
    output = tmp_path / "results.json"
    sizes = ("--pairs", 80, "--reviewed", 10, 20, "--seeds", 1)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["simulation", *map(str, (source[0], output, *source[1:], *sizes, *model, *run))])
    script = str(ROOT / "benchmarks" / "review_simulation.py")
    runpy.run_path(script, run_name="__main__")
    assert "80 pairs to review, 80 test" in capsys.readouterr().out
    scores = json.loads(output.read_text("utf-8"))["f1"]
    assert scores.keys() == {
        f"{choice} {number} 1" for choice in ("uncertain", "random", "mixed") for number in (10, 20)
    }
    assert all(0 <= score <= 1 for score in scores.values())
    # Finished runs are not repeated.
    written = output.stat().st_mtime_ns
    runpy.run_path(script, run_name="__main__")
    assert output.stat().st_mtime_ns == written
