"""Calibration: a temperature and thresholds that make scores mean what they say (pure functions).

A temperature T turns a model's probabilities p into p^(1/T), normalised again (Guo et al., arXiv 1706.04599);
it changes no ranking of a pair's labels. T > 1 makes a model less certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST, MOST = 0.05, 20.0
"""Bounds of a fitted temperature."""


def apply_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (n, n_labels) at a temperature."""
    if temperature == 1.0:
        return log_probs
    scaled = log_probs / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def fit_temperature(log_probs: np.ndarray, gold: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood of the gold labels, to four decimals.

    Args:
        log_probs: Log-probabilities (n, n_labels).
        gold: Gold columns (n,).

    Raises:
        ValueError: There is nothing to fit on.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        raise ValueError("There is no labelled pair to fit a temperature on.")
    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        return -float(apply_temperature(log_probs, float(np.exp(log_temperature)))[rows, gold].mean())

    bounds = (float(np.log(LEAST)), float(np.log(MOST)))
    return round(float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)), 4)


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of about one confidence.

    Attributes:
        low: Least confidence of the bin.
        high: Where the next bin begins.
        count: Number of predictions.
        confidence: Their mean confidence; 0 without predictions.
        accuracy: The share of them that is right; 0 without predictions.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> list[ReliabilityBin]:
    """Confidence beside accuracy, in equally wide bins of confidence.

    Args:
        confidences: Probabilities of the predicted labels (n,).
        correct: Whether each prediction is right (n,).
        bins: How many bins; 15, as Guo et al. have it.
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
    """Expected calibration error: mean |accuracy - confidence| over the bins of `reliability`.

    Returns:
        The mean, weighted by how many predictions a bin has; 0 without predictions.
    """
    if not len(confidences):
        return 0.0
    gaps = (one.count * abs(one.accuracy - one.confidence) for one in reliability(confidences, correct, bins))
    return sum(gaps) / len(confidences)


def fit_thresholds(
    predicted: Sequence[str], confidences: np.ndarray, gold: Sequence[str], negative: str | None
) -> dict[str, float]:
    """For each label the least probability at which its F1 is highest.

    Args:
        predicted: Predicted labels.
        confidences: Their probabilities (n,).
        gold: Gold labels.
        negative: The negative label, which has no threshold.

    Returns:
        Thresholds of the labels that gain by one; a label that does best without has none.
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
        # Pairs of the same score stand or fall together.
        last_of_score = np.append(scores[1:] < scores[:-1], True)
        best = int(np.argmax(np.where(last_of_score, f1, -1.0)))
        if best < len(order) - 1 and f1[best] > f1[-1]:
            # Between what is kept and what is not: the score itself could be lost to rounding.
            thresholds[label] = float((scores[best] + scores[best + 1]) / 2)
    return thresholds
