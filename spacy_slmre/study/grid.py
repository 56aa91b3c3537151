"""A grid of tuning runs: list their states and run those that are missing.

A run is claimed by the lock that `slmre tune` holds on its output, not by the grid. So only one process works on it,
even if the grid that started it was killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confection import Config
from pydantic import StrictInt

from spacy_slmre.training.config import TuningError, find_config
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.run_folder import METRICS_FILE, is_locked, partial_dir
from spacy_slmre.util.settings import validate_section

_LOG_LINES_KEPT = 15


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        name: Model, regime and number of examples; the name of its folder.
        config: Its config.
        regime: What it is tuned on.
        shots: Number of examples in its prompts.
        output: Its folder.
    """

    name: str
    config: Path
    regime: str
    shots: int
    output: Path

    @property
    def log(self) -> Path:
        """The file with the run's messages."""
        return self.output.with_name(f"{self.output.name}.log")

    @property
    def failure(self) -> Path:
        """The file with the error, if the run failed."""
        return self.output.with_name(f"{self.output.name}.failed.json")

    def state(self) -> tuple[str, str]:
        """Return "missing", "running", "done" or "failed", and a detail: score, log file or error."""
        if (metrics := self.output / METRICS_FILE).exists():
            score = _read_value(metrics, "scores", "micro_f1")
            if isinstance(score, int | float):
                return "done", f"micro-F1 {score:.3f}"
            return "failed", f"{metrics} is damaged: delete {self.output} and retry"
        if is_locked(self.output):
            return "running", f"log: {self.log}"
        if self.failure.exists():
            error = _read_value(self.failure, "error")
            return "failed", str(error) if error else f"{self.failure} is damaged; log: {self.log}"
        return "missing", "interrupted" if partial_dir(self.output).exists() else ""

    def run(self, overrides: Sequence[str] = ()) -> bool:
        """Tune in a new process, record a failure, and return whether the run succeeded.

        Args:
            overrides: Additional settings for `slmre tune`, as on the command line.
        """
        if self.state()[0] == "running":
            return False
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        command = [sys.executable, "-m", "spacy", "slmre", "tune", str(self.config)]
        command += ["--output", str(self.output), "--tune.regime", self.regime]
        command += ["--tune.shots", str(self.shots), *overrides]
        with self.log.open("a", encoding="utf-8") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code and self.state()[0] not in ("running", "done"):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            last = [line for line in lines if line.strip()][-_LOG_LINES_KEPT:]
            error = f"exit code {code}: {last[-1] if last else 'no output'}"
            content = {"error": error, "command": command, "log": last}
            atomic_write(self.failure, json.dumps(content, indent=2))
        return not code


@dataclass(frozen=True)
class Grid:
    """The section [grid] of a config; each combination of the values is a run.

    Attributes:
        configs: Config files for `slmre tune`, in the folder of the grid, or names of shipped ones.
        regimes: Regimes of the study.
        shots: Numbers of few-shot examples.
    """

    configs: tuple[str, ...]
    regimes: tuple[str, ...]
    shots: tuple[StrictInt, ...]

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values or len({*values}) < len(values):
                raise TuningError(f"grid.{name} needs at least one value, and each only once.")


def read_grid(path: Path, output: Path) -> list[GridRun]:
    """Return the runs of a grid in order.

    Args:
        path: A config with a section [grid].
        output: The folder for the runs.

    Raises:
        TuningError: The file cannot be read, or is not such a config.
    """
    try:
        config = Config().from_disk(path)
    except OSError as error:
        raise TuningError(f"The grid {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise TuningError(f"{path} does not describe a grid: {error}.") from error
    grid = validate_section(Grid, config, "grid", str(path), TuningError)
    configs = [find_config(name, path.parent) for name in grid.configs]
    if absent := [config for config in configs if not config.is_file()]:
        raise TuningError(f"{path}: there is no config {absent[0]}.")
    return [
        GridRun(name, config, regime, shots, output / name)
        for config in configs
        for regime in grid.regimes
        for shots in grid.shots
        for name in [f"{config.stem}-{regime}-{shots}shot"]
    ]


def take_shard(runs: Sequence[GridRun], shard: str) -> list[GridRun]:
    """Return every n-th run: "2/4" is the second of four shards.

    Raises:
        TuningError: The shard is invalid.
    """
    first, slash, of = shard.partition("/")
    if not (slash and first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise TuningError(f'shard = "{shard}", but it must be like 1/4 for the first of four.')
    return list(runs[int(first) - 1 :: int(of)])


def _read_value(file: Path, *keys: str) -> Any:
    """Return a nested value of a JSON file, given the keys that lead to it, or None if the file is damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value
