from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_slmre.documents import EntityMention
from spacy_slmre.visual.arc_layout import LANE_HEIGHT, ArcLayout, lay_out
from spacy_slmre.visual.measure import text_width


def crowded(seed: int, words: int, arcs: int, width: float, alphabet: str = "abcdefgh") -> ArcLayout:
    rng = random.Random(seed)
    text, entities = "", []
    for _ in range(words):
        word = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 12)))
        if rng.random() < 0.5:
            entities.append(EntityMention(len(text), len(text) + len(word), word, rng.choice(["PERSON", "", "LOC"])))
        text += word + " "
    entities = entities or [EntityMention(0, 1, text[0], "X")]
    pick = lambda: rng.randrange(len(entities))  # noqa: E731
    ends = [(pick(), pick()) for _ in range(arcs)]
    labels = [rng.choice(["in", "born in", "a rather long label"]) for _ in ends]
    return lay_out(text, 0, len(text), entities, ends, labels, width)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 25), st.sampled_from([200.0, 500.0, 900.0]))
def test_arcs_labels_and_words_do_not_overlap(seed: int, words: int, arcs: int, width: float) -> None:
    layout = crowded(seed, words, arcs, width)
    for number, one in enumerate(layout.segments):
        assert one.left >= 0 and one.right <= width + 1e-6
        assert layout.rows[one.row].top <= layout.lane_y(one) - LANE_HEIGHT / 2 + 1
        for other in layout.segments[number + 1 :]:
            if (one.row, one.lane) == (other.row, other.lane):
                assert one.right < other.left or other.right < one.left
    for first, second in zip(layout.pieces, layout.pieces[1:], strict=False):
        assert (second.row, second.x) >= (first.row, first.x + first.width - 1e-6) or second.row > first.row


def test_every_arc_goes_from_head_to_tail() -> None:
    layout = crowded(3, 40, 12, 300.0)
    for arc in range(12):
        parts = [segment for segment in layout.segments if segment.arc == arc]
        assert len(parts) in (1, 2) and sum(p.starts for p in parts) == sum(p.ends for p in parts) == 1


def test_text_is_complete_and_in_order() -> None:
    text = "Ann Lee's mill, the Red Mill; 瑪麗居里出生於華沙 " + "x" * 100
    entities = [
        EntityMention(0, 7, "Ann Lee", "PER"),
        EntityMention(20, 28, "Red Mill", "ORG"),
        EntityMention(24, 28, "Mill", "ORG"),
    ]
    layout = lay_out(text, 0, len(text), entities, [], [], 250.0)
    assert "".join(piece.text for piece in layout.pieces) == "".join(text.split())
    assert all(piece.x + piece.width <= 320 for piece in layout.pieces) and len(layout.rows) > 2
    assert {box.level for box in layout.boxes if box.entity == 2} == {1}


def test_right_to_left_text_starts_on_the_right() -> None:
    text = "דוד נולד בפלונסק"
    layout = lay_out(text, 0, len(text), [], [], [], 400.0)
    assert [piece.x for piece in layout.pieces] == sorted((piece.x for piece in layout.pieces), reverse=True)
    assert layout.pieces[0].x + layout.pieces[0].width == pytest.approx(400.0)


def test_words_of_another_script_run_from_left_to_right() -> None:
    text = "דני גר ב New York City 1990 היום, 12 13"
    layout = lay_out(text, 0, len(text), [], [], [], 600.0)
    placed = sorted(layout.pieces, key=lambda piece: piece.x)
    assert " ".join(piece.text for piece in placed) == "13 12 היום, New York City 1990 ב גר דני"
    assert all(left.x + left.width <= right.x for left, right in pairwise(placed))


def test_text_widths_match_helvetica() -> None:
    assert text_width("Wil", 1000) == 944 + 222 + 222
    assert text_width("é", 10) == text_width("e\u0301", 10) == text_width("e", 10)
    assert text_width("華", 10) == 10
