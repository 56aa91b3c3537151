"""The checks for a GPU run in a dry run on the CPU, and their results become tables; speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.scripts import ROOT, run_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a dry run of all checks wrote."""
    file = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--dry-run", "--output", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return file


def test_all_checks_pass_in_a_dry_run(dry_run: Path) -> None:
    checks = json.loads(dry_run.read_text(encoding="utf-8"))["checks"]
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(checks, "passed")
    assert checks.keys() >= {"nf4", "optimizers", "attention", "flex_attention", "equality", "keep_4bit", "updates"}
    assert all(check["rows"] and check["seconds"] > 0 for check in checks.values())
    for name in ("0.5B", "3B"):
        (tuned,) = checks[f"tune_{name}"]["rows"]
        assert tuned["steps"] == 20 and min(tuned[column] for column in ("steps/s", "tokens/s", "peak GB")) > 0
        assert all(row["pairs/s"] > 0 for row in checks[f"scoring_{name}"]["rows"])


def test_results_become_tables_unless_they_are_from_a_dry_run(
    dry_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, file = tmp_path / "speed.md", tmp_path / "gpu.json"
    text = "before\n<!-- gpu:begin -->\nnot run\n<!-- gpu:end -->\nafter\n"
    document.write_text(text, encoding="utf-8")
    script, *args = ("scripts/readme_table.py", "--document", document, "--gpu")
    with pytest.raises(SystemExit, match="from a dry run"):
        run_script(monkeypatch, script, *args, dry_run)
    assert document.read_text(encoding="utf-8") == text

    results = json.loads(dry_run.read_text(encoding="utf-8")) | {"dry_run": False}
    results["checks"]["nf4"] |= {"status": "failed", "error": "no kernel"}
    results["checks"]["tune_3B"] = {"status": "skipped", "error": "7 s left", "rows": []}
    file.write_text(json.dumps(results), encoding="utf-8")
    run_script(monkeypatch, script, *args, file)
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- gpu:begin -->\n**Checks on a GPU**") and text.endswith("end -->\nafter\n")
    assert "| `nf4` | failed |" in text and "`nf4`: no kernel." in text
    assert "| `tune_3B` | skipped | – |" in text and "**`tune_3B`**" not in text
    assert "not run" not in text and "| paged_adamw_8bit |" in text
