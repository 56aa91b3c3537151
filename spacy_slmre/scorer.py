"""The registered scorer: compares predicted relations with gold ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.metrics import Item, count, count_per_label, macro_f1
from spacy_slmre.relations import RELATIONS, relations_of

Propose = Callable[[Doc], Iterable[tuple[Span, Span]]]
SCORES = ("rel_micro_p", "rel_micro_r", "rel_micro_f", "rel_macro_f", "rel_per_type", "rel_candidate_recall")


def score_relations(
    examples: Iterable[Example], *, attr: str = RELATIONS, propose: Propose | None = None, **_: Any
) -> dict[str, Any]:
    """Return positive-class scores over (head, tail, label), matched by character offsets.

    A gold pair that was not proposed as a candidate counts as a false negative.

    Args:
        examples: Gold relations on the reference side, predicted ones on the predicted side.
        attr: Attribute with the predicted relations. Gold relations are read from `doc._.relations`, or from
            this attribute if there are none.
        propose: Returns the candidate pairs of a document, to compute candidate recall.

    Returns:
        `rel_micro_p`, `rel_micro_r`, `rel_micro_f`, `rel_macro_f`, `rel_per_type` (label → p, r, f) and
        `rel_candidate_recall`, the share of gold relations whose pair was proposed. All are None without gold
        relations, as in spaCy's own scorers.
    """
    gold: set[Item] = set()
    predicted: set[Item] = set()
    proposed = 0
    for number, example in enumerate(examples):
        items = _items(number, example.reference, RELATIONS) or _items(number, example.reference, attr)
        gold |= items
        predicted |= _items(number, example.predicted, attr)
        if propose is not None:
            pairs = {_pair(number, head, tail) for head, tail in propose(example.predicted)}
            proposed += sum(pair in pairs for pair, _ in items)
    if not gold:
        return dict.fromkeys(SCORES)
    micro, per_label = count(gold, predicted), count_per_label(gold, predicted)
    values = (
        *(micro.precision, micro.recall, micro.f1),
        macro_f1(per_label),
        {label: prf.to_dict() for label, prf in per_label.items()},
        proposed / len(gold) if propose is not None else None,
    )
    return dict(zip(SCORES, values, strict=True))


def make_relation_scorer() -> Callable[..., dict[str, Any]]:
    """Return the scorer; registered as `@scorers = "spacy-slmre.RelationScorer.v1"`."""
    return score_relations


def _items(number: int, doc: Doc, attr: str) -> set[Item]:
    return {(_pair(number, rel.head, rel.tail), rel.label) for rel in relations_of(doc, attr)}


def _pair(number: int, head: Span, tail: Span) -> tuple[int, ...]:
    return number, head.start_char, head.end_char, tail.start_char, tail.end_char
