"""Decisions about the entities of a document, `doc._.entity_decisions`, stored like relations as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.relations import read_plain, register, write_records

DECISIONS = "entity_decisions"
"""`doc._.entity_decisions`: what a component decided about entities, in text order."""
SCORE = "entity_score"
"""`span._.entity_score`: the probability of an entity's type, if it was decided."""


@dataclass(frozen=True, slots=True)
class EntityDecision:
    """A decision about a span.

    Attributes:
        start: Start of the span in characters.
        end: End of the span in characters.
        text: The text of the span.
        before: Its type before, or "" if it was not an entity.
        after: Its type after, or "" if it is no entity anymore.
        score: The probability of the type after or, if there is none, that the span is no entity; None if the model
            was not asked about that type.
    """

    start: int
    end: int
    text: str
    before: str
    after: str
    score: float | None


def write_decisions(doc: Doc, decisions: Iterable[EntityDecision]) -> None:
    """Store decisions, replacing existing ones."""
    write_records(doc, [asdict(decision) for decision in decisions], DECISIONS)


def decisions_of(doc: Doc) -> list[dict[str, Any]]:
    """Return the decisions about a document as plain data, see `EntityDecision`."""
    return read_plain(doc, DECISIONS)


def _score_of(span: Span) -> float | None:
    bounds = (span.start_char, span.end_char, span.label_)
    found = (one["score"] for one in decisions_of(span.doc) if (one["start"], one["end"], one["after"]) == bounds)
    return next(found, None)


def install_decisions(*, strict: bool = False) -> None:
    """Register `doc._.entity_decisions` and `span._.entity_score`; see `spacy_slmre.relations.register`."""
    register([(Doc, DECISIONS, decisions_of, None), (Span, SCORE, _score_of, None)], strict=strict)
