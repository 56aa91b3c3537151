"""Confidence intervals and comparisons of systems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spacy_slmre.evaluation.runs import EvaluationRun, Prediction
from spacy_slmre.evaluation.scoring import score_predictions
from spacy_slmre.evaluation.significance import (
    bootstrap_interval,
    compare_runs,
    document_counts,
    holm,
    mcnemar,
    paired_bootstrap,
)
from tests.evaluation.run_folders import write_predictions

Make = Callable[..., list[Prediction]]


def test_the_interval_contains_the_score(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    counts = document_counts(predictions)
    assert len(counts) == 100
    interval = bootstrap_interval(list(counts.values()))
    micro = score_predictions(predictions, [], "no_relation")["micro"]
    assert sum(counts.values()).tolist() == [micro["tp"], micro["fp"], micro["fn"]]
    assert interval.low < micro["f"] < interval.high
    assert interval == bootstrap_interval(list(counts.values()))


def test_the_interval_narrows_with_more_documents(make_predictions: Make) -> None:
    few, many = (bootstrap_interval(list(document_counts(make_predictions(number)).values())) for number in (90, 1800))
    assert many.high - many.low < (few.high - few.low) / 2


def test_whole_documents_are_drawn() -> None:
    # One document is all correct, one all wrong: drawing pairs would never give 0 and 1.
    interval = bootstrap_interval([np.array([50, 0, 0]), np.array([0, 50, 50])])
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_paired_bootstrap_finds_the_better_system(make_predictions: Make) -> None:
    weak, strong = (
        document_counts(make_predictions(300, seed=seed, skill=skill)) for seed, skill in ((1, 0.4), (2, 0.9))
    )
    comparison = paired_bootstrap([strong, weak])[0, 1]
    assert comparison.value > 0.2
    assert comparison.low > 0
    assert comparison.p_value < 0.01
    back = paired_bootstrap([weak, strong])[0, 1]
    assert back.value == pytest.approx(-comparison.value)


def test_equal_systems_do_not_differ(make_predictions: Make) -> None:
    counts = document_counts(make_predictions(60))
    assert paired_bootstrap([counts, counts])[0, 1].p_value == 1.0
    with pytest.raises(ValueError, match="same documents"):
        paired_bootstrap([counts, document_counts(make_predictions(30))])


def test_mcnemar_matches_a_hand_calculation() -> None:
    # 5 pairs are correct in the first system only, none in the second only: 2 × 0.5^5.
    assert mcnemar([True] * 5 + [True], [False] * 5 + [True]) == pytest.approx(2 * 0.5**5)
    assert mcnemar([True, False], [True, False]) == 1.0


def test_holm_matches_a_hand_calculation() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9]) == [0.9]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_compare_systems_on_the_same_pairs(make_predictions: Make, tmp_path: Path) -> None:
    runs = []
    for name, number, skill in (("weak", 300, 0.4), ("strong", 300, 0.9), ("elsewhere", 30, 0.5)):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name, make_predictions(number, seed=len(name), skill=skill))
        info = {"corpus": "demo", "split": "test", "data_sha256": "0"}
        runs.append(EvaluationRun(tmp_path / name, info, {}))
    (row,) = compare_runs(runs, ["weak", "strong", "elsewhere"])
    assert (row.first, row.second) == ("weak", "strong")
    assert row.difference.value < 0 and row.difference.high < 0
    assert row.p_mcnemar < 0.01 and row.p_holm == row.difference.p_value < 0.01
    assert compare_runs(runs[:1], ["weak"]) == []
