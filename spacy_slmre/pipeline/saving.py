"""Saving components as bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import srsly

from spacy_slmre.util.io import read_files, write_files


class SavedAsFolder:
    """A component whose bytes are those of the files that `to_disk` writes."""

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Read the result of `to_disk`."""
        return self._read(path, exclude)

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return labels, changed settings and the model as bytes."""
        with tempfile.TemporaryDirectory() as folder:
            self.to_disk(folder, exclude=exclude)
            return srsly.msgpack_dumps(read_files(Path(folder)))

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Read the result of `to_bytes`."""
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), srsly.msgpack_loads(bytes_data))
            return self._read(folder, exclude, temporary=True)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the component in a folder."""
        raise NotImplementedError

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> Self:
        """Read a folder, which may be deleted afterwards if it is temporary."""
        raise NotImplementedError
