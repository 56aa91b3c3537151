"""How certain scores and their differences are: bootstrap by document, McNemar's test, Holm's correction.

Pairs of one document are not independent of each other: the bootstrap draws documents (Efron and Tibshirani
1993; for two systems, paired, as Berg-Kirkpatrick et al. 2012 have it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.metrics import Item, count

SAMPLES = 1000
# The smallest p-value is about 2 / samples: with so many, one of two hundred comparisons can be significant.
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


def instance_items(predictions: Iterable[Prediction]) -> tuple[list[Item], list[Item]]:
    """Gold labels and answers as items of `spacy_slmre.metrics`, an instance each.

    A pair with several gold labels is an instance for each, as the benchmarks and the study count them: every
    one of these gets the pair's one answer, which is right for one label at most and wrong for the others.
    """
    gold: list[Item] = []
    found: list[Item] = []
    for one in predictions:
        gold += [((one.id, number), label) for number, label in enumerate(one.gold)]
        if one.predicted is not None:
            found += [((one.id, number), one.predicted) for number in range(max(1, len(one.gold)))]
    return gold, found


def document_counts(predictions: Iterable[Prediction]) -> dict[str, np.ndarray]:
    """TP, FP and FN of each document, (3,) each."""
    counts: dict[str, np.ndarray] = {}
    for one in predictions:
        prf = count(*instance_items([one]))
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
    scores = _drawn_scores([np.stack(counts)], samples, seed)[0]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, samples)


def paired_bootstrap(
    systems: Sequence[dict[str, np.ndarray]], samples: int = COMPARED_SAMPLES, seed: int = 0
) -> dict[tuple[int, int], Comparison]:
    """The differences of systems' micro-F1 on the same documents, for every two of them.

    Args:
        systems: What `document_counts` gives of each.
        samples: How often to draw; all systems are scored on the same draws.
        seed: Seed of the draws.

    Returns:
        The comparison of each two systems, by their places.

    Raises:
        ValueError: They have answered other documents.
    """
    if any(set(one) != set(systems[0]) for one in systems):
        raise ValueError("Systems can be compared on the same documents only.")
    counts = [np.stack([one[doc] for doc in sorted(one)]) for one in systems]
    drawn = _drawn_scores(counts, samples, seed)
    observed = [float(_f1(one.sum(0)[None])[0]) for one in counts]
    found = {}
    for first, second in combinations(range(len(systems)), 2):
        differences = drawn[first] - drawn[second]
        low, high = np.quantile(differences, [0.025, 0.975])
        # With the one draw that the data are, no p-value is 0.
        tails = [(1 + np.sum(side)) / (samples + 1) for side in (differences <= 0, differences >= 0)]
        p_value = float(min(1.0, 2 * min(tails)))
        found[first, second] = Comparison(
            observed[first] - observed[second], float(low), float(high), p_value
        )
    return found


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


def _drawn_scores(counts: Sequence[np.ndarray], samples: int, seed: int) -> np.ndarray:
    """Micro-F1 of systems, (systems, samples), on documents drawn with replacement.

    Args:
        counts: TP, FP and FN by document of each system, (documents, 3).
        samples: How often to draw.
        seed: Seed of the draws.
    """
    documents = len(counts[0])
    rng = np.random.default_rng(seed)
    scores = np.empty((len(counts), samples))
    for start in range(0, samples, 100):  # all draws at once would be large
        stop = min(start + 100, samples)
        drawn = rng.multinomial(documents, np.full(documents, 1 / documents), size=stop - start)
        for number, one in enumerate(counts):
            scores[number, start:stop] = _f1(drawn @ one)
    return scores


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, fp, fn = counts.T
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)
