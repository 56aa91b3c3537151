"""Decisions about pairs, what follows from them, and the log that keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.review.items import ReviewItem
from spacy_slmre.schema import NEGATIVE_LABEL
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.json_files import is_int

ACTIONS = ("accept", "reject", "skip")

LabeledPairs = dict[tuple[EntityMention, EntityMention], tuple[str, ...]]
"""The labels of pairs whose labels are known; those without a relation have the negative label."""


@dataclass(frozen=True)
class Decision:
    """A decision about a pair.

    Attributes:
        item: Number of the pair in the ranked list.
        action: "accept" (the pair has the labels), "reject" (it has no relation), or "skip" (decide later).
        labels: The accepted labels.
        reversed: Whether they hold from tail to head instead.
    """

    item: int
    action: str
    labels: tuple[str, ...] = ()
    reversed: bool = False

    @classmethod
    def from_dict(cls, data: Any, items: list[ReviewItem]) -> Decision:
        """Read plain data. Raises ValueError if it is not a decision about one of the items."""
        if not isinstance(data, dict):
            raise ValueError('A decision is an object with "item" and "action".')
        item, action = data.get("item"), data.get("action")
        labels, is_reversed = data.get("labels", []), data.get("reversed", False)
        if not is_int(item) or not 0 <= item < len(items):
            raise ValueError(f"There is no pair with the number {item!r}; the last one is {len(items) - 1}.")
        if action not in ACTIONS or not isinstance(labels, list) or not isinstance(is_reversed, bool):
            raise ValueError(f'"action" is one of {", ".join(ACTIONS)}; "labels" is a list, and "reversed" a boolean.')
        if action == "accept":
            known = items[item].source.schema.positive_names
            if not labels or (unknown := [label for label in labels if label not in known]):
                found = f"not {unknown[0]!r}" if labels else "at least one"
                raise ValueError(f'"labels" are names of labels, {found}. The labels are: {", ".join(known)}.')
            return cls(item, action, tuple(dict.fromkeys(labels)), is_reversed)
        return cls(item, action)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"item": self.item, "action": self.action, "labels": list(self.labels), "reversed": self.reversed}


def labeled_pairs(item: ReviewItem, decision: Decision) -> LabeledPairs:
    """Return the labels that follow from a decision, for the pair and for its reverse.

    Ann – spouse – Bob also means Bob – spouse – Ann if the label is symmetric. If the direction is reversed, the pair
    itself has no relation, unless the label has an inverse. If all proposed labels are symmetric or have an inverse, a
    rejected pair has no relation in the other direction either.
    """
    if decision.action == "skip":
        return {}
    schema, (head, tail) = item.source.schema, item.pair
    negative = (NEGATIVE_LABEL,)  # whatever the schema calls it
    if decision.action == "reject":
        settles_both = all(label in schema.mirrors for label, _ in item.labels)
        return {(head, tail): negative, **({(tail, head): negative} if settles_both else {})}
    mirrored = tuple(schema.mirrors[label] for label in decision.labels if label in schema.mirrors)
    if decision.reversed:
        return {(head, tail): mirrored or negative, (tail, head): decision.labels}
    return {(head, tail): decision.labels, **({(tail, head): mirrored} if mirrored else {})}


def decided_pairs(
    decisions: Iterable[tuple[ReviewItem, Decision]], shown: Container[tuple[EntityMention, EntityMention]] = ()
) -> LabeledPairs:
    """Return the labels of all pairs of a document that are known from decisions, the latest last.

    What follows from a decision about the other direction only counts if the pair itself was not decided and, if the
    decision is a rejection, is not among the pairs shown: it may have another relation.
    """
    decided: LabeledPairs = {}
    implied: LabeledPairs = {}
    for item, decision in decisions:
        for pair, labels in labeled_pairs(item, decision).items():
            if pair == item.pair:
                decided[pair] = labels
            elif decision.action != "reject" or pair not in shown:
                implied[pair] = labels
    return implied | decided


def reviewed_document(document: RelationDocument, pairs: LabeledPairs) -> RelationDocument:
    """Return a document in which only these pairs are annotated; all others are unknown."""
    rows = [DocumentRelation(head, tail, label) for (head, tail), labels in pairs.items() for label in labels]
    rows.sort(key=lambda row: (row.head.key, row.tail.key))
    relations = tuple(row for row in rows if row.label != NEGATIVE_LABEL)
    return replace(document, relations=relations, pairs=tuple(rows), report=None)


class DecisionLog:
    """A file to which decisions are appended, one JSON object per line.

    When `append` returns, the decision is on disk. A line that an interrupted process left incomplete is removed.

    Raises:
        OutputError: A line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0

    def read(self, items: list[ReviewItem]) -> list[Decision]:
        """Return all decisions in order."""
        decisions = []
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            content = content[: -len(lines.pop())]
        for number, line in enumerate(lines, 1):
            try:
                decisions.append(Decision.from_dict(json.loads(line), items))
            except ValueError as error:
                raise OutputError(
                    f"{self.path}:{number} is damaged ({error}). Delete this line to continue."
                ) from error
        self._size = len(content)
        return decisions

    def append(self, decision: Decision) -> None:
        """Save a decision. Raises OSError if this fails; the next decision then overwrites the incomplete line."""
        line = json.dumps(decision.to_dict()).encode() + b"\n"
        with self.path.open("ab") as file:
            file.truncate(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)
