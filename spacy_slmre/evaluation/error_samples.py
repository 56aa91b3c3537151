"""Sample errors of a run, with head and tail marked in the text."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.visual.marked_text import split_at_spans

ERROR_KINDS = {
    "false positive": "False positives (no gold relation)",
    "missed": "Missed (gold relation not predicted)",
    "wrong label": "Wrong label",
    "unanswered": "Unanswered",
}
WINDOW = 200
"""Maximum number of characters shown before and after the pair."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of the text, with the roles of the arguments ("head", "tail") that contain it.

    `ends` has role and entity type of each argument that ends with this part.
    """

    text: str
    roles: tuple[str, ...]
    ends: tuple[tuple[str, str], ...]


def error_kind(prediction: Prediction) -> str | None:
    """Return a key of `ERROR_KINDS`, or None if the prediction is correct."""
    if prediction.is_correct:
        return None
    if not prediction.answered:
        return "unanswered"
    has_only_some = prediction.labels is not None and set(prediction.labels) < set(prediction.gold)
    if prediction.predicted is None or has_only_some:
        return "missed"
    return "wrong label" if prediction.gold else "false positive"


def sample_errors(
    predictions: Iterable[Prediction], each: int, seed: int = 0
) -> dict[str, tuple[int, list[Prediction]]]:
    """Return the number of errors of each kind, and up to `each` random ones."""
    rng = random.Random(seed)
    errors: dict[str, list[Prediction]] = {kind: [] for kind in ERROR_KINDS}
    for prediction in predictions:
        if (kind := error_kind(prediction)) is not None:
            errors[kind].append(prediction)
    return {kind: (len(group), rng.sample(group, min(each, len(group)))) for kind, group in errors.items()}


def mark_arguments(prediction: Prediction) -> list[TextPart]:
    """Split the text around the pair into parts; head and tail may overlap or contain each other."""
    spans = {"head": prediction.head, "tail": prediction.tail}
    types = {"head": prediction.head_type, "tail": prediction.tail_type}
    text = prediction.text
    first = max(0, min(start for start, _ in spans.values()) - WINDOW)
    last = min(len(text), max(end for _, end in spans.values()) + WINDOW)
    parts = [TextPart("… ", (), ())] if first else []
    for start, end, roles in split_at_spans(first, last, spans):
        ends = tuple((role, types[role]) for role, span in spans.items() if span[1] == end and role in roles)
        parts.append(TextPart(text[start:end], roles, ends))
    return [*parts, TextPart(" …", (), ())] if last < len(text) else parts
