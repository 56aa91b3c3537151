from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.encoder.markers import STYLES, SolidMarkers

TEXT = "Ann Lee was born in Rome and works for the Red Mill in Paris"


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path):
    return AutoTokenizer.from_pretrained(tiny_encoder)


def make(tokenizer, style: str, types=("PER", "LOC")) -> SolidMarkers:
    return SolidMarkers(tokenizer, 512, len(tokenizer), style, types)


def mark(markers: SolidMarkers, instance: RelationInstance):
    ((tokens, offsets),) = markers.tokenize([instance.context])
    return markers.mark(instance, tokens, offsets)


def spell(markers: SolidMarkers, tokens: list[int]) -> str:
    known = len(markers.tokenizer)
    words = [
        f"<{markers.new_tokens[token - known]}>" if token >= known else markers.tokenizer.convert_ids_to_tokens(token)
        for token in tokens
    ]
    return " ".join(words).replace(" ##", "")


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("typed", "[CLS] <head person> ann lee </head> was born in <tail location> rome </tail> [SEP]"),
        ("plain", "[CLS] <head> ann lee </head> was born in <tail> rome </tail> [SEP]"),
        ("punctuation", "[CLS] @ * person * ann lee @ was born in # ^ location ^ rome # [SEP]"),
    ],
)
def test_each_style_marks_arguments(tokenizer, style: str, expected: str) -> None:
    markers = make(tokenizer, style)
    text = "Ann Lee was born in Rome"
    marked = mark(markers, RelationInstance.from_offsets(text, (0, 7, "PER"), (20, 24, "LOC")))
    assert spell(markers, marked.tokens) == expected
    opening = "@" if style == "punctuation" else f"<head{' person' * (style == 'typed')}>"
    assert spell(markers, [marked.tokens[marked.head]]) == opening


def test_unseen_types_get_plain_markers_or_their_own_word(tokenizer) -> None:
    later = RelationInstance.from_offsets("Ann met Bo", (0, 3, "MILL"), (8, 10, ""))
    assert spell(make(tokenizer, "typed"), mark(make(tokenizer, "typed"), later).tokens) == (
        "[CLS] <head> ann </head> met <tail> bo </tail> [SEP]"
    )
    punctuation = spell(make(tokenizer, "punctuation"), mark(make(tokenizer, "punctuation"), later).tokens)
    assert punctuation.replace(" ", "").startswith("[CLS]@*mill*ann@met#bo#")


def test_nested_and_empty_arguments_are_marked_in_order(tokenizer) -> None:
    markers = make(tokenizer, "plain")
    nested = RelationInstance.from_offsets("the Red Mill in Paris", (4, 21, "ORG"), (16, 21, "LOC"))
    assert spell(markers, mark(markers, nested).tokens).replace("[UNK]", "?") == (
        "[CLS] the <head> red mill in <tail> paris </tail> </head> [SEP]"
    )
    # The tokenizer drops control characters, but their markers are kept in order.
    empty = RelationInstance.from_offsets("Ann \x07 Rome", (4, 5, "X"), (6, 10, "LOC"))
    assert spell(markers, mark(markers, empty).tokens) == ("[CLS] ann <head> </head> <tail> rome </tail> [SEP]")


@given(st.data(), st.sampled_from(STYLES))
def test_markers_only_add_tokens(tokenizer, data: st.DataObject, style: str) -> None:
    def argument() -> tuple[int, int, str]:
        start = data.draw(st.integers(0, len(TEXT) - 1))
        return (start, data.draw(st.integers(start + 1, len(TEXT))), data.draw(st.sampled_from(["PER", "DATE"])))

    markers = make(tokenizer, style)
    instance = RelationInstance.from_offsets(TEXT, argument(), argument())
    ((tokens, offsets),) = markers.tokenize([instance.context])
    marked = markers.mark(instance, tokens, offsets)
    assert len(marked.tokens) <= len(tokens) + markers.max_added
    if style != "punctuation":
        inside = [token for token in marked.tokens[1:-1] if token < len(tokenizer)]
        assert inside == tokens
    # The tokens between the markers are those of the argument.
    head = instance.head_mention
    if style == "plain":
        closing = marked.tokens.index(len(tokenizer) + 1)
        count = sum(token < len(tokenizer) for token in marked.tokens[marked.head : closing])
        assert count == sum(start < head.end and end > head.start for start, end in offsets)
