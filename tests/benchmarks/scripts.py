"""Running scripts outside of the package in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run_script(monkeypatch: pytest.MonkeyPatch, script: str, *args: object) -> dict[str, Any]:
    """Run a script, which can import the modules of benchmarks, and return its globals."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
    return runpy.run_path(str(ROOT / script), run_name="__main__")
