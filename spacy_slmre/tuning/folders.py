"""Outputs that are complete or absent: while a run goes on, its state lies beside them in `<output>.part`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from spacy_slmre.files import replace_folder, write_aside
from spacy_slmre.slm.tuning_settings import TuningError

RUN_FILE = "run.json"
_ADVICE = {
    "config": "Give the same config and the same settings",
    "data": "Have the texts as they were",
    "base": "Have the base model as it was",
}


def part_of(output: Path) -> Path:
    """Where the state of a run lies."""
    return output.with_name(f"{output.name}.part")


def check_output(output: Path, *, resume: bool, overwrite: bool, main: bool = True) -> None:
    """Refuse to begin where something stands already; with `overwrite`, what a run has left is removed.

    Args:
        output: The folder to write.
        resume: Go on with an interrupted run.
        overwrite: Replace it.
        main: This is the first of several processes.

    Raises:
        TuningError: The output is there, or an interrupted run has left its state.
    """
    part = part_of(output)
    if resume and overwrite:
        raise TuningError("Give either --resume or --overwrite.")
    if output.exists() and not overwrite:
        raise TuningError(
            f"{output} is there already. Give another --output, or replace it with --overwrite."
        )
    if part.exists() and overwrite and main:
        shutil.rmtree(part)
    if part.exists() and not resume and main:
        raise TuningError(
            f"{part} holds an interrupted run. Go on with it by --resume, or begin anew with --overwrite."
        )


def check_same(part: Path, record: dict[str, Any], *, main: bool = True) -> None:
    """Keep a run's record beside its state, or make sure that a resumed run is the same.

    Raises:
        TuningError: Config, data or base model are others: the result would be neither the one nor the other.
    """
    file = part / RUN_FILE
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for what, advice in _ADVICE.items():
            if before[what] != record[what]:
                raise TuningError(
                    f"The interrupted run in {part} had another {what} than this one. {advice}, or begin "
                    "anew with --overwrite."
                )
    elif main:
        write_aside(file, json.dumps(record, indent=2))


def publish(aside: Path, output: Path) -> None:
    """Put a complete output, written in its `part_of`, in its place, and remove what was kept for the run."""
    replace_folder(aside, output)
    shutil.rmtree(part_of(output))


@contextmanager
def saving_checkpoints(part: Path) -> Iterator[None]:
    """Say what to do where a checkpoint cannot be written.

    Raises:
        TuningError: In place of what the writers of weights raise.
    """
    try:
        yield
    except (RuntimeError, SafetensorError, OSError) as error:
        if not isinstance(error, OSError | SafetensorError) and "PytorchStreamWriter" not in str(error):
            raise
        free = shutil.disk_usage(part).free
        raise TuningError(
            f"A checkpoint could not be written to {part} ({error}); {free / 1e9:.2f} GB are free there. "
            "Make room and go on with --resume: the checkpoint before it is kept."
        ) from error
