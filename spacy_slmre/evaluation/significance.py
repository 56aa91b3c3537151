"""How certain scores and their differences are: bootstrap by document, McNemar's test, Holm's correction.

Pairs of one document are not independent of each other: the bootstrap draws documents (Efron and Tibshirani
1993; for two systems, paired, as Berg-Kirkpatrick et al. 2012 have it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.metrics import count

SAMPLES = 1000
# The smallest p-value is about 2 / samples: with so many, one of a hundred comparisons can be significant.
COMPARED_SAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap percentile interval of a score."""

    low: float
    high: float
    level: float = LEVEL
    samples: int = SAMPLES


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same pairs.

    Attributes:
        difference: Micro-F1 of the first less that of the second.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Two-sided, of the paired bootstrap.
    """

    difference: float
    low: float
    high: float
    p_value: float


def document_counts(predictions: Iterable[Prediction]) -> dict[str, np.ndarray]:
    """TP, FP and FN of each document, (3,) each."""
    counts: dict[str, np.ndarray] = {}
    for one in predictions:
        prf = count([("", label) for label in one.gold], [("", one.predicted)] if one.predicted else [])
        counts.setdefault(one.doc, np.zeros(3))
        counts[one.doc] += (prf.tp, prf.fp, prf.fn)
    return counts


def bootstrap_interval(
    counts: Sequence[np.ndarray], samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """The interval of micro-F1 over documents drawn with replacement.

    Args:
        counts: TP, FP and FN of each document.
        samples: How often to draw.
        level: The share of the samples that lies within.
        seed: Seed of the draws.
    """
    scores = np.concatenate([_f1(drawn @ np.stack(counts)) for drawn in _draws(len(counts), samples, seed)])
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, samples)


def paired_bootstrap(
    first: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
    samples: int = COMPARED_SAMPLES,
    seed: int = 0,
) -> Comparison:
    """The difference of two systems' micro-F1 on the same documents.

    Args:
        first: What `document_counts` gives of the one.
        second: What it gives of the other.
        samples: How often to draw.
        seed: Seed of the draws.

    Raises:
        ValueError: They have answered other documents.
    """
    if set(first) != set(second):
        raise ValueError("Two systems can be compared on the same documents only.")
    a, b = (np.stack([counts[doc] for doc in sorted(first)]) for counts in (first, second))
    differences = np.concatenate([_f1(n @ a) - _f1(n @ b) for n in _draws(len(a), samples, seed)])
    low, high = np.quantile(differences, [0.025, 0.975])
    # With the one draw that the data are, no p-value is 0.
    tails = [(1 + np.sum(side)) / (samples + 1) for side in (differences <= 0, differences >= 0)]
    observed = float(_f1(a.sum(0)[None])[0] - _f1(b.sum(0)[None])[0])
    return Comparison(observed, float(low), float(high), float(min(1.0, 2 * min(tails))))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """P-value of McNemar's exact test, for two systems right or wrong on the same pairs."""
    from scipy.stats import binomtest

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being several (Holm 1979), in their order."""
    if not p_values:
        return []
    order = np.argsort(p_values)
    corrected = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    result = np.empty(len(p_values))
    result[order] = np.minimum(corrected, 1.0)
    return result.tolist()


def _draws(documents: int, samples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each document is drawn, (up to 100 samples, documents) at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, samples, 100):
        size = min(100, samples - start)
        yield rng.multinomial(documents, np.full(documents, 1 / documents), size=size)


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, fp, fn = counts.T
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)
