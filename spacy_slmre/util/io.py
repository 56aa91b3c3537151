"""Files and folders that are complete or absent, and folders as plain data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_aside(path: str | Path, text: str) -> None:
    """Write a text file that is complete or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def is_replaceable(folder: Path, mark: str) -> bool:
    """Whether a folder may be replaced with nothing of others lost: it is absent, empty, or has its mark.

    Args:
        folder: What would be replaced.
        mark: A file that every folder of its kind has.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / mark).is_file() or not any(folder.iterdir()))


def replace_folder(aside: Path, target: Path) -> None:
    """Put a complete folder in the place of another one, which is kept until then; both on one disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(aside, target)
    except BaseException:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_files(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder, by their paths in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what `read_files` gave.

    Raises:
        ValueError: A path leads out of the folder.
    """
    folder = folder.resolve()
    for path, content in files.items():
        target = (folder / path).resolve()
        if not target.is_relative_to(folder):
            raise ValueError(f'The bytes name a file outside the pipeline ("{path}"): they are damaged.')
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
