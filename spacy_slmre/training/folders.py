"""Outputs that are complete or absent: while a run goes on, its state lies beside them in `<output>.part`.

A run holds a lock beside its output. It is the operating system's, which frees it however the process ends,
and file systems that are shared between machines have it too.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spacy_slmre.training.settings import TuningError
from spacy_slmre.util.io import atomic_replace, atomic_write, is_replaceable

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
_ADVICE = {
    "config": "Give the same config and the same settings",
    "data": "Have the texts as they were",
    "base": "Have the base model as it was",
}
# Whoever looks whether a lock is held has it for a moment.
_PATIENCE = 5.0
_GLANCE = 0.2
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


def part_of(output: Path) -> Path:
    """Where the state of a run lies."""
    return output.with_name(f"{output.name}.part")


def lock_of(output: Path) -> Path:
    """The file that is locked while a process makes an output; it stays."""
    return output.with_name(f".{output.name}.lock")


@contextmanager
def alone_at(output: Path, *, main: bool = True) -> Iterator[None]:
    """Keep other processes from the same output.

    Args:
        output: The folder to write.
        main: This is the first of several processes; it alone holds the lock.

    Raises:
        TuningError: Another process is at it.
    """
    if not main:
        yield
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_of(output))
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise TuningError(
            f"Another process is making {output}: wait for it, or give another --output. If there is none "
            f"any more, on any machine, delete {lock_of(output)}."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_being_made(output: Path) -> bool:
    """Whether a process is at an output."""
    if not lock_of(output).exists():
        return False
    try:
        with FileLock(lock_of(output)).acquire(timeout=_GLANCE):
            return False
    except Timeout:
        return True


def check_output(output: Path, *, resume: bool, overwrite: bool, main: bool = True) -> None:
    """Refuse to begin where something stands already; what a run has left to no use is removed.

    Args:
        output: The folder to write.
        resume: Go on with an interrupted run; one that is complete is for `finished` to judge.
        overwrite: Replace the output, and what an interrupted run has left.
        main: This is the first of several processes.

    Raises:
        TuningError: The output is there, or an interrupted run has left checkpoints.
    """
    part = part_of(output)
    if resume and overwrite:
        raise TuningError("Give either --resume or --overwrite.")
    if not is_replaceable(output, RUN_FILE):
        raise TuningError(
            f"{output} is there already and has no {RUN_FILE}, so that no run has made it: it will not be "
            "replaced. Give another --output."
        )
    if output.exists() and not (resume or overwrite):
        raise TuningError(
            f"{output} is there already. Give another --output, or replace it with --overwrite."
        )
    if not main:
        return
    if part.exists() and (overwrite or not _has_checkpoint(part)):
        shutil.rmtree(part)
    if part.exists() and not resume:
        raise TuningError(
            f"{part} holds an interrupted run. Go on with it by --resume, or begin anew with --overwrite."
        )


def finished(output: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """What stands in an output's `metrics.json`, if a run with the same record is complete; else None.

    Raises:
        TuningError: The output is of another run, or damaged.
    """
    # Checkpoints beside an output are of a run that is to replace it.
    if not (output / RUN_FILE).exists() or _has_checkpoint(part_of(output)):
        return None
    _compare(
        output, record, f"{output} is complete, but its run", "give another --output, or replace it with"
    )
    return _read(output / METRICS_FILE)


def check_same(part: Path, record: dict[str, Any], *, main: bool = True) -> None:
    """Keep a run's record beside its state, or make sure that a resumed run is the same.

    Raises:
        TuningError: Config, data or base model are others: the result would be neither the one nor the other.
            Or the record is damaged, or cannot be written.
    """
    if (part / RUN_FILE).exists():
        _compare(part, record, f"The interrupted run in {part}", "begin anew with")
    elif main:
        part.mkdir(parents=True, exist_ok=True)
        with writing_to(part):
            atomic_write(part / RUN_FILE, json.dumps(record, indent=2))


def publish(aside: Path, output: Path) -> None:
    """Put a complete output, written in its `part_of`, in its place, and remove what was kept for the run."""
    atomic_replace(aside, output)
    shutil.rmtree(part_of(output))


@contextmanager
def writing_to(part: Path) -> Iterator[None]:
    """Say what to do where a checkpoint or the output cannot be written.

    Raises:
        TuningError: In place of what the writers raise.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_disk(error):
            raise
        free = shutil.disk_usage(part).free
        raise TuningError(
            f"{part} could not be written to ({error}); {free / 1e9:.2f} GB are free there. Make room, or "
            "allow it, and go on with --resume: the last checkpoint is kept."
        ) from error


def _is_of_disk(error: Exception) -> bool:
    """Whether it is about writing; a tracker whose service is out of reach raises an `OSError` too."""
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    # The writers of safetensors and tokenizers give the number in their message alone, torch's none.
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is not None:
        return int(number[1]) in _DISK_ERRORS
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)


def _has_checkpoint(part: Path) -> bool:
    return any(part.glob("checkpoints/checkpoint-*/trainer_state.json"))


def _compare(folder: Path, record: dict[str, Any], which: str, remedy: str) -> None:
    before = _read(folder / RUN_FILE)
    for what, advice in _ADVICE.items():
        if before.get(what) != record[what]:
            raise TuningError(f"{which} had another {what} than this one. {advice}, or {remedy} --overwrite.")


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TuningError(f"{file} is missing or damaged: begin anew with --overwrite.") from error
    if not isinstance(data, dict):
        raise TuningError(f"{file} is damaged: begin anew with --overwrite.")
    return data
