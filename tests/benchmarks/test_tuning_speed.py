"""The benchmark of fused LoRA layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.formats import get_format
from tests.benchmarks.scripts import ROOT, run_script


def test_both_kinds_of_layers_are_timed(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    corpus = tmp_path / "train.spacy"
    convert(get_format("demo"), ROOT / "assets" / "demo_corpus" / "train.txt", corpus, split="train")
    arguments = ("--base", tiny_base, "--tokens", 600, "--rank", 2, "--dtype", "float32", "--rounds", 2)
    run_script(monkeypatch, "benchmarks/tuning_speed.py", corpus, *arguments)
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in capsys.readouterr().out.splitlines()]
    (plain, fused) = (row for row in rows if row and row[0] in ("peft", "fused"))
    assert int(plain[1]) > 0 and int(fused[1]) > 0 and float(fused[2].split()[0]) > 0
