"""The import contract in pyproject.toml: layers, and no import cycles, function-level imports included."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import lint_imports


def test_import_contract_is_kept(capsys) -> None:
    assert lint_imports(str(Path(__file__).parents[1] / "pyproject.toml"), no_cache=True) == 0, capsys.readouterr().out
