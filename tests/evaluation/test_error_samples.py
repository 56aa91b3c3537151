"""Sample errors, and marking head and tail in the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.evaluation.error_samples import error_kind, mark_arguments, sample_errors
from spacy_slmre.evaluation.runs import Prediction, read_run
from tests.evaluation.run_folders import write_run

TEXT = "Ada Brandt met Otto Reiss in Uppsala."


def prediction(gold: tuple[str, ...] = (), predicted: str | None = None, **more: Any) -> Prediction:
    spans = {"head": (0, 10), "tail": (15, 25), **more}
    return Prediction("d/0", "d", TEXT, **spans, head_type="PER", tail_type="", gold=gold, predicted=predicted)


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (prediction(), None),
        (prediction(("a", "b"), "b"), None),
        (prediction((), "a"), "false positive"),
        (prediction(("a",)), "missed"),
        (prediction(("a",), "b"), "wrong label"),
        (prediction(("a", "b"), "a", labels=("a",)), "missed"),
        (prediction(("a", "b"), "a", labels=("a", "c")), "wrong label"),
        (prediction(answered=False), "unanswered"),
    ],
)
def test_errors_have_a_kind(one: Prediction, kind: str | None) -> None:
    assert error_kind(one) == kind


def test_the_sample_is_seeded_and_counted(tmp_path: Path) -> None:
    predictions = list(read_run(write_run(tmp_path, pairs=300)).predictions())
    first, again, other = (sample_errors(predictions, 3, seed) for seed in (0, 0, 1))
    assert first == again != other
    for kind, (count, sample) in first.items():
        assert count == sum(error_kind(one) == kind for one in predictions) and len(sample) == min(3, count)
        assert all(error_kind(one) == kind for one in sample)


span = st.tuples(st.integers(0, 500), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(span, span)
def test_marked_parts_join_to_the_text(head: tuple[int, int], tail: tuple[int, int]) -> None:
    text = "".join(chr(0x4E00 + place) for place in range(600))
    one = Prediction("d/0", "d", text, head, tail, "PER", "LOC", (), None)
    parts = mark_arguments(one)
    shown = "".join(part.text for part in parts)
    assert shown.strip("… ") in text
    for role, (start, end) in (("head", head), ("tail", tail)):
        assert "".join(part.text for part in parts if role in part.roles) == text[start:end]
        assert [part for part in parts if role in [name for name, _ in part.ends]] == [
            part for part in parts if role in part.roles
        ][-1:]
