"""Atomic file output: a file or folder is either complete or absent."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# In the names of temporary folders next to an output, which is being written or replaced.
_NEW, _OLD = ".new-", ".old-"


@contextmanager
def temporary_output(output: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces `output` if the block succeeds.

    The temporary path is next to `output`, so that the final rename is atomic, and keeps its suffix. After an
    error nothing is left behind and an existing output is unchanged.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=f".{output.name}{_NEW}", ignore_cleanup_errors=True
    ) as folder:
        temporary = Path(folder) / output.name
        yield temporary
        atomic_replace(temporary, output)


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Write a file that is either complete or absent, even after a power failure."""
    data = content.encode() if isinstance(content, str) else content
    with temporary_output(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(data)
        sync(file)


def sync(file: IO) -> None:
    """Flush an open file and wait until its content is on disk."""
    file.flush()
    os.fsync(file.fileno())


def atomic_replace(new: Path, target: Path) -> None:
    """Move a complete file or folder to `target` on the same disk, replacing an existing one.

    An existing folder is kept under another name until the new one is in place, and restored after an error.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir() and not (new.is_dir() and target.exists()):
        os.replace(new, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{_OLD}")) / target.name
    os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def clean_up(output: Path) -> None:
    """Remove what a killed process left next to an output, and restore an output that it was replacing.

    No other process may be writing the output.
    """
    name = glob.escape(output.name)
    for old in output.parent.glob(f".{name}{_OLD}*"):
        if (kept := old / output.name).exists() and not output.exists():
            os.replace(kept, output)
        remove(old)
    for new in output.parent.glob(f".{name}{_NEW}*"):
        remove(new)


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Return all files in a folder and its subfolders in alphabetical order, without hidden ones.

    Links are followed; a folder with several names is only searched once.

    Args:
        folder: The folder.
        skipped: Counts what cannot be read, by kind.
    """
    skipped = Counter() if skipped is None else skipped
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def search(place: Path) -> None:
        try:
            state, entries = place.stat(), sorted(place.iterdir())
        except OSError:
            skipped["unreadable folder"] += 1
            return
        if (identity := (state.st_dev, state.st_ino)) in seen:
            return
        seen.add(identity)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                search(entry)
            elif entry.is_file():
                files.append(entry)
            elif not entry.exists():
                skipped["broken link"] += 1

    search(folder)
    return files


def shard_name(number: int) -> str:
    """Return the name of a shard, without suffix; alphabetical order is the order of the numbers."""
    return f"{number:05}" if number < 100_000 else f"a{number:09}"


def path_text(path: str | Path) -> str:
    """Return a path as valid text; bytes of a file name that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder by their relative paths."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files returned by `read_files`.

    Raises:
        ValueError: A path is outside the folder.
    """
    folder = folder.resolve()
    for path, content in files.items():
        target = (folder / path).resolve()
        if not target.is_relative_to(folder):
            raise ValueError(f'The serialized pipeline is damaged: "{path}" is outside its folder.')
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
