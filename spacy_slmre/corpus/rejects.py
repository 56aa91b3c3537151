"""The JSONL file that lists what `convert` or `export` cannot represent, with a reason for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import temporary_output

FAILED = "failed in extraction"
"""Reason of rejects that are documents for which a pipeline wrote an error."""


@contextmanager
def rejects_file(path: str | Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes rejects to a file, if there is a path.

    The file is kept if the command fails, to show why.
    """
    if path is None:
        yield lambda reject: None
        return
    failure: BaseException | None = None
    with temporary_output(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        try:
            yield lambda reject: print(json.dumps(reject, ensure_ascii=False), file=file)
        except BaseException as error:
            failure = error
    if failure is not None:
        raise failure


def check_rejects(path: str | Path) -> None:
    """Check that an existing file has the rejects of an earlier command. Raises OutputError if it has not."""
    try:
        with Path(path).open("rb") as file:
            if not (line := file.readline()) or "reason" in json.loads(line):
                return
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError):
        pass
    raise OutputError(f"{path} exists and has no rejects. Choose another file for them, or replace it with overwrite.")


def count_rejects(path: str | Path) -> dict[str, int] | None:
    """Return the number of rejects in a file by reason; None if there is no such file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return Counter(json.loads(line)["reason"] for line in file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
