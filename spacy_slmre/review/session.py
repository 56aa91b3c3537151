"""A review session: choose the next pair, and save decisions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spacy_slmre.review.decisions import Decision, DecisionLog, LabeledPairs, decided_pairs, reviewed_document
from spacy_slmre.review.items import ReviewDocument, ReviewItem, read_items, write_items
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.run_folder import RunFolder, partial_dir

_ITEMS_FILE = "items.json"
_LOG_FILE = "decisions.jsonl"


class ReviewSession:
    """Ranked pairs and the decisions about them, which several threads may make.

    Each decision is appended to the log, from which a later session continues. Then the output is rewritten: one JSON
    line for each document with decided pairs, see `spacy_slmre.documents`.

    Args:
        items: The pairs, the least certain first.
        log: File of the decisions.
        output: File of the reviewed documents.

    Raises:
        OutputError: The log is damaged.
    """

    def __init__(self, items: list[ReviewItem], log: Path, output: Path) -> None:
        self.items = items
        self.output = output
        self._numbers: dict[ReviewDocument, list[int]] = {}
        for number, item in enumerate(items):
            self._numbers.setdefault(item.source, []).append(number)
        self._known: dict[ReviewDocument, LabeledPairs] = {}
        self._lines: dict[ReviewDocument, str] = {}
        self._log = DecisionLog(log)
        self._lock = threading.RLock()
        self.decisions: dict[int, Decision] = {}  # the latest is last
        for decision in self._log.read(items):
            self._replace(decision)
        for source in self._numbers:
            self._update(source)
        if self.decisions:
            self._write()

    @property
    def n_decided(self) -> int:
        """Number of decided pairs."""
        with self._lock:
            return sum(map(self.is_decided, range(len(self.items))))

    def is_decided(self, number: int) -> bool:
        """Return whether the labels of a pair are known, from a decision about it or about its other direction."""
        return self.items[number].pair in self._known[self.items[number].source]

    def next_item(self) -> int | None:
        """Return the first pair that is undecided; skipped ones come last. None if all are decided."""
        with self._lock:
            skipped = {number: place for place, number in enumerate(self.decisions)}
            undecided = (number for number in range(len(self.items)) if not self.is_decided(number))
            return min(undecided, key=lambda number: (skipped.get(number, -1), number), default=None)

    def decide(self, decision: Decision) -> None:
        """Save a decision, replacing an earlier one about the same pair. Raises OSError if it cannot be saved."""
        with self._lock:
            self._log.append(decision)
            self._replace(decision)
            self._update(self.items[decision.item].source)
            self._write()

    def _replace(self, decision: Decision) -> None:
        self.decisions.pop(decision.item, None)
        self.decisions[decision.item] = decision

    def _update(self, source: ReviewDocument) -> None:
        """Update what is known about the pairs of a document."""
        decided = [number for number in self._numbers[source] if number in self.decisions]
        shown = {self.items[number].pair for number in self._numbers[source]}
        known = decided_pairs(((self.items[number], self.decisions[number]) for number in decided), shown)
        self._known[source] = known
        self._lines[source] = ""
        if known:
            reviewed = reviewed_document(source.document, known)
            self._lines[source] = json.dumps(reviewed.to_dict(), ensure_ascii=False) + "\n"

    def _write(self) -> None:
        atomic_write(self.output, "".join(self._lines.values()))


@contextmanager
def open_session(
    output: Path, key: Mapping[str, Any], rank: Callable[[], list[ReviewItem]], *, overwrite: bool = False
) -> Iterator[ReviewSession]:
    """Start a session or continue an earlier one, holding the lock of its output.

    Args:
        output: File of the reviewed documents. The pairs and the decisions are kept in `<output>.part`.
        key: Everything that determines the pairs, as plain data by name.
        rank: Returns the pairs of a new session.
        overwrite: Discard an earlier session and replace the output.

    Raises:
        OutputError: The output is in use, belongs to something else, or was made from other pairs.
    """
    log = partial_dir(output) / _LOG_FILE
    # Without decisions, there is nothing to lose.
    with RunFolder(output, kind="file", overwrite=overwrite, overwrite_changed=not log.exists()) as run:
        if output.exists() and not (overwrite or run.partial.exists()):
            raise OutputError(f"{output} already exists. Choose another output, or replace it with overwrite.")
        items = run.partial / _ITEMS_FILE
        if not run.begin(key) or not items.exists():
            write_items(items, rank())
        yield ReviewSession(read_items(items), log, output)
