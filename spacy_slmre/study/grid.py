"""A grid of tuning runs: which of them are done, and doing those that are missing.

A run is taken by the lock that `slmre tune` holds on its output, and not by the grid: so it is one process's
alone even where the grid that began it was killed.
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

from spacy_slmre.training.config import TuningError
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.run_folder import METRICS_FILE, is_locked

STATES = ("missing", "running", "done", "failed")
_LINES_KEPT = 15


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        name: Model, regime and style, which its folder is called.
        config: Its config.
        regime: What it is tuned on.
        shots: Demonstrations in its prompts.
        output: Its folder.
    """

    name: str
    config: Path
    regime: str
    shots: int
    output: Path

    @property
    def log(self) -> Path:
        """What the run has said."""
        return self._beside("log")

    @property
    def failure(self) -> Path:
        """Why it failed, where it did."""
        return self._beside("failed.json")

    def state(self) -> tuple[str, str]:
        """One of `STATES`, and what there is to say: the score, where to look, or the error."""
        if (metrics := self.output / METRICS_FILE).exists():
            score = _find(metrics, "scores", "micro_f1")
            if isinstance(score, int | float):
                return "done", f"micro-F1 {score:.3f}"
            return "failed", f"{metrics} is damaged: delete {self.output} and give --retry"
        if is_locked(self.output):
            return "running", f"log: {self.log}"
        if self.failure.exists():
            error = _find(self.failure, "error")
            return "failed", str(error) if error else f"{self.failure} is damaged; log: {self.log}"
        part = self.output.with_name(f"{self.output.name}.part")
        return "missing", "interrupted" if part.exists() else ""

    def run(self, overrides: Sequence[str] = ()) -> bool:
        """Tune, in a process of its own; what goes wrong is recorded. Gives whether it went well.

        Args:
            overrides: More settings for `slmre tune`, as on a command line.
        """
        if self.state()[0] == "running":
            return False
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "spacy",
            "slmre",
            "tune",
            str(self.config),
            "--output",
            str(self.output),
        ]
        command += ["--tune.regime", self.regime, "--tune.shots", str(self.shots), *overrides]
        with self.log.open("a", encoding="utf-8") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        # Where another process is at it now, it was faster, and nothing has failed.
        if code and not is_locked(self.output):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            told = [line for line in lines if line.strip()][-_LINES_KEPT:]
            error = f"exit code {code}: {told[-1] if told else 'no output'}"
            atomic_write(
                self.failure, json.dumps({"error": error, "command": command, "log": told}, indent=2)
            )
        return not code

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(f"{self.output.name}.{ending}")


def read_grid(path: Path, output: Path) -> list[GridRun]:
    """The runs of a grid, in its order.

    Args:
        path: A config whose section [grid] has `configs` (files beside it), `regimes` and `shots`.
        output: The folder that their folders lie in.

    Raises:
        TuningError: It cannot be read, or it is no such config.
    """
    try:
        section: dict[str, Any] = Config().from_disk(path)["grid"]
        wanted = {"configs": str, "regimes": str, "shots": int}
        for name, kind in wanted.items():
            if not section[name] or not all(isinstance(value, kind) for value in section[name]):
                raise ValueError(f"grid.{name} must be a list of {kind.__name__}")
    except OSError as error:
        raise TuningError(f"The grid {path} cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise TuningError(f"{path} describes no grid: {error}.") from error
    if absent := [name for name in section["configs"] if not (path.parent / name).is_file()]:
        raise TuningError(f"{path}: there is no config {path.parent / absent[0]}.")
    return [
        GridRun(name, path.parent / config, regime, shots, output / name)
        for config in section["configs"]
        for regime in section["regimes"]
        for shots in section["shots"]
        for name in [f"{Path(config).stem}-{regime}-{shots}shot"]
    ]


def take_shard(runs: Sequence[GridRun], shard: str) -> list[GridRun]:
    """Every n-th run: "2/4" is the second of four shards.

    Raises:
        TuningError: It is no shard.
    """
    first, slash, of = shard.partition("/")
    if not (slash and first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise TuningError(f"--shard {shard}: write 1/4 for the first of four.")
    return list(runs[int(first) - 1 :: int(of)])


def _find(file: Path, *names: str) -> Any:
    """A value in a JSON file, by the names on the way to it; None where the file is damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        for name in names:
            value = value[name]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value
