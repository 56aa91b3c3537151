"""Decoding: thresholds, several labels, both directions of a pair, limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.decoding import Decoding, Directions, decode, incomplete_rows
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_dict(
    {
        "labels": [
            {"name": "parent", "inverse": "child"},
            {"name": "child", "inverse": "parent"},
            {"name": "spouse", "symmetric": True},
            {"name": "boss", "symmetric": False},
            {"name": "rival"},
            {"name": "born", "max_per_head": 1},
            {"name": "wrote", "max_per_tail": 1},
            {"name": "no_relation"},
        ]
    }
)
NAMES = SCHEMA.names
# Two pairs, a → b and b → a.
DIRECTIONS = Directions.from_rows(np.array([1, 0]), SCHEMA)
MENTIONS = [("a", "b"), ("b", "a")]


def scores(*rows: dict[str, float]) -> np.ndarray:
    """Return log-probabilities; what is left of 1 is spread over the other labels."""
    result = np.zeros((len(rows), len(NAMES)))
    for number, row in enumerate(rows):
        rest = (1 - sum(row.values())) / (len(NAMES) - len(row))
        result[number] = [np.log(row.get(name, rest)) for name in NAMES]
    return result


def run(log_probs: np.ndarray, threshold: float | None = None, max_labels: int = 3, **kwargs: object) -> set:
    decoding = Decoding(threshold, max_labels=max_labels, **kwargs)  # type: ignore[arg-type]
    return {(row, NAMES[column]) for row, column, _ in decode(log_probs, DIRECTIONS, MENTIONS, SCHEMA, decoding)}


def test_without_a_threshold_the_most_probable_label_is_written() -> None:
    log_probs = scores({"boss": 0.4, "no_relation": 0.3}, {"no_relation": 0.5, "boss": 0.45})
    assert run(log_probs) == {(0, "boss")}


def test_a_threshold_writes_labels_even_if_no_relation_is_more_probable() -> None:
    log_probs = scores({"no_relation": 0.6, "boss": 0.3}, {"no_relation": 0.95})
    assert run(log_probs) == set()
    assert run(log_probs, 0.25) == {(0, "boss")}
    assert run(log_probs, 0.35) == set()
    assert run(log_probs, 0.5, label_thresholds={"boss": 0.2}) == {(0, "boss")}
    assert run(log_probs, 0.1, label_thresholds={"boss": 0.9}) == set()


def test_a_pair_may_have_several_labels() -> None:
    log_probs = scores({"born": 0.35, "rival": 0.33, "boss": 0.3}, {"no_relation": 0.99})
    assert run(log_probs, 0.25) == {(0, "born"), (0, "rival"), (0, "boss")}
    assert run(log_probs, 0.25, max_labels=2) == {(0, "born"), (0, "rival")}
    assert run(log_probs, 0.25, max_labels=1) == {(0, "born")}


def test_symmetric_labels_hold_in_both_directions_or_in_none() -> None:
    agreed = scores({"spouse": 0.9}, {"spouse": 0.4, "no_relation": 0.5})
    assert run(agreed) == run(agreed, 0.5) == {(0, "spouse"), (1, "spouse")}
    mean = np.sqrt(0.9 * 0.4)
    for _, _, score in decode(agreed, DIRECTIONS, MENTIONS, SCHEMA, Decoding(0.5)):
        assert score == pytest.approx(mean)
    doubtful = scores({"spouse": 0.6, "no_relation": 0.3}, {"spouse": 0.02, "no_relation": 0.97})
    assert run(doubtful) == run(doubtful, 0.5) == set()


def test_a_label_and_its_inverse_are_decided_together() -> None:
    # Alone, each direction would be "parent".
    log_probs = scores({"parent": 0.8, "child": 0.1}, {"parent": 0.5, "child": 0.4})
    assert run(log_probs) == run(log_probs, 0.3) == {(0, "parent"), (1, "child")}


def test_a_directed_label_holds_in_one_direction_only() -> None:
    log_probs = scores({"boss": 0.8}, {"boss": 0.7})
    assert run(log_probs) == run(log_probs, 0.5) == {(0, "boss")}
    # If nothing is known about a label, both directions are written.
    log_probs = scores({"rival": 0.8}, {"rival": 0.7})
    assert run(log_probs) == run(log_probs, 0.5) == {(0, "rival"), (1, "rival")}


def test_the_inverse_of_several_labels_holds_in_one_direction_only() -> None:
    # "child" does not tell whether the other direction is "father" or "mother", but it is surely not "child".
    parents = [{"name": name, "inverse": "child"} for name in ("father", "mother")]
    schema = LabelSchema.from_dict({"labels": [*parents, "child", "rival"]})
    assert schema.one_way == {"father", "mother", "child"}
    log_probs = np.log(np.full((2, len(schema.names)), 0.05))
    log_probs[:, schema.index["child"]] = np.log([0.8, 0.7])
    for decoding in (Decoding(), Decoding(0.5)):
        found = decode(log_probs, Directions.from_rows(np.array([1, 0]), schema), MENTIONS, schema, decoding)
        assert [(row, schema.names[column]) for row, column, _ in found] == [(0, "child")]


def test_limits_keep_the_most_probable_relations() -> None:
    log_probs = scores({"born": 0.7}, {"born": 0.9}, {"born": 0.8})
    mentions = [("a", "x"), ("a", "y"), ("b", "y")]
    relations = decode(log_probs, Directions.from_rows(np.full(3, -1), SCHEMA), mentions, SCHEMA, Decoding())
    assert [(row, NAMES[column]) for row, column, _ in relations] == [(1, "born"), (2, "born")]


def test_limits_hold_for_tails_too() -> None:
    log_probs = scores({"wrote": 0.7}, {"wrote": 0.9}, {"wrote": 0.8})
    mentions = [("a", "x"), ("b", "x"), ("b", "y")]
    relations = decode(log_probs, Directions.from_rows(np.full(3, -1), SCHEMA), mentions, SCHEMA, Decoding())
    assert [(row, NAMES[column]) for row, column, _ in relations] == [(1, "wrote"), (2, "wrote")]


def test_only_rows_that_depend_on_each_other_are_computed_completely() -> None:
    unknown = -np.inf
    log_probs = np.full((4, len(NAMES)), unknown)
    log_probs[0, NAMES.index("spouse")] = np.log(0.9)
    log_probs[1, NAMES.index("no_relation")] = np.log(0.8)
    log_probs[2, NAMES.index("boss")] = np.log(0.9)
    log_probs[3, NAMES.index("no_relation")] = np.log(0.9)
    directions = Directions.from_rows(np.array([1, 0, 3, 2]), SCHEMA)
    assert incomplete_rows(log_probs, directions, SCHEMA, Decoding(0.3)).tolist() == [1]
    assert incomplete_rows(log_probs, directions, SCHEMA, Decoding()).tolist() == [0, 1]
    assert incomplete_rows(log_probs, Directions.from_rows(np.full(4, -1), SCHEMA), SCHEMA, Decoding()).tolist() == []


def test_number_of_labels_that_are_needed() -> None:
    for threshold, expected in ((None, 1), (0.6, 1), (0.5, 2), (0.3, 3), (0.1, 9), (0.0, 9)):
        assert Decoding(threshold).n_needed(9) == expected
    assert Decoding(0.5, {"rival": 0.1}).n_needed(9) == 9


@given(st.integers(0, 2**31), st.one_of(st.none(), st.floats(0.05, 0.9)), st.integers(1, 4))
def test_relations_never_contradict_each_other(seed: int, threshold: float | None, max_labels: int) -> None:
    random = np.random.default_rng(seed)
    log_probs = np.log(random.dirichlet(np.full(len(NAMES), 0.3), size=6) + 1e-12)
    keys = [(a, b) for a in range(3) for b in range(3) if a != b]
    directions = Directions.from_rows(np.array([keys.index((b, a)) for a, b in keys]), SCHEMA)
    decoding = Decoding(threshold, max_labels=max_labels)
    relations = decode(log_probs, directions, keys, SCHEMA, decoding)
    found = {(*keys[row], NAMES[column]) for row, column, _ in relations}
    assert len(found) == len(relations)
    combined = np.exp(directions.combine(log_probs))
    for a, b, label in found:
        assert label != "no_relation"
        assert ((b, a, label) in found) == (label == "spouse") or label in ("rival", "born", "wrote")
        if label in ("parent", "child"):
            assert (b, a, {"parent": "child", "child": "parent"}[label]) in found
        assert threshold is None or combined[keys.index((a, b)), NAMES.index(label)] >= threshold - 1e-9
        assert sum(one[:2] == (a, b) for one in found) <= max_labels
        assert sum(one[0] == a and one[2] == "born" for one in found) <= 1
        assert sum(one[1] == b and one[2] == "wrote" for one in found) <= 1


def test_types_may_exclude_a_label_in_one_direction() -> None:
    log_probs = scores({"spouse": 0.9}, {"no_relation": 0.9})
    log_probs[1, NAMES.index("spouse")] = -np.inf
    allowed = log_probs > -np.inf
    directions = Directions.from_rows(np.array([1, 0]), SCHEMA, allowed)
    for threshold in (None, 0.5):
        decoding = Decoding(threshold)
        assert not len(incomplete_rows(log_probs, directions, SCHEMA, decoding))
        relations = decode(log_probs, directions, MENTIONS, SCHEMA, decoding)
        assert [(row, NAMES[column]) for row, column, _ in relations] == [(0, "spouse")]


def test_the_threshold_of_the_inverse_label_counts_too() -> None:
    log_probs = scores({"parent": 0.3, "rival": 0.3}, {"child": 0.8})
    assert run(log_probs, 0.4) == {(0, "parent"), (1, "child")}
    assert run(log_probs, 0.4, label_thresholds={"parent": 0.9}) == set()


def test_an_inverse_may_be_given_on_one_side_only() -> None:
    labels = [{"name": "father", "inverse": "child"}, {"name": "mother", "inverse": "child"}, "child", "no_relation"]
    schema = LabelSchema.from_dict({"labels": labels})
    log_probs = np.log(np.array([[0.6, 0.1, 0.1, 0.2], [0.05, 0.05, 0.8, 0.1]]))
    directions = Directions.from_rows(np.array([1, 0]), schema)
    for threshold in (None, 0.5):
        relations = decode(log_probs, directions, MENTIONS, schema, Decoding(threshold))
        assert {(row, schema.names[column]) for row, column, _ in relations} == {(0, "father"), (1, "child")}


def test_a_label_below_its_threshold_does_not_hide_one_above() -> None:
    # Of three labels, "parent" misses its threshold and "no_relation" is not written.
    log_probs = scores({"parent": 0.3, "rival": 0.2}, {"no_relation": 0.9})
    assert run(log_probs, 0.5, label_thresholds={"rival": 0.1}) == {(0, "rival")}


@given(st.integers(0, 2**31))
def test_labels_that_are_not_needed_do_not_change_the_result(seed: int) -> None:
    random = np.random.default_rng(seed)
    log_probs = np.log(random.dirichlet(np.full(len(NAMES), 0.3), size=2) + 1e-9)
    apart = Directions.from_rows(np.full(2, -1), SCHEMA)
    for decoding in (Decoding(None), Decoding(0.3), Decoding(0.5, {"rival": 0.1}), Decoding(0.2, max_labels=3)):
        for directions, mentions in ((DIRECTIONS, MENTIONS), (apart, [("a", "b"), ("a", "c")])):
            best = -np.sort(-log_probs, axis=1)[:, decoding.n_needed(len(NAMES)) - 1]
            known = np.where(log_probs >= best[:, None], log_probs, -np.inf)
            rows = incomplete_rows(known, directions, SCHEMA, decoding)
            known[rows] = log_probs[rows]
            expected = decode(log_probs, directions, mentions, SCHEMA, decoding)
            assert set(decode(known, directions, mentions, SCHEMA, decoding)) == set(expected)
