"""The benchmark of extraction counts pairs while all workers are working; speed itself is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.scripts import ROOT, run_script


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    return scale


def make_clock(start: float, documents: int, seconds: float, pairs: int, gb: float = 0.0) -> np.ndarray:
    times = start + seconds * np.arange(1, documents + 1)
    return np.column_stack([times, np.full(documents, pairs), np.full(documents, gb)])


def test_speed_is_counted_in_pairs_while_all_workers_are_working(scale: Any) -> None:
    # The first worker starts late and gets few documents with many pairs; the second stops early.
    clocks = [make_clock(100, 60, 1.0, pairs=10), make_clock(0, 1300, 0.1, pairs=1)]
    found = scale.speed(clocks, 0.0, batch=5)
    assert found["pairs"] == 1900 and found["seconds_until_all_work"] == pytest.approx(105)
    assert found["pairs_per_second_by_worker"] == pytest.approx([10, 10], rel=0.01)
    assert found["pairs_per_second_and_worker"] == pytest.approx(10, rel=0.01)
    assert found["documents_per_second"] == pytest.approx(11, rel=0.01)


def test_a_sample_with_too_few_pairs_is_refused(scale: Any) -> None:
    with pytest.raises(SystemExit, match="too small"):
        scale.speed([make_clock(0, 10, 1.0, 1), make_clock(20, 10, 1.0, 1)], 0.0, batch=2)


def test_growth_of_memory_leaves_out_the_first_half(scale: Any) -> None:
    clock = make_clock(0, 1000, 1.0, pairs=1)
    clock[::10, 2] = np.where(np.arange(100) < 30, 0.5, 1.0) + 1e-6 * np.arange(0, 1000, 10)
    found = scale.memory([clock, make_clock(0, 5, 1.0, 1, gb=0.1)])
    assert found["gb_per_million_documents"] == pytest.approx(1.0, rel=0.01)
    assert len(found["memory"]) == scale.READINGS and found["memory"][-1]["documents"] == 991
    assert found["peak_gb"] == pytest.approx(1.001, abs=1e-4)


@pytest.mark.slow
def test_generated_documents_are_extracted_and_shown_in_the_guide(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, guide = tmp_path / "scale.json", tmp_path / "scale.md"
    args = ("rel_classifier", "--generate", 250, "--base", tiny_encoder, "--workers", "", "--output", file)
    run_script(monkeypatch, "benchmarks/scale.py", *args)
    found = json.loads(file.read_text(encoding="utf-8"))["one_process"]
    assert found["documents"] == 250 and found["pairs"] == 500 and found["pairs_per_second"] > 0
    assert [one["documents"] for one in found["memory"]] == [99, 199]  # one more document came before
    assert min(found["loaded_gb"], *(one["gb"] for one in found["memory"])) > 0.1

    guide.write_text("before\n<!-- scale:begin -->\nold\n<!-- scale:end -->\nafter\n", encoding="utf-8")
    run_script(monkeypatch, "scripts/readme_table.py", "--scale", file, "--scale-document", guide)
    text = guide.read_text(encoding="utf-8")
    assert "| one process | " in text and "250 generated documents of one sentence with 500 pairs" in text
    assert "old" not in text and text.endswith("<!-- scale:end -->\nafter\n")
