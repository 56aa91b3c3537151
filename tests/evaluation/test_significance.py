"""Intervals and comparisons of systems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spacy_slmre.evaluation.comparisons import compare
from spacy_slmre.evaluation.runs import Prediction, RunWriter
from spacy_slmre.evaluation.scoring import score_predictions
from spacy_slmre.evaluation.significance import (
    bootstrap_interval,
    document_counts,
    holm,
    mcnemar,
    paired_bootstrap,
)

Make = Callable[..., list[Prediction]]


def test_interval_holds_the_score(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    counts = document_counts(predictions)
    assert len(counts) == 100
    interval = bootstrap_interval(list(counts.values()))
    micro = score_predictions(predictions, [], "no_relation")["micro"]
    assert sum(counts.values()).tolist() == [micro["tp"], micro["fp"], micro["fn"]]
    assert interval.low < micro["f"] < interval.high
    assert interval == bootstrap_interval(list(counts.values()))


def test_interval_narrows_with_more_documents(make_predictions: Make) -> None:
    few, many = (
        bootstrap_interval(list(document_counts(make_predictions(number)).values())) for number in (90, 1800)
    )
    assert many.high - many.low < (few.high - few.low) / 2


def test_documents_are_drawn_whole() -> None:
    # Two documents, all right and all wrong: drawing pairs would never give 0 and 1.
    interval = bootstrap_interval([np.array([50, 0, 0]), np.array([0, 50, 50])])
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_paired_bootstrap_tells_a_better_system(make_predictions: Make) -> None:
    weak, strong = (
        document_counts(make_predictions(300, seed=seed, skill=skill)) for seed, skill in ((1, 0.4), (2, 0.9))
    )
    comparison = paired_bootstrap([strong, weak])[0, 1]
    assert comparison.difference > 0.2
    assert comparison.low > 0
    assert comparison.p_value < 0.01
    back = paired_bootstrap([weak, strong])[0, 1]
    assert back.difference == pytest.approx(-comparison.difference)


def test_paired_bootstrap_of_equals(make_predictions: Make) -> None:
    counts = document_counts(make_predictions(60))
    assert paired_bootstrap([counts, counts])[0, 1].p_value == 1.0
    with pytest.raises(ValueError, match="same documents"):
        paired_bootstrap([counts, document_counts(make_predictions(30))])


def test_mcnemar_by_hand() -> None:
    # 5 pairs that only the first has right, none the other way: 2 × 0.5^5.
    assert mcnemar([True] * 5 + [True], [False] * 5 + [True]) == pytest.approx(2 * 0.5**5)
    assert mcnemar([True, False], [True, False]) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9]) == [0.9]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_compare_systems_on_the_same_pairs(make_predictions: Make, tmp_path: Path) -> None:
    runs = []
    for name, number, skill in (("weak", 300, 0.4), ("strong", 300, 0.9), ("elsewhere", 30, 0.5)):
        writer = RunWriter(tmp_path / name, {})
        writer.write(make_predictions(number, seed=len(name), skill=skill), number // 3, 1.0)
        runs.append(writer.finish({"benchmark": "demo", "split": "test", "data_sha256": "0"}, {}))
    (row,) = compare(runs, ["weak", "strong", "elsewhere"])
    assert (row.first, row.second) == ("weak", "strong")
    assert row.difference < 0 and row.high < 0
    assert row.p_mcnemar < 0.01 and row.p_holm == row.p_bootstrap < 0.01
    assert compare(runs[:1], ["weak"]) == []
