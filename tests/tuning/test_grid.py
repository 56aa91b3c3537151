"""`slmre grid`: states, shards, failures that do not stop the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.slm.tuning_settings import TuningError
from spacy_slmre.tuning.grid import read_grid, take_shard
from tests.tuning.conftest import ROOT

GRID = ROOT / "configs" / "tune" / "grid.cfg"


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["grid", *map(str, args)], catch_exceptions=False)


def test_the_study_has_30_runs_in_disjoint_shards(tmp_path: Path) -> None:
    runs = read_grid(GRID, tmp_path)
    assert len({one.name for one in runs}) == 30
    shards = [take_shard(runs, f"{number}/4") for number in range(1, 5)]
    assert sorted(one.name for shard in shards for one in shard) == sorted(one.name for one in runs)
    for wrong in ("0/4", "5/4", "4", "a/b"):
        with pytest.raises(TuningError, match="first of four"):
            take_shard(runs, wrong)


def test_states_are_listed(tmp_path: Path) -> None:
    done, running, killed, failed, *_ = read_grid(GRID, tmp_path)
    done.output.mkdir()
    (done.output / "metrics.json").write_text(json.dumps({"scores": {"micro_f1": 0.5}}))
    running.claim.write_text(json.dumps({"host": os.uname().nodename, "process": os.getpid()}))
    killed.claim.write_text(json.dumps({"host": os.uname().nodename, "process": 2**22 + 1}))
    Path(f"{killed.output}.part").mkdir()
    failed.failure.write_text(json.dumps({"error": "exit code 1: no such model"}))
    assert done.state() == ("done", "micro-F1 0.500")
    assert running.state()[0] == "running" and not running.run()
    assert killed.state() == ("missing", "interrupted")
    assert failed.state() == ("failed", "exit code 1: no such model")
    listed = run("--config", GRID, "--output", tmp_path, "--list")
    assert listed.exit_code == 0 and "27 missing, 1 running, 1 done, 1 failed" in listed.output


@pytest.mark.slow
def test_a_failure_is_recorded_and_the_rest_is_run(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.cfg").write_text('[tune]\nextends = "tiny.cfg"\n\n[model]\nbase = "/none"\n')
    grid, output = tmp_path / "grid.cfg", tmp_path / "runs"
    grid.write_text('[grid]\nconfigs = ["broken.cfg", "tiny.cfg"]\nregimes = ["own"]\nshots = [0]\n')
    config_file.write_text(config_file.read_text().replace("[tune]", '[tune]\nregime = ""'))
    ran = run("--config", grid, "--output", output, "--training.max_steps", 2)
    assert ran.exit_code == 1 and "1 runs failed" in ran.output
    broken, fine = read_grid(grid, output)
    assert broken.state()[0] == "failed" and "no such folder" in json.dumps(
        json.loads(broken.failure.read_text())["log"]
    )
    assert fine.state()[0] == "done" and not fine.claim.exists()
    again = run("--config", grid, "--output", output)
    assert again.exit_code == 0 and "1 done, 1 failed" in again.output


def test_what_is_no_grid(tmp_path: Path) -> None:
    file = tmp_path / "grid.cfg"
    for text in ("[grid]\nconfigs = []\nregimes = []\nshots = []\n", "[other]\n", "[grid]\nshots = [0]\n"):
        file.write_text(text)
        with pytest.raises(TuningError, match="no grid"):
            read_grid(file, tmp_path)
    file.write_text('[grid]\nconfigs = ["none.cfg"]\nregimes = ["a"]\nshots = [0]\n')
    with pytest.raises(TuningError, match=r"no config .*none\.cfg"):
        read_grid(file, tmp_path)
