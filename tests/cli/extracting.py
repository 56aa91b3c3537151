"""Helpers for tests of the command extract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli


def run(*args: object, stdin: bytes | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(slmre_cli, ["extract", *map(str, args)], input=stdin, catch_exceptions=False)


@contextmanager
def started(log: Path, *args: object) -> Iterator[subprocess.Popen]:
    """Run the command in a process that can be killed, with its messages in a file."""
    command = [sys.executable, "-m", "spacy", "slmre", "extract", *map(str, args)]
    # Ray gives its workers a low priority, so that they would starve on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    """Wait until a condition holds while a process runs."""
    deadline = time.time() + 400
    while not condition():
        assert process.poll() is None and time.time() < deadline, log.read_text()
        time.sleep(0.02)


def lines(file: Path) -> list[dict]:
    """Read a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def visible_files(folder: Path) -> list[str]:
    """List a folder without hidden files such as locks."""
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
