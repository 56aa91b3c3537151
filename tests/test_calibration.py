from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.calibration import apply_temperature, calibration_error, fit_temperature, fit_thresholds


def normalize(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_temperature_of_the_sampled_labels_is_recovered(true: float) -> None:
    rng = np.random.default_rng(0)
    log_probs = normalize(rng.normal(scale=2.0, size=(20_000, 5)))
    probabilities = np.exp(apply_temperature(log_probs, true))
    gold = (probabilities.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    rows = np.arange(len(gold))
    temperature = fit_temperature(lambda temperature: apply_temperature(log_probs, temperature)[rows, gold])
    assert temperature == pytest.approx(true, rel=0.05)
    scaled = apply_temperature(log_probs, temperature)
    best = scaled.argmax(axis=1)
    assert calibration_error(np.exp(scaled.max(axis=1)), best == gold) < 0.015


@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_temperature_keeps_the_ranking(temperature: float, seed: int) -> None:
    log_probs = normalize(np.random.default_rng(seed).normal(size=(7, 4)))
    scaled = apply_temperature(log_probs, temperature)
    assert np.exp(scaled).sum(axis=1) == pytest.approx(np.ones(7))
    assert np.array_equal(scaled.argsort(axis=1), log_probs.argsort(axis=1))


def test_fitting_without_pairs_raises_an_error() -> None:
    with pytest.raises(ValueError, match="no labeled pairs"):
        fit_temperature(lambda temperature: np.zeros(0))


def test_calibration_error_of_a_small_example() -> None:
    # Two bins are in use: 0.9, 0.9 (one of two right: gap 0.4) and 0.6 (right: gap 0.4).
    confidences = np.array([0.9, 0.9, 0.6])
    assert calibration_error(confidences, np.array([True, False, True]), bins=10) == pytest.approx(0.4)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0.0


def test_thresholds_of_a_small_example() -> None:
    predicted = ["a", "a", "a", "b", "b"]
    correct = np.array([True, True, False, True, True])
    confidences = np.array([0.9, 0.8, 0.4, 0.3, 0.2])
    # Without its third prediction, "a" is perfect; "b" already is.
    assert fit_thresholds(predicted, confidences, correct, {"a": 2, "b": 2}) == {"a": pytest.approx(0.6)}
    tied = fit_thresholds(["a", "a"], np.array([0.5, 0.5]), np.array([True, False]), {"a": 1})
    assert tied == {}


@given(st.integers(0, 10_000))
def test_thresholds_maximize_f1_on_the_fitted_data(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted = np.array(["a", "b"])[rng.integers(0, 2, 12)].tolist()
    correct, confidences = rng.random(12) < 0.4, rng.choice([0.2, 0.4, 0.6, 0.8], 12)
    n_gold = {label: int(rng.integers(12, 20)) for label in "ab"}
    thresholds = fit_thresholds(predicted, confidences, correct, n_gold)

    def f1(label: str, threshold: float) -> float:
        kept = np.array([p == label and c >= threshold for p, c in zip(predicted, confidences, strict=True)])
        return 2 * int((kept & correct).sum()) / (int(kept.sum()) + n_gold[label])

    for label in set(predicted):
        threshold = thresholds.get(label, 0.0)
        assert label not in thresholds or f1(label, threshold) > f1(label, 0.0)
        assert f1(label, threshold) == pytest.approx(max(f1(label, value) for value in (0.0, 0.3, 0.5, 0.7)))
