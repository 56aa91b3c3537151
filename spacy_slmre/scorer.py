"""The registered scorer: compares predicted relations with gold ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.directions import turn_relation
from spacy_slmre.facts import EntityKeys, entity_keys
from spacy_slmre.gold import PairKey, directions_of, gold_pairs, pair_key, turn_pair
from spacy_slmre.metrics import Item, count, count_per_label, macro_f1
from spacy_slmre.relations import RELATIONS, relations_of
from spacy_slmre.schema import NEGATIVE_LABEL

Propose = Callable[[Doc], Iterable[tuple[Span, Span]]]
SCORES = (
    *("rel_micro_p", "rel_micro_r", "rel_micro_f", "rel_macro_f", "rel_per_type", "rel_candidate_recall"),
    *("rel_fact_p", "rel_fact_r", "rel_fact_f"),
)


def score_relations(
    examples: Iterable[Example],
    *,
    attr: str = RELATIONS,
    negative_label: str | None = NEGATIVE_LABEL,
    inverse_of: Mapping[str, str] | None = None,
    mirrors: Mapping[str, str] | None = None,
    propose: Propose | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Return positive-class scores over (head, tail, label), matched by character offsets.

    A gold pair that was not proposed as a candidate counts as a false negative. Predictions for pairs whose labels are
    unknown (see `spacy_slmre.gold`) are not counted. A symmetric relation counts once, whichever direction is annotated
    and predicted, and so do a relation and its inverse.

    Args:
        examples: Gold relations on the reference side, predicted ones on the predicted side.
        attr: Attribute with the predicted relations. Gold relations are read by `gold_pairs`, with this attribute.
        negative_label: The gold label that means "no relation".
        inverse_of: The symmetric and inverse labels, see `LabelSchema.inverse_of`.
        mirrors: Labels that imply another one in the other direction, see `LabelSchema.mirrors`.
        propose: Returns the candidate pairs of a document, to compute candidate recall.

    Returns:
        `rel_micro_p`, `rel_micro_r`, `rel_micro_f`, `rel_macro_f`, `rel_per_type` (label → p, r, f; a label that is
        inverse to an earlier one counts as that one), `rel_candidate_recall`, the share of gold relations whose pair
        was proposed, and `rel_fact_p`, `rel_fact_r` and `rel_fact_f`, in which all relations between the mentions of
        two entities of the reference document count once, as one fact. All are None without gold relations, as in
        spaCy's own scorers.
    """
    inverse_of = inverse_of or {}
    gold: set[Item] = set()
    predicted: set[Item] = set()
    gold_facts: set[Item] = set()
    predicted_facts: set[Item] = set()
    proposed = 0
    for number, example in enumerate(examples):
        annotated = gold_pairs(example.reference, attr, mirrors)
        positives = {turn_pair(key, label, inverse_of) for key, label in annotated.positives(negative_label)}
        turned = [
            turn_pair(pair_key(relation.head, relation.tail), relation.label, inverse_of)
            for relation in relations_of(example.predicted, attr)
        ]
        found = {
            (key, label) for key, label in turned if any(map(annotated.is_known, directions_of(key, label, inverse_of)))
        }
        gold |= {((number, *key), label) for key, label in positives}
        predicted |= {((number, *key), label) for key, label in found}
        if positives or found:
            entities = entity_keys(example.reference)
            gold_facts |= _facts(positives, number, entities, inverse_of)
            predicted_facts |= _facts(found, number, entities, inverse_of)
        if propose is not None:
            pairs = {pair_key(*pair) for pair in propose(example.predicted)}
            proposed += sum(not pairs.isdisjoint(directions_of(*item, inverse_of)) for item in positives)
    if not gold:
        return dict.fromkeys(SCORES)
    micro, per_label = count(gold, predicted), count_per_label(gold, predicted)
    facts = count(gold_facts, predicted_facts)
    values = (
        *(micro.precision, micro.recall, micro.f1),
        macro_f1(per_label),
        {label: prf.to_dict() for label, prf in per_label.items()},
        proposed / len(gold) if propose is not None else None,
        *(facts.precision, facts.recall, facts.f1),
    )
    return dict(zip(SCORES, values, strict=True))


def _facts(
    relations: Iterable[tuple[PairKey, str]], number: int, entities: EntityKeys, inverse_of: Mapping[str, str]
) -> set[Item]:
    """Return the facts that relations state; an entity has no relation to itself."""
    facts: set[Item] = set()
    for key, label in relations:
        head, turned, tail = turn_relation(entities[key[:2]], label, entities[key[2:]], inverse_of)
        if head != tail:
            facts.add(((number, head, tail), turned))
    return facts


def make_relation_scorer() -> Callable[..., dict[str, Any]]:
    """Return the scorer; registered as `@scorers = "spacy-slmre.RelationScorer.v1"`."""
    return score_relations
