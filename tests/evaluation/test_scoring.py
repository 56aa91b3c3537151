"""Scores of a run, compared with scikit-learn and with values computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.evaluation.scoring import score_predictions
from spacy_slmre.evaluation.significance import document_counts
from spacy_slmre.label_parser import LabelParser
from spacy_slmre.metrics import confusion, normalize_answer, official_macro_f1
from spacy_slmre.schema import LabelSchema

LABELS = ["A", "B", "C", "no_relation"]


def pair(number: int, gold: tuple[str, ...], predicted: str | None, **further: object) -> Prediction:
    return Prediction(f"d/{number}", f"d{number // 2}", "a b", (0, 1), (2, 3), "", "", gold, predicted, **further)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "nonsense"])), min_size=1))
def test_micro_f1_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions = [
        pair(n, () if gold == "no_relation" else (gold,), None if answer == "no_relation" else answer)
        for n, (gold, answer) in enumerate(pairs)
    ]
    gold, answers = zip(*pairs, strict=True)
    positive = ["A", "B", "C", "nonsense"]
    expected = f1_score(gold, answers, labels=positive, average="micro", zero_division=0)
    scores = score_predictions(predictions, LABELS, "no_relation")
    assert scores["micro"]["f"] == pytest.approx(expected)
    assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert scores["out_of_schema"] == answers.count("nonsense")
    present = sorted({label for some in pairs for label in some} - {"no_relation", "nonsense"})
    if present:
        macro = f1_score(gold, answers, labels=present, average="macro", zero_division=0)
        assert scores["macro_f"] == pytest.approx(macro)


def test_an_out_of_schema_answer_is_a_false_positive_and_a_miss() -> None:
    scores = score_predictions([pair(0, ("A",), "nonsense"), pair(1, (), "nonsense")], LABELS, "no_relation")
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (0, 2, 1)


def test_the_confusion_matrix_has_all_labels_of_a_pair() -> None:
    pairs = [
        pair(0, ("A",), "A", labels=("A", "B")),
        pair(1, ("A", "C"), "A", labels=("A",)),
        pair(2, ("B",), "C", labels=("C",)),
        pair(3, (), None, labels=()),
    ]
    confusion = score_predictions(pairs, LABELS, "no_relation")["confusion"]
    labels = confusion["labels"]
    found = {
        (labels[row], labels[column]): number
        for row, numbers in enumerate(confusion["rows"])
        for column, number in enumerate(numbers)
        if number
    }
    none = "no_relation"
    assert found == {("A", "A"): 2, (none, "B"): 1, ("C", none): 1, ("B", "C"): 1, (none, none): 1}


def test_pairs_with_several_gold_labels_are_several_instances() -> None:
    scores = score_predictions([pair(0, ("A", "B"), "B"), pair(1, ("C",), "C")], LABELS, "no_relation")
    # Three instances: the first pair's prediction is correct for B and wrong for A.
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (2, 1, 1)
    assert scores["micro"]["f"] == pytest.approx(f1_score(["A", "B", "C"], ["B", "B", "C"], average="micro"))
    assert scores["micro_any"]["f"] == 1.0
    assert scores["ceiling"] == pytest.approx(2 / 3)
    assert scores["accuracy"] == 1.0


def test_all_labels_of_a_pair_are_compared_if_it_may_have_several() -> None:
    predictions = [
        pair(0, ("A", "B"), "B", labels=("B", "A")),
        pair(1, ("C",), "C", labels=("C", "A")),
        pair(2, (), None, labels=()),
        pair(3, ("A",), None, labels=()),
    ]
    scores = score_predictions(predictions, LABELS, "no_relation")
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (3, 1, 1)
    assert scores["ceiling"] is None and scores["accuracy"] == 0.5
    assert score_predictions(predictions[:1], LABELS, "no_relation")["micro"]["f"] == 1.0
    assert Prediction.from_json(predictions[0].to_json()) == predictions[0]


@pytest.mark.parametrize("several", [True, False])
def test_symmetric_relations_and_inverses_count_once_in_either_direction(several: bool) -> None:
    inverses = {"A": "A", "C": "B"}

    def score(*pairs: tuple[str, str, str | None, str]) -> tuple[int, int, int]:
        """Score (id, gold label, predicted label, id of the opposite direction)."""
        predictions = [
            replace(pair(0, (gold,) if gold else (), predicted), id=id, opposite=opposite)
            for id, gold, predicted, opposite in pairs
        ]
        if several:
            predictions = [replace(one, labels=(one.predicted,) if one.predicted else ()) for one in predictions]
        micro = score_predictions(predictions, LABELS, "no_relation", inverse_of=inverses)["micro"]
        assert sum(micro[key] for key in ("tp", "fp", "fn")) == sum(document_counts(predictions, inverses)["d0"])
        return micro["tp"], micro["fp"], micro["fn"]

    assert score(("x", "A", None, "y"), ("y", "A", "A", "x")) == (1, 0, 0)
    assert score(("x", "A", "A", "y"), ("y", "A", "A", "x")) == (1, 0, 0)
    assert score(("x", "", "A", "y"), ("y", "", "A", "x")) == (0, 1, 0)
    assert score(("x", "B", None, "y"), ("y", "C", "C", "x")) == (1, 0, 0)
    assert score(("x", "C", "C", ""), ("z", "A", None, "")) == (1, 0, 1)
    assert score(("x", "B", None, "y"), ("y", "C", "B", "x")) == (0, 1, 1)


def test_out_of_schema_answers_are_one_row_and_not_in_the_macro_mean() -> None:
    junk = [pair(n, ("B",), f"nonsense {n}") for n in range(9)]
    scores = score_predictions([*junk, pair(9, ("A",), "A"), pair(10, ("B",), "B")], LABELS, "no_relation")
    assert set(scores["per_label"]) == {"A", "B", "(out of schema)"}
    assert scores["macro_f"] == pytest.approx((1 + 2 / 11) / 2)
    assert scores["out_of_schema"] == 9 and scores["micro"]["fp"] == 9
    assert "nonsense 1" not in scores["confusion"]["labels"]


def test_semeval_macro_f1_matches_a_hand_calculation() -> None:
    gold = {1: "Cause(e1,e2)", 2: "Cause(e1,e2)", 3: "Cause(e2,e1)", 4: "Part(e1,e2)"}
    answers = {1: "Cause(e1,e2)", 2: "Cause(e2,e1)", 4: "Part(e1,e2)", 5: "Part(e2,e1)", 6: "Cause(e1,e2)"}
    # Cause: 1 of 3 answers is correct, 3 gold pairs. Part: 1 of 2 answers is correct, 1 gold pair.
    expected = (2 * 1 / (3 + 3) + 2 * 1 / (2 + 1)) / 2
    assert official_macro_f1(gold.items(), answers.items()) == pytest.approx(expected)
    assert official_macro_f1([], []) == 0.0


def test_the_wrong_direction_is_wrong_for_semeval() -> None:
    assert official_macro_f1([(1, "Cause(e1,e2)")], [(1, "Cause(e2,e1)")]) == 0.0


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ("place of birth", "born_in"),
        (' "Place  of Birth" \nbecause', "born_in"),
        ("born_in", "born_in"),
        ("no relation", None),
        ("Other", None),
        ("", None),
        ("n/a", "n/a"),
        ("She was born there.", "she was born there."),
    ],
)
def test_generated_answers_are_mapped_to_labels(answer: str, meant: str | None) -> None:
    schema = LabelSchema.from_dict({"labels": [{"name": "born_in", "wording": "place of birth"}]})
    assert LabelParser(schema).parse(answer) == meant


def test_answers_are_normalized() -> None:
    assert normalize_answer("\n  'X  y' \n z") == "x y"
    assert normalize_answer("   ") == "none"


def test_confusion_keeps_the_most_frequent_labels() -> None:
    labels, rows = confusion([("a", "a"), ("a", "b"), ("b", "b"), ("c", "d")], max_labels=3)
    assert labels == ["a", "b", "other labels"]
    assert rows == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_calibration_and_coverage(make_predictions: Callable[..., list[Prediction]]) -> None:
    predictions = make_predictions(200)
    scores = score_predictions(predictions, LABELS, "no_relation")
    bins = scores["calibration"]["bins"]
    assert sum(one["count"] for one in bins) == 200
    expected = sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 200
    assert scores["calibration"]["ece"] == pytest.approx(expected)
    shares = [one["coverage"] for one in scores["coverage"]]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    unscored = score_predictions(make_predictions(20, scored=False), LABELS, "no_relation")
    assert unscored["calibration"] is None
    assert unscored["coverage"] is None
