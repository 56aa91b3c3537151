"""Atomic file output: a file or folder is either complete or absent."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_output(output: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces `output` if the block succeeds.

    The temporary path is next to `output`, so that the final rename is atomic, and keeps its suffix. After an
    error nothing is left behind and an existing output is unchanged.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True
    ) as folder:
        temporary = Path(folder) / output.name
        yield temporary
        atomic_replace(temporary, output)


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Write a file that is either complete or absent."""
    with temporary_output(Path(path)) as temporary:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8", newline="\n")
        else:
            temporary.write_bytes(content)


def atomic_replace(new: Path, target: Path) -> None:
    """Move a complete file or folder to `target` on the same disk, replacing an existing one.

    An existing folder is kept under another name until the new one is in place, and restored after an error.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir() and not (new.is_dir() and target.exists()):
        os.replace(new, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old-")) / target.name
    os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


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
