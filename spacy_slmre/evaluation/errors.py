"""Sample errors of a run, with head and tail marked in the sentence."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.evaluation.scoring import is_right

KINDS = {
    "false positive": "False positives: gold says that there is no relation",
    "missed": "Missed: gold has a relation, the answer is none",
    "wrong label": "Wrong label",
    "unanswered": "Not answered at all",
}
AROUND = 200
"""Most characters that are shown before and after the pair."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the text, what it is part of ("head", "tail"), and which of these end with it."""

    text: str
    roles: tuple[str, ...]
    ends: tuple[tuple[str, str], ...]


def error_of(prediction: Prediction) -> str | None:
    """A key of `KINDS`; None where the answer is right."""
    if is_right(prediction):
        return None
    if not prediction.answered:
        return "unanswered"
    if prediction.predicted is None:
        return "missed"
    return "wrong label" if prediction.gold else "false positive"


def sample_errors(
    predictions: Iterable[Prediction], each: int, seed: int = 0
) -> dict[str, tuple[int, list[Prediction]]]:
    """Of every kind of error how many there are, and some of them.

    Args:
        predictions: All pairs of a run.
        each: Most errors of each kind.
        seed: Seed of the draw.
    """
    rng = random.Random(seed)
    counts = dict.fromkeys(KINDS, 0)
    samples: dict[str, list[Prediction]] = {kind: [] for kind in KINDS}
    for one in predictions:
        kind = error_of(one)
        if kind is None:
            continue
        counts[kind] += 1
        if len(samples[kind]) < each:
            samples[kind].append(one)
        elif (place := rng.randrange(counts[kind])) < each:
            samples[kind][place] = one
    return {kind: (counts[kind], samples[kind]) for kind in KINDS}


def mark(prediction: Prediction) -> list[Segment]:
    """The text around the pair in parts; head and tail may overlap or contain each other."""
    spans = {"head": prediction.head, "tail": prediction.tail}
    types = {"head": prediction.head_type, "tail": prediction.tail_type}
    text = prediction.text
    first = max(0, min(start for start, _ in spans.values()) - AROUND)
    last = min(len(text), max(end for _, end in spans.values()) + AROUND)
    places = sorted({first, last, *(place for span in spans.values() for place in span)})
    segments = [Segment("… ", (), ())] if first else []
    for start, end in pairwise(places):
        roles = tuple(role for role, span in spans.items() if span[0] <= start and end <= span[1])
        ends = tuple((role, types[role]) for role, span in spans.items() if span[1] == end and role in roles)
        segments.append(Segment(text[start:end], roles, ends))
    return [*segments, Segment(" …", (), ())] if last < len(text) else segments
