from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.metrics import PRF, count, count_per_label, macro_f1
from spacy_slmre.relations import install_extensions
from spacy_slmre.scorer import make_relation_scorer


def test_counts_and_scores_of_labels() -> None:
    gold = [(1, "a"), (2, "a"), (3, "b"), (4, "c")]
    predicted = [(1, "a"), (2, "b"), (3, "b"), (5, "a")]
    assert count(gold, predicted) == PRF(tp=2, fp=2, fn=2)
    per_label = count_per_label(gold, predicted)
    assert per_label == {"a": PRF(1, 1, 1), "b": PRF(1, 1, 0), "c": PRF(0, 0, 1)}
    assert macro_f1(per_label) == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    prf = PRF(3, 1, 2)
    assert (prf.precision, prf.recall, prf.f1) == (0.75, 0.6, pytest.approx(2 / 3))
    assert PRF().to_dict() == {"p": 0.0, "r": 0.0, "f": 0.0}
    assert macro_f1({}) == 0.0


@pytest.fixture
def example() -> Example:
    install_extensions()
    nlp = spacy.blank("en")
    text = "Ann met Bo in Rome."
    # The predicted side has other tokens; spans are matched by characters.
    reference = Doc(nlp.vocab, words=["Ann", "met", "Bo", "in", "Rome."], spaces=[True] * 4 + [False])
    predicted = nlp(text)
    reference._.relations = [
        (reference[0:1], reference[2:3], "knows"),
        (reference[2:3], reference[0:1], "knows"),
        (reference[0:1], reference[4:5], "visited"),
    ]
    predicted._.relations = [
        (predicted[0:1], predicted[2:3], "knows", 0.4),
        (predicted[2:3], predicted[0:1], "hates", 0.9),
    ]
    return Example(predicted, reference)


def test_pairs_that_were_not_proposed_count_as_missed(example: Example) -> None:
    def propose(doc: Doc) -> list[tuple[Span, Span]]:
        return [(doc[0:1], doc[2:3]), (doc[2:3], doc[0:1])]

    scores = make_relation_scorer()([example], propose=propose, labels=("unused",))
    assert scores["rel_micro_p"] == 0.5
    assert scores["rel_micro_r"] == pytest.approx(1 / 3)
    assert scores["rel_candidate_recall"] == pytest.approx(2 / 3)
    assert scores["rel_per_type"]["knows"] == {"p": 1.0, "r": 0.5, "f": pytest.approx(2 / 3)}
    assert scores["rel_macro_f"] == pytest.approx((2 / 3) / 3)


def test_scores_are_none_without_gold_relations(example: Example) -> None:
    example.reference._.relations = []
    assert set(make_relation_scorer()([example]).values()) == {None}
