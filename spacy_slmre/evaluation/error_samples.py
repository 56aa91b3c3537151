"""Sample errors of a run, with head and tail marked in the text."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from spacy_slmre.evaluation.runs import Prediction

ERROR_KINDS = {
    "false positive": "False positives: no relation in gold",
    "missed": "Missed: a relation in gold, none predicted",
    "wrong label": "Wrong label",
    "unanswered": "Unanswered",
}
WINDOW = 200
"""Maximum number of characters shown before and after the pair."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of the text, the arguments that it belongs to ("head", "tail"), and those that end with it."""

    text: str
    roles: tuple[str, ...]
    ends: tuple[tuple[str, str], ...]


def error_kind(prediction: Prediction) -> str | None:
    """Return a key of `ERROR_KINDS`, or None if the prediction is correct."""
    if prediction.is_correct:
        return None
    if not prediction.answered:
        return "unanswered"
    if prediction.predicted is None:
        return "missed"
    return "wrong label" if prediction.gold else "false positive"


def sample_errors(
    predictions: Iterable[Prediction], each: int, seed: int = 0
) -> dict[str, tuple[int, list[Prediction]]]:
    """Return the number of errors of each kind, and up to `each` random ones."""
    rng = random.Random(seed)
    errors: dict[str, list[Prediction]] = {kind: [] for kind in ERROR_KINDS}
    for one in predictions:
        if (kind := error_kind(one)) is not None:
            errors[kind].append(one)
    return {kind: (len(found), rng.sample(found, min(each, len(found)))) for kind, found in errors.items()}


def mark_arguments(prediction: Prediction) -> list[TextPart]:
    """Split the text around the pair into parts; head and tail may overlap or contain each other."""
    spans = {"head": prediction.head, "tail": prediction.tail}
    types = {"head": prediction.head_type, "tail": prediction.tail_type}
    text = prediction.text
    first = max(0, min(start for start, _ in spans.values()) - WINDOW)
    last = min(len(text), max(end for _, end in spans.values()) + WINDOW)
    places = sorted({first, last, *(place for span in spans.values() for place in span)})
    parts = [TextPart("… ", (), ())] if first else []
    for start, end in pairwise(places):
        roles = tuple(role for role, span in spans.items() if span[0] <= start and end <= span[1])
        ends = tuple((role, types[role]) for role, span in spans.items() if span[1] == end and role in roles)
        parts.append(TextPart(text[start:end], roles, ends))
    return [*parts, TextPart(" …", (), ())] if last < len(text) else parts
