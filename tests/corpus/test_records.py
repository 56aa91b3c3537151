from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.corpus.records import (
    Malformed,
    Reject,
    Words,
    find_occurrences,
    parse_rows,
    place_pair,
    sample_negatives,
)


def shown(text: str, *args, **kwargs) -> tuple[str, ...]:
    return tuple(text[m.start : m.end] for m in place_pair(text, *args, **kwargs))


def test_whole_words_come_before_parts_of_words():
    assert find_occurrences("Romania lies east of Rome, not in Rom.", "Rom") == [(34, 37), (0, 3), (21, 24)]


def test_a_repeated_argument_is_placed_at_its_first_occurrence():
    head, tail = place_pair("Ann met Bo. Ann left Bo.", "Ann", "Bo")
    assert (head.start, tail.start) == (0, 8)


def test_an_argument_inside_the_other_is_placed_elsewhere():
    head, tail = place_pair("Cesena FC plays in Cesena.", "Cesena", "Cesena FC")
    assert (head.start, head.end) == (19, 25)
    assert (tail.start, tail.end) == (0, 9)


def test_an_argument_that_only_occurs_inside_the_other_is_nested():
    head, tail = place_pair("She studied at York University.", "York University", "York")
    assert head.start == tail.start and tail.end < head.end


def test_equal_arguments_take_two_occurrences_if_there_are_two():
    assert [m.start for m in place_pair("Bo is Bo.", "Bo", "Bo")] == [0, 6]
    assert [m.start for m in place_pair("Bo is.", "Bo", "Bo")] == [0, 0]


def test_case_and_whitespace_can_be_ignored():
    assert shown("The old\nMan saw the castle.", "the Old man", "Castle", ignore_case=True) == (
        "The old\nMan",
        "castle",
    )
    with pytest.raises(Malformed, match="does not occur in the text"):
        place_pair("The old\nMan saw the castle.", "the Old man", "castle")


@pytest.mark.parametrize("argument", ["", "  ", None])
def test_an_empty_argument_is_malformed(argument):
    with pytest.raises(Malformed, match="empty"):
        place_pair("some text", argument, "text")


def test_words_give_character_offsets():
    words = Words(["Ann", "of", "New", "York", "."])
    assert words.text == "Ann of New York ."
    mention = words.mention(2, 4, "LOC")
    assert words.text[mention.start : mention.end] == "New York"


@pytest.mark.parametrize("span", [(0, 0), (2, 1), (-1, 2), (3, 6), (5, 6)])
def test_token_spans_outside_the_text_are_malformed(span):
    with pytest.raises(Malformed, match="are out of range for 5 tokens"):
        Words(["a", "b", "c", "d", "e"]).mention(*span)


@pytest.mark.parametrize("words", [[], [""], None, "text"])
def test_missing_or_empty_words_are_malformed(words):
    with pytest.raises(Malformed):
        Words(words)


@given(st.text(min_size=1, max_size=40), st.data())
def test_placed_arguments_have_the_given_text(text, data):
    def piece() -> str:
        start = data.draw(st.integers(0, len(text) - 1))
        return text[start : data.draw(st.integers(start + 1, len(text)))]

    head, tail = piece(), piece()
    if head.strip() and tail.strip():
        assert shown(text, head, tail) == (head.strip(), tail.strip())


def test_a_malformed_row_is_a_reject_and_the_others_are_kept():
    def parse(row, *, line, id):
        yield 1 / row["n"]

    rows = [(1, {"n": 2}), (2, {}), (3, {"n": "x"}), (4, {"n": 4})]
    found = list(parse_rows(rows, parse, "dev"))
    assert [found[0], found[3]] == [0.5, 0.25]
    assert [(item.line, item.id, item.reason) for item in found[1:3] if isinstance(item, Reject)] == [
        (2, "dev-1", "malformed record"),
        (3, "dev-2", "malformed record"),
    ]


def test_negatives_are_seeded_and_in_order():
    pairs = [(n, n) for n in range(20)]
    chosen = sample_negatives(pairs, 4, 1.5, random.Random(1))
    assert len(chosen) == 6 and chosen == sorted(chosen)
    assert chosen == sample_negatives(pairs, 4, 1.5, random.Random(1))
    assert sample_negatives(pairs, 4, -1, random.Random(1)) == pairs
    assert sample_negatives(pairs, 99, 1, random.Random(1)) == pairs
    assert sample_negatives(pairs, 4, 0, random.Random(1)) == []
