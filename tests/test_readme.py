"""Every example of the README runs: the Python blocks in one session, then the commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What installs or needs another network than this test may ask for; `make` and `.ci/run` do it for real.
INSTALLING = ("pip install", "make ", "python -m spacy download", "python -m spacy slmre download-base")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_examples_run(tmp_path: Path, real_base: str) -> None:
    (tmp_path / "session.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    for folder in ("assets", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "project.yml", tmp_path)
    commands = [
        line
        for block in blocks("bash")
        for line in block.splitlines()
        if line.strip() and not line.startswith(INSTALLING)
    ]
    assert len(commands) == 25
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in ["python session.py", *commands]:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    extracted = (tmp_path / "relations.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(extracted) == 12
    (example,) = blocks("json")
    assert json.loads(example).keys() == json.loads(extracted[0]).keys()
    assert list(tmp_path.rglob("*.whl"))
    assert (tmp_path / "assembled" / "config.cfg").exists()
    metrics = json.loads(
        (tmp_path / "output" / "tuned-demo" / "tune-demo" / "metrics.json").read_text(encoding="utf-8")
    )
    assert metrics["scores"]["micro_f1"] > 0.2  # untuned, the model says "no relation" to nearly everything
    # The whole workflow on the demo corpus: three systems in a report, and a package.
    report = (tmp_path / "output" / "report-demo.md").read_text(encoding="utf-8")
    assert "all-minilm-l6-v2" in report and "smollm2-135m-instruct" in report and "dapt" in report.casefold()
    assert list((tmp_path / "output" / "packages").rglob("*.whl"))
    for name in ("page.html", "graph.html", "doc.html", "triples.parquet", "relations.ttl", "rel.spacy"):
        assert (tmp_path / name).stat().st_size
    assert (tmp_path / "neo4j_tables" / "nodes.csv").exists()


def test_named_things_exist() -> None:
    for name in re.findall(r"`((?:spacy_slmre|configs|assets|docs)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
