"""Updating the tables in the README: only the text between the markers changes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.evaluation.run_folders import write_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "readme_table.py"


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, args)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_table_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold \\1\n<!-- results:end -->\nafter\n", encoding="utf-8")
    write_run(tmp_path / "runs" / "a", "My | system", "conll04")
    for _ in range(2):
        run(monkeypatch, tmp_path / "runs", "--readme", readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- results:begin -->\n| Corpus | System |")
    assert text.endswith("|\n<!-- results:end -->\nafter\n") and "old" not in text
    assert text.count("| CoNLL04 | My \\| system | 0.") == 1


@pytest.mark.parametrize("text", ["no markers", "<!-- results:end --> <!-- results:begin -->"])
def test_readme_without_markers_is_unchanged(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    write_run(tmp_path / "a")
    with pytest.raises(SystemExit, match="must have <!-- results:begin --> once"):
        run(monkeypatch, tmp_path / "a", "--readme", readme)
    assert readme.read_text(encoding="utf-8") == text
