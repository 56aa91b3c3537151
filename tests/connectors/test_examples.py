"""The scripts in examples/connectors run and find relations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "connectors"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_prints_relations(script: Path, real_base: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    assert "Marie Curie – place of birth – Warsaw" in done.stdout
    assert "Microsoft – founded by – Bill Gates" in done.stdout
