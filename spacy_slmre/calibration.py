"""Calibration: temperature scaling of scores, and a threshold for each label.

A temperature T replaces each probability p by p^(1/T), normalized (Guo et al., arXiv 1706.04599). The ranking of a
pair's labels does not change; T > 1 makes a model less confident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of a fitted temperature."""


def apply_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return log-probabilities (n, n_labels) scaled by a temperature."""
    if temperature == 1.0:
        return log_probs
    scaled = log_probs / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def fit_temperature(gold_log_probs: Callable[[float], np.ndarray]) -> float:
    """Return the temperature that minimizes the negative log-likelihood of the gold labels, to four decimals.

    `gold_log_probs` returns their log-probabilities (n,) at a temperature. Raises ValueError if there are none.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold_log_probs(1.0)):
        raise ValueError("There are no labeled pairs to fit a temperature on.")

    def loss(log_temperature: float) -> float:
        return -float(gold_log_probs(float(np.exp(log_temperature))).mean())

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    return round(float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)), 4)


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of predictions with similar confidence."""

    low: float  # lower bound of the confidence
    high: float  # upper bound, exclusive except in the last bin
    count: int  # number of predictions
    confidence: float  # mean; 0 if the bin is empty
    accuracy: float  # share of correct predictions; 0 if the bin is empty


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> list[ReliabilityBin]:
    """Return confidence and accuracy in equal-width bins of confidence; 15 as in Guo et al.

    Args:
        confidences: Probabilities of the predicted labels (n,).
        correct: Whether each prediction is correct (n,).
        bins: Number of bins.
    """
    confidences, correct = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=float)
    bin_of = np.clip((confidences * bins).astype(int), 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=values, minlength=bins) for values in (confidences, correct)]
    means = [total / np.maximum(counts, 1) for total in sums]
    return [
        ReliabilityBin(n / bins, (n + 1) / bins, int(counts[n]), *(float(mean[n]) for mean in means))
        for n in range(bins)
    ]


def calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error: the mean of |accuracy - confidence| over bins, weighted by their size.

    Arguments as in `reliability`. Returns 0 if there are no predictions.
    """
    if not len(confidences):
        return 0.0
    gaps = (group.count * abs(group.accuracy - group.confidence) for group in reliability(confidences, correct, bins))
    return sum(gaps) / len(confidences)


def fit_thresholds(
    predicted: Sequence[str], confidences: np.ndarray, correct: np.ndarray, n_gold: Mapping[str, int]
) -> dict[str, float]:
    """Return the lowest threshold that maximizes a label's F1, for each label that benefits from one.

    Args:
        predicted: Labels of the predicted relations (n,).
        confidences: Their probabilities (n,).
        correct: Whether each of them is correct (n,).
        n_gold: Number of gold relations of each label.
    """
    thresholds: dict[str, float] = {}
    answers = np.asarray(predicted, dtype=object)
    for label in sorted(set(predicted)):
        chosen = np.flatnonzero(answers == label)
        order = chosen[np.argsort(-confidences[chosen], kind="stable")]
        hits = np.cumsum(correct[order])
        kept = np.arange(1, len(order) + 1)
        f1 = 2 * hits / (kept + n_gold.get(label, 0))
        scores = confidences[order]
        # A threshold cannot separate relations with the same score.
        last_of_score = np.append(scores[1:] < scores[:-1], True)
        best = int(np.argmax(np.where(last_of_score, f1, -1.0)))
        if best < len(order) - 1 and f1[best] > f1[-1]:
            # Halfway between two scores, so that the result is robust to rounding.
            thresholds[label] = float((scores[best] + scores[best + 1]) / 2)
    return thresholds
