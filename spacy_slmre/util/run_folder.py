"""Lock, resume and publish the output of a command, which is one file or folder.

    OUTPUT          the finished file or folder; it appears when the run is complete
    OUTPUT.part/    an unfinished run: `run_key.json` and whatever the command needs to resume
    .OUTPUT.lock    locked while a process works on OUTPUT; the operating system releases it

A run is resumed if the command is repeated. Its *run key* contains everything that determines the output (config,
data, model, …); partial results are only used if the key is unchanged.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import atomic_replace, atomic_write, clean_up, remove

Kind = Literal["file", "folder"] | None

RUN_FILE = "run.json"
"""Describes the run in a finished folder. A folder with this file may be replaced."""
METRICS_FILE = "metrics.json"
KEY_FILE = "run_key.json"
# In seconds. The first is longer because `is_locked` briefly holds the lock, too.
_LOCK_TIMEOUT = 5.0
_CHECK_TIMEOUT = 0.2
_DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM))


def is_run(folder: Path) -> bool:
    """Return whether a folder is empty or was written by a run, according to its `run.json`, even if it is damaged."""
    file = folder / RUN_FILE
    if not file.is_file():
        return not any(folder.iterdir())
    try:
        return "key" in read_json(file)
    except OutputError:
        return True


@contextmanager
def reserve(
    *outputs: Path,
    inputs: Iterable[str | Path] = (),
    overwrite: bool = True,
    kind: Kind = "file",
    is_replaceable: Callable[[Path], bool] = is_run,
) -> Iterator[None]:
    """Lock and check the outputs of a command, before it reads its inputs and until everything is written.

    Args:
        outputs: Files or folders to write; their parent folders are created.
        inputs: Files and folders that are read; "-" is standard input.
        overwrite: Existing outputs may be replaced.
        kind: Whether the outputs are files or folders; None if that depends on the data.
        is_replaceable: Decides whether an existing folder may be replaced. Files may always be.

    Raises:
        OutputError: An output is being written by another process, is or contains an input, is inside one, exists and
            must not be replaced, or cannot be written.
    """
    check_not_input(outputs, inputs)
    with ExitStack() as locks:
        for output in sorted(outputs):
            locks.enter_context(_lock(output))
            _check_existing(output, overwrite, kind, is_replaceable)
        yield


def check_not_input(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Check that no output is an input, contains one or is inside one, and that all outputs are different.

    Raises:
        OutputError: One of these conditions is violated.
    """
    sources = {source: Path(source).resolve() for source in inputs if str(source) != "-"}
    targets: set[Path] = set()
    for output in outputs:
        target = output.resolve()
        for source, origin in sources.items():
            if target == origin or target in origin.parents:
                raise OutputError(f"The output {output} would replace the input {source}. Choose another output.")
            if origin in target.parents and origin.is_dir():
                raise OutputError(f"The output {output} is in the input {source}. Choose an output outside of it.")
        if target in targets:
            raise OutputError(f"Two outputs are the same file, {output}. Choose different ones.")
        targets.add(target)


def _check_existing(output: Path, overwrite: bool, kind: Kind, is_replaceable: Callable[[Path], bool]) -> None:
    is_folder = output.is_dir()
    if not is_folder and not output.exists():
        return
    if not is_folder and not output.is_file():
        raise OutputError(f"{output} is neither a file nor a folder. Choose another output.")
    if kind is not None and is_folder != (kind == "folder"):
        found = "folder" if is_folder else "file"
        raise OutputError(f"{output} is a {found}, which will not be replaced by a {kind}. Choose another output.")
    if not overwrite:
        raise OutputError(f"{output} already exists. Choose another output, or replace it with overwrite.")
    if is_folder and not is_replaceable(output):
        raise OutputError(
            f"{output} exists but was not created by this command, so it will not be replaced. Choose another output."
        )


@contextmanager
def _lock(output: Path) -> Iterator[None]:
    file = _lock_file(output)
    lock = FileLock(file)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_TIMEOUT)
    except (Timeout, RuntimeError) as error:  # filelock raises the latter if this thread has the lock
        raise OutputError(
            f"Another process is writing {output}{_holder(file)}. Wait for it or choose another output. If no such "
            f"process exists on any machine, delete {file}."
        ) from error
    except OSError as error:
        raise OutputError(f"The output {output} cannot be written: {error.strerror}.") from error
    try:
        with suppress(OSError):  # Windows does not allow this
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        clean_up(output)
        yield
    finally:
        with suppress(OSError):  # on Windows, `release` does it
            file.unlink()
        lock.release()


def _holder(file: Path) -> str:
    try:
        return f" ({file.read_text(encoding='utf-8')})"
    except (OSError, ValueError):
        return ""


class RunFolder:
    """An output that one process at a time writes, resumes and finally publishes.

    Use it as a context manager: the lock is held inside the block.

    Args:
        output: File or folder to write.
        inputs: Files and folders that the run reads, which the output must not replace.
        kind: Whether the output is a file or a folder; None if that depends on the data.
        overwrite: Discard partial results and replace an existing output.
        overwrite_changed: Do so only if their run key differs; an output with the same key is kept.
        is_main: Whether this is the main one of several processes that share the run; only the main process
            takes the lock and changes files.

    Raises:
        OutputError: On entry, if another process is writing the output or if it must not be replaced.
    """

    def __init__(
        self,
        output: Path,
        *,
        inputs: Iterable[str | Path] = (),
        kind: Kind = None,
        overwrite: bool = False,
        overwrite_changed: bool = False,
        is_main: bool = True,
    ) -> None:
        self.output = output
        self.overwrite = overwrite
        self.overwrite_changed = overwrite_changed
        self.is_main = is_main
        self.partial = partial_dir(output)
        self._reserved = ExitStack()
        self._inputs, self._kind = list(inputs), kind

    def __enter__(self) -> Self:
        if self.is_main:
            check_not_input([self.partial], self._inputs)
            with ExitStack() as stack:
                stack.enter_context(reserve(self.output, inputs=self._inputs, kind=self._kind))
                if self.overwrite:
                    remove(self.partial)
                self._reserved = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._reserved.close()

    def completed(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the finished output's `run.json` if it has this run key, or None if there is no output.

        None is also returned if the output will be replaced: with `overwrite`, with `overwrite_changed` if its key
        differs, or if there are partial results with this key.

        Raises:
            OutputError: The output exists but has another run key or no `run.json`.
        """
        if self.overwrite or not self.output.exists() or self._stored_key() == _plain(key):
            return None
        if self.output.is_dir() and not any(self.output.iterdir()):
            return None
        if not (self.output / RUN_FILE).is_file():
            raise OutputError(f"{self.output} exists. Choose another output, or replace it with overwrite.")
        record = read_json(self.output / RUN_FILE)
        if changed := _changed(key, record.get("key", {})):
            if self.overwrite_changed:
                return None
            raise OutputError(
                f"{self.output} already exists and was made by another run (different {', '.join(changed)}). "
                "Choose another output, or replace it with overwrite."
            )
        return record

    def discard(self) -> None:
        """Remove partial results, which would otherwise block runs with another key."""
        if self.is_main:
            remove(self.partial)

    def begin(self, key: Mapping[str, Any]) -> bool:
        """Start a run or resume an interrupted one.

        Args:
            key: Everything that determines the output, as plain data by name.

        Returns:
            Whether there are partial results with the same key.

        Raises:
            OutputError: The partial results have another key, or cannot be written.
        """
        if not self.is_main:
            return (self.partial / KEY_FILE).exists()
        stored = self._stored_key()
        changed = [] if stored is None else _changed(key, stored)
        if stored is not None and not changed:
            return True
        if changed and not self.overwrite_changed:
            raise OutputError(
                f"{self.partial} is an interrupted run with different {', '.join(changed)}. Repeat the "
                "original command to resume it, or discard it with overwrite."
            )
        with self.explain_disk_errors():
            remove(self.partial)
            self.partial.mkdir(parents=True)
            atomic_write(self.partial / KEY_FILE, json.dumps(_plain(key), indent=2))
        return False

    def publish(self, result: Path) -> None:
        """Move a result, in `partial` or `partial` itself, to the output and remove the partial results."""
        atomic_replace(result, self.output)
        if result == self.partial:
            remove(self.output / KEY_FILE)
        else:
            remove(self.partial)

    @contextmanager
    def explain_disk_errors(self) -> Iterator[None]:
        """Convert errors caused by a full or read-only disk into an OutputError that says what to do."""
        try:
            yield
        except Exception as error:
            if not _is_disk_error(error):
                raise
            place = next(path for path in (self.partial, *self.partial.parents) if path.exists())
            free = shutil.disk_usage(place).free / 1e9
            raise OutputError(
                f"{self.partial} cannot be written ({error}); {free:.2f} GB are free. Make room or fix the "
                "permissions, then repeat the command to resume."
            ) from error

    def _stored_key(self) -> dict[str, Any] | None:
        file = self.partial / KEY_FILE
        return read_json(file) if file.exists() else None


def is_locked(output: Path) -> bool:
    """Return whether a process is currently writing an output."""
    if not _lock_file(output).exists():
        return False
    try:
        with FileLock(_lock_file(output)).acquire(timeout=_CHECK_TIMEOUT):
            return False
    except Timeout:
        return True


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a run folder.

    Raises:
        OutputError: The file is missing or damaged.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{file} is missing or damaged. Start over with overwrite.") from error
    if not isinstance(data, dict):
        raise OutputError(f"{file} is damaged. Start over with overwrite.")
    return data


def partial_dir(output: Path) -> Path:
    """Return the folder of an output's partial results."""
    return output.with_name(f"{output.name}.part")


def _lock_file(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(key))


def _changed(key: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    return [name for name, value in _plain(key).items() if stored.get(name) != value]


def _is_disk_error(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    # safetensors and tokenizers report the error number only in the message, torch not at all.
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is not None:
        return int(number[1]) in _DISK_ERRORS
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
