from __future__ import annotations

import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.relations import RELATIONS, install_extensions
from spacy_slmre.scorer import score_relations

INVERSES = {"spouse": "spouse", "child": "parent"}
Relations = list[tuple[int, int, str]]


def example(gold: Relations, predicted: Relations, *, pairs: bool = False) -> Example:
    """Make an example with relations between words by number; with `pairs`, others are unknown."""
    install_extensions()
    docs = []
    for relations, attr in ((predicted, RELATIONS), (gold, "relation_pairs" if pairs else RELATIONS)):
        doc = Doc(spacy.blank("en").vocab, ["Ann", "Bo", "Cy"])
        doc.ents = [Span(doc, number, number + 1, "PER") for number in range(3)]
        setattr(doc._, attr, [(doc[head : head + 1], doc[tail : tail + 1], label) for head, tail, label in relations])
        docs.append(doc)
    return Example(*docs)


def counts(gold: Relations, predicted: Relations, *, pairs: bool = False) -> tuple[float, float]:
    scores = score_relations([example(gold, predicted, pairs=pairs)], inverse_of=INVERSES)
    return scores["rel_micro_p"], scores["rel_micro_r"]


def test_a_symmetric_relation_is_right_in_either_direction_and_counted_once() -> None:
    gold: Relations = [(0, 1, "spouse"), (2, 1, "spouse")]
    assert counts(gold, [(1, 0, "spouse"), (1, 2, "spouse")]) == (1.0, 1.0)
    assert counts(gold, [(0, 1, "spouse"), (1, 0, "spouse"), (0, 2, "spouse"), (2, 0, "spouse")]) == (0.5, 0.5)
    assert counts([(0, 1, "spouse"), (1, 0, "spouse")], [(1, 0, "spouse")]) == (1.0, 1.0)


def test_what_a_label_implies_in_the_other_direction_is_right() -> None:
    one = example([(0, 1, "father")], [(0, 1, "father"), (1, 0, "child")])
    assert score_relations([one], mirrors={"father": "child", "mother": "child"})["rel_micro_f"] == 1.0


def test_relations_between_the_mentions_of_two_entities_are_one_fact() -> None:
    one = example([(0, 1, "boss"), (1, 2, "spouse")], [(0, 1, "boss"), (2, 1, "boss"), (0, 2, "boss")])
    scores = score_relations([one], inverse_of=INVERSES)
    assert (scores["rel_fact_p"], scores["rel_fact_r"]) == (1 / 3, 0.5)
    doc = one.reference
    doc.ents = [Span(doc, number, number + 1, "PER", kb_id=kb_id) for number, kb_id in enumerate(("Q1", "Q2", "Q1"))]
    doc._.relations = [(doc.ents[0], doc.ents[1], "boss"), (doc.ents[1], doc.ents[2], "spouse")]
    scores = score_relations([one], inverse_of=INVERSES)
    assert (scores["rel_micro_p"], scores["rel_micro_r"]) == (1 / 3, 0.5)
    # Predicted: Ann – boss – Bo, twice; Ann – boss – Cy is a relation of an entity to itself.
    assert (scores["rel_fact_p"], scores["rel_fact_r"]) == (1.0, 0.5)


def test_a_relation_and_its_inverse_are_the_same() -> None:
    assert counts([(0, 1, "parent"), (2, 1, "child")], [(1, 0, "child"), (1, 2, "parent")]) == (1.0, 1.0)
    assert counts([(0, 1, "parent")], [(1, 0, "parent")]) == (0.0, 0.0)
    scores = score_relations([example([(1, 0, "child")], [(0, 1, "parent")])], inverse_of=INVERSES)
    assert list(scores["rel_per_type"]) == ["parent"]


def test_directed_labels_and_a_scorer_without_a_schema_distinguish_directions() -> None:
    assert counts([(0, 1, "boss")], [(1, 0, "boss")]) == (0.0, 0.0)
    scores = score_relations([example([(0, 1, "spouse")], [(1, 0, "spouse")])])
    assert scores["rel_micro_f"] == 0.0


def test_a_pair_that_is_known_in_one_direction_is_known_in_both_for_symmetric_labels() -> None:
    gold: Relations = [(0, 1, "spouse"), (0, 2, "no_relation")]
    assert counts(gold, [(1, 0, "spouse"), (2, 0, "spouse"), (1, 2, "spouse")], pairs=True) == (0.5, 1.0)
    # In the other direction, a directed label is unknown.
    assert counts(gold, [(1, 0, "spouse"), (2, 0, "boss")], pairs=True) == (1.0, 1.0)


def test_a_candidate_in_either_direction_finds_a_symmetric_relation() -> None:
    one = example([(0, 1, "spouse"), (0, 2, "boss")], [])

    def propose(doc: Doc) -> list[tuple[Span, Span]]:
        return [(doc[1:2], doc[0:1]), (doc[2:3], doc[0:1])]

    scores = score_relations([one], inverse_of=INVERSES, propose=propose)
    assert scores["rel_candidate_recall"] == 0.5


def test_without_gold_relations_there_are_no_scores() -> None:
    assert set(score_relations([example([], [(0, 1, "spouse")])], inverse_of=INVERSES).values()) == {None}
