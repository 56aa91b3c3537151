"""Calibration of scores by a temperature, and thresholds by label (pure functions).

A temperature T replaces probabilities p by p^(1/T), normalized (Guo et al., arXiv 1706.04599). The ranking of a pair's
labels does not change; T > 1 makes a model less confident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of a fitted temperature."""


def apply_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return log-probabilities (n, n_labels) at a temperature."""
    if temperature == 1.0:
        return log_probs
    scaled = log_probs / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def fit_temperature(log_probs: np.ndarray, gold: np.ndarray) -> float:
    """Return the temperature that minimizes the negative log-likelihood of the gold labels, to four decimals.

    Args:
        log_probs: Log-probabilities (n, n_labels).
        gold: Gold columns (n,).

    Raises:
        ValueError: There are no pairs.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        raise ValueError("There are no labeled pairs to fit a temperature on.")
    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        return -float(apply_temperature(log_probs, float(np.exp(log_temperature)))[rows, gold].mean())

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    return round(float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)), 4)


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of predictions with similar confidence.

    Attributes:
        low: Lower bound of the confidence.
        high: Upper bound, exclusive except in the last bin.
        count: Number of predictions.
        confidence: Their mean confidence; 0 without predictions.
        accuracy: Share of correct predictions; 0 without predictions.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> list[ReliabilityBin]:
    """Return confidence and accuracy in equally wide bins of confidence.

    Args:
        confidences: Probabilities of the predicted labels (n,).
        correct: Whether each prediction is correct (n,).
        bins: Number of bins; 15 as in Guo et al.
    """
    confidences, correct = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=float)
    places = np.clip((confidences * bins).astype(int), 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, weights=values, minlength=bins) for values in (confidences, correct)]
    means = [total / np.maximum(counts, 1) for total in sums]
    return [
        ReliabilityBin(place / bins, (place + 1) / bins, int(counts[place]), *(float(mean[place]) for mean in means))
        for place in range(bins)
    ]


def calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error: the mean |accuracy - confidence| of the bins of `reliability`.

    Bins are weighted by their number of predictions; without predictions it is 0.
    """
    if not len(confidences):
        return 0.0
    gaps = (one.count * abs(one.accuracy - one.confidence) for one in reliability(confidences, correct, bins))
    return sum(gaps) / len(confidences)


def fit_thresholds(
    predicted: Sequence[str], confidences: np.ndarray, gold: Sequence[str], negative: str | None
) -> dict[str, float]:
    """Return for each label the lowest threshold that maximizes its F1.

    Args:
        predicted: Predicted labels.
        confidences: Their probabilities (n,).
        gold: Gold labels.
        negative: The negative label, which has no threshold.

    Returns:
        Thresholds of the labels that benefit from one.
    """
    thresholds: dict[str, float] = {}
    answers, truth = np.asarray(predicted, dtype=object), np.asarray(gold, dtype=object)
    for label in sorted(set(predicted) - {negative}):
        chosen = np.flatnonzero(answers == label)
        order = chosen[np.argsort(-confidences[chosen], kind="stable")]
        hits = np.cumsum(truth[order] == label)
        kept = np.arange(1, len(order) + 1)
        f1 = 2 * hits / (kept + (truth == label).sum())
        scores = confidences[order]
        # Pairs with the same score are on the same side of a threshold.
        last_of_score = np.append(scores[1:] < scores[:-1], True)
        best = int(np.argmax(np.where(last_of_score, f1, -1.0)))
        if best < len(order) - 1 and f1[best] > f1[-1]:
            # Halfway between the two scores, so that rounding does not matter.
            thresholds[label] = float((scores[best] + scores[best + 1]) / 2)
    return thresholds
