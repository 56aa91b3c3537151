"""Cache answers on disk, so that no request is paid for twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_CREATE = "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
# SQLite limits the number of values in one statement.
_MAX_VALUES = 500


class AnswerCache:
    """A SQLite file of answers, by the hash of the request; the requests themselves are not stored.

    The file is created on first use. Each call opens it, so that threads, forked processes and several runs can share
    it and each answer is saved as soon as it is received.

    Raises:
        ValueError: From any method, if the file cannot be used or is not an answer cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def get(self, keys: Iterable[str]) -> dict[str, str]:
        """Return cached answers by key, without the keys that have none."""
        keys = list(keys)
        if not keys or not self.path.exists():
            return {}
        answers: dict[str, str] = {}
        with self._open() as connection:
            for start in range(0, len(keys), _MAX_VALUES):
                chunk = keys[start : start + _MAX_VALUES]
                placeholders = ",".join("?" * len(chunk))
                query = f"SELECT request, answer FROM answers WHERE request IN ({placeholders})"
                answers.update(connection.execute(query, chunk))
        return answers

    def put(self, key: str, answer: str) -> None:
        """Store an answer."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def check(self) -> None:
        """Create the file if necessary, and check that it can be used."""
        with self._open():
            pass

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                connection.execute(_CREATE)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f'model.cache = "{self.path}" cannot be used as an answer cache ({error}). Choose another '
                "file, or null for no cache."
            ) from error
