"""The benchmark of encoders writes its tables into the documentation; speed itself is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.scripts import run_script


@pytest.mark.slow
def test_markers_and_runtimes_are_shown_in_the_document(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    file, document = tmp_path / "classifier.json", tmp_path / "speed.md"
    args = (
        "--base",
        tiny_encoder,
        "--tokens",
        24,
        48,
        "--rounds",
        1,
        "--seconds",
        0.01,
        "--threads",
        1,
        "--output",
        file,
    )
    run_script(monkeypatch, "benchmarks/classifier_speed.py", *args)
    document.write_text("before\n<!-- classifier:begin -->\nold\n<!-- classifier:end -->\nafter\n", encoding="utf-8")
    run_script(monkeypatch, "scripts/readme_table.py", "--classifier", file, "--document", document)
    text = document.read_text(encoding="utf-8")
    for way in ("typed markers, float32", "typed markers, OpenVINO", "levitated markers, float32"):
        assert f"| {way} | " in text
    assert text.count("(1.00)") >= 4 and "| plain torch loop | " in text
    assert "old" not in text and text.endswith("<!-- classifier:end -->\nafter\n")
