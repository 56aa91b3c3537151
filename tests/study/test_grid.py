"""`slmre study grid`: states, shards, failures that do not stop the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.study.commands import study_cli
from spacy_slmre.study.grid import GridRun, read_grid, take_shard
from spacy_slmre.training.config import TuningError
from spacy_slmre.util.run_folder import RunFolder
from tests.training.conftest import ROOT

GRID = ROOT / "configs" / "tune" / "grid.cfg"


def run(*args: object) -> Result:
    return CliRunner().invoke(study_cli, ["grid", *map(str, args)], catch_exceptions=False)


def test_the_study_has_30_runs_in_disjoint_shards(tmp_path: Path) -> None:
    runs = read_grid(GRID, tmp_path)
    assert len({one.name for one in runs}) == 30
    shards = [take_shard(runs, f"{number}/4") for number in range(1, 5)]
    assert sorted(one.name for shard in shards for one in shard) == sorted(one.name for one in runs)
    for wrong in ("0/4", "5/4", "4", "a/b"):
        with pytest.raises(TuningError, match="first of four"):
            take_shard(runs, wrong)


def test_states_are_listed(tmp_path: Path) -> None:
    done, running, killed, failed, damaged, unreadable, *_ = read_grid(GRID, tmp_path)
    for one in (done, damaged):
        one.output.mkdir()
    (done.output / "metrics.json").write_text(json.dumps({"scores": {"micro_f1": 0.5}}))
    (damaged.output / "metrics.json").touch()
    with RunFolder(killed.output):
        Path(f"{killed.output}.part").mkdir()
    failed.failure.write_text(json.dumps({"error": "exit code 1: no such model"}))
    unreadable.failure.write_text("[")
    assert done.state() == ("done", "micro-F1 0.500")
    assert killed.state() == ("missing", "interrupted")
    assert failed.state() == ("failed", "exit code 1: no such model")
    assert damaged.state()[0] == "failed" and "is damaged: delete" in damaged.state()[1]
    assert unreadable.state()[0] == "failed" and str(unreadable.log) in unreadable.state()[1]
    with RunFolder(running.output):
        assert running.state()[0] == "running" and not running.run()
        listed = run(GRID, "--output", tmp_path, "--list")
    assert listed.exit_code == 0 and "25 missing, 1 running, 1 done, 3 failed" in listed.output
    assert running.state() == ("missing", "")


@pytest.fixture
def one_run(config_file: Path, tmp_path: Path) -> GridRun:
    config_file.write_text(config_file.read_text().replace("[tune]", '[tune]\nregime = ""'))
    grid = tmp_path / "grid.cfg"
    grid.write_text('[grid]\nconfigs = ["tiny.cfg"]\nregimes = ["own"]\nshots = [0]\n')
    (only,) = read_grid(grid, tmp_path / "runs")
    return only


@pytest.mark.slow
def test_two_processes_do_the_same_run_once(one_run: GridRun) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: one_run.run(), range(2)))
    assert one_run.state()[0] == "done" and not one_run.failure.exists()
    assert one_run.log.read_text().count("Writing the pipeline") == 1


@pytest.mark.slow
def test_a_run_of_a_killed_grid_is_not_started_again(one_run: GridRun) -> None:
    output = one_run.output.parent
    command = [sys.executable, "-m", "spacy", "slmre", "study", "grid", str(output.with_name("grid.cfg"))]
    command += ["--output", str(output), "--training.max_steps", "1000000"]
    grid = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    try:
        _wait(lambda: one_run.state()[0] == "running")
        grid.kill()
        grid.wait()
        assert one_run.state()[0] == "running" and not one_run.run()
    finally:
        os.killpg(grid.pid, signal.SIGKILL)
        grid.wait()
    _wait(lambda: one_run.state()[0] == "missing")


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_a_failure_is_recorded_and_the_other_runs_continue(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.cfg").write_text('[tune]\nextends = "tiny.cfg"\n\n[model]\nbase = "/none"\n')
    grid, output = tmp_path / "grid.cfg", tmp_path / "runs"
    grid.write_text('[grid]\nconfigs = ["broken.cfg", "tiny.cfg"]\nregimes = ["own"]\nshots = [0]\n')
    config_file.write_text(config_file.read_text().replace("[tune]", '[tune]\nregime = ""'))
    ran = run(grid, "--output", output, "--training.max_steps", 2)
    assert ran.exit_code == 1 and "1 runs failed" in ran.output
    broken, fine = read_grid(grid, output)
    assert broken.state()[0] == "failed" and "model.base" in json.dumps(json.loads(broken.failure.read_text())["log"])
    assert fine.state()[0] == "done"
    again = run(grid, "--output", output)
    assert again.exit_code == 0 and "1 done, 1 failed" in again.output


def test_an_invalid_grid_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "grid.cfg"
    rest = 'configs = ["a.cfg"]\nregimes = ["a"]\n'
    for text, message in (
        ("[grid]\nconfigs = []\nregimes = []\nshots = []\n", "grid.configs needs at least one value"),
        ("[other]\n", r"has no section \[grid\]"),
        ("[grid]\nshots = [0]\n", r"grid\.configs"),
        (f"[grid]\n{rest}shots = [true]\n", r"grid\.shots\.0 = True"),
        (f"[grid]\n{rest}shots = [0, 0]\n", r"grid\.shots needs .* each only once"),
        ("nonsense", "does not describe a grid"),
    ):
        file.write_text(text)
        with pytest.raises(TuningError, match=message):
            read_grid(file, tmp_path)
    file.write_text('[grid]\nconfigs = ["none.cfg"]\nregimes = ["a"]\nshots = [0]\n')
    with pytest.raises(TuningError, match=r"no config .*none\.cfg"):
        read_grid(file, tmp_path)
