"""Answers on disk, by the hash of the request: what was answered once is never paid for again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_MAKE = "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
_MOST_VALUES = 500
"""Values in one statement; SQLite has a limit."""


class AnswerCache:
    """A SQLite file of answers. Requests themselves are not kept, only their hashes.

    Each call opens the file for itself, so that threads, forked processes and several runs at once can share
    it, and every answer is safe as soon as it is there.

    Args:
        path: The file; it is made at the first use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The answers that are there, by key.

        Raises:
            ValueError: The file cannot be read, or is no such cache.
        """
        keys = list(keys)
        if not keys or not self.path.exists():
            return {}
        found: dict[str, str] = {}
        with self._open() as connection:
            for start in range(0, len(keys), _MOST_VALUES):
                some = keys[start : start + _MOST_VALUES]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT request, answer FROM answers WHERE request IN ({marks})", some
                )
                found.update(rows)
        return found

    def keep(self, key: str, answer: str) -> None:
        """Put an answer into the file.

        Raises:
            ValueError: The file cannot be written, or is no such cache.
        """
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def check(self) -> None:
        """Make the file where it is absent.

        Raises:
            ValueError: It cannot be made or read.
        """
        with self._open():
            pass

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                connection.execute(_MAKE)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f'model.cache = "{self.path}" cannot be used as a cache of answers ({error}). Name another '
                "file, or null to keep no answers."
            ) from error
