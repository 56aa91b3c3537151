"""Confidence intervals and significance tests: bootstrap by document, McNemar's test, Holm's correction.

Pairs of one document are not independent, so the bootstrap draws documents (Efron and Tibshirani 1993; paired
for two systems, as in Berg-Kirkpatrick et al. 2012).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spacy_slmre.evaluation.runs import EvaluationRun, Prediction
from spacy_slmre.metrics import Item, count

SAMPLES = 1000
# The smallest p-value is about 2 / samples: this many allow significance among two hundred comparisons.
PAIRED_SAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap percentile interval of a score."""

    low: float
    high: float
    level: float = LEVEL
    samples: int = SAMPLES


@dataclass(frozen=True, slots=True)
class Difference:
    """Micro-F1 of one system minus that of another on the same documents.

    Attributes:
        value: The observed difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Two-sided, of the paired bootstrap.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same pairs of a corpus.

    Attributes:
        corpus: Name of the corpus.
        split: Its split.
        first: Name of one system.
        second: Name of the other system.
        difference: Their difference in positive-class micro-F1.
        p_mcnemar: P-value of McNemar's test on correct and wrong pairs.
        p_holm: The bootstrap's p-value after Holm's correction over all comparisons on the same pairs.
    """

    corpus: str
    split: str
    first: str
    second: str
    difference: Difference
    p_mcnemar: float
    p_holm: float


def compare_runs(runs: Sequence[EvaluationRun], names: Sequence[str]) -> list[Comparison]:
    """Compare all systems, named by `names`, that were evaluated on the same pairs."""
    groups = defaultdict(list)
    for run, name in zip(runs, names, strict=True):
        # Predictions are reduced at once: there may be millions.
        predictions = list(run.predictions())
        ids = hashlib.sha256("\n".join(one.id for one in predictions).encode()).hexdigest()
        correct = [one.is_correct for one in predictions]
        data = (run.info["corpus"], run.info["split"], run.info["data_sha256"], ids)
        groups[data].append((name, document_counts(predictions), correct))
    comparisons = []
    for (corpus, split, *_), systems in groups.items():
        differences = paired_bootstrap([counts for _, counts, _ in systems])
        corrected = holm([one.p_value for one in differences.values()])
        for ((a, b), difference), p_holm in zip(differences.items(), corrected, strict=True):
            (first, _, first_correct), (second, _, second_correct) = systems[a], systems[b]
            p_mcnemar = mcnemar(first_correct, second_correct)
            comparisons.append(Comparison(corpus, split, first, second, difference, p_mcnemar, p_holm))
    return comparisons


def instance_items(predictions: Iterable[Prediction]) -> tuple[list[Item], list[Item]]:
    """Return gold and predicted labels as items of `spacy_slmre.metrics`, one per instance.

    A pair with several gold labels is one instance per label, as in the benchmarks and the study. Each of
    them gets the pair's prediction, which is correct for at most one of them.
    """
    gold: list[Item] = []
    predicted: list[Item] = []
    for one in predictions:
        gold += [((one.id, number), label) for number, label in enumerate(one.gold)]
        if one.predicted is not None:
            predicted += [((one.id, number), one.predicted) for number in range(max(1, len(one.gold)))]
    return gold, predicted


def document_counts(predictions: Iterable[Prediction]) -> dict[str, np.ndarray]:
    """Return TP, FP and FN of each document: (3,)."""
    counts: dict[str, np.ndarray] = {}
    for one in predictions:
        prf = count(*instance_items([one]))
        counts.setdefault(one.doc, np.zeros(3))
        counts[one.doc] += (prf.tp, prf.fp, prf.fn)
    return counts


def bootstrap_interval(
    counts: Sequence[np.ndarray], samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return the interval of micro-F1 over documents drawn with replacement, from their TP, FP and FN."""
    scores = _sampled_f1([np.stack(counts)], samples, seed)[0]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, samples)


def paired_bootstrap(
    systems: Sequence[dict[str, np.ndarray]], samples: int = PAIRED_SAMPLES, seed: int = 0
) -> dict[tuple[int, int], Difference]:
    """Return the differences between all systems' micro-F1 on the same draws, by their positions.

    Args:
        systems: The `document_counts` of each system.
        samples: Number of draws.
        seed: Their seed.

    Raises:
        ValueError: Their documents differ.
    """
    if any(set(one) != set(systems[0]) for one in systems):
        raise ValueError("Systems can only be compared on the same documents.")
    counts = [np.stack([one[doc] for doc in sorted(one)]) for one in systems]
    sampled = _sampled_f1(counts, samples, seed)
    observed = [float(_f1(one.sum(0)[None])[0]) for one in counts]
    found = {}
    for a, b in combinations(range(len(systems)), 2):
        differences = sampled[a] - sampled[b]
        low, high = np.quantile(differences, [0.025, 0.975])
        # The data themselves count as one draw, so no p-value is 0.
        tails = [(1 + np.sum(side)) / (samples + 1) for side in (differences <= 0, differences >= 0)]
        p_value = min(1.0, 2 * float(min(tails)))
        found[a, b] = Difference(observed[a] - observed[b], float(low), float(high), p_value)
    return found


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the p-value of McNemar's exact test for two systems, correct or wrong on the same pairs."""
    from scipy.stats import binomtest

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons (Holm 1979), in the same order."""
    if not p_values:
        return []
    order = np.argsort(p_values)
    corrected = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    result = np.empty(len(p_values))
    result[order] = np.minimum(corrected, 1.0)
    return result.tolist()


def _sampled_f1(counts: Sequence[np.ndarray], samples: int, seed: int) -> np.ndarray:
    """Return micro-F1 on drawn documents, (n_systems, samples), from counts of (n_documents, 3) each."""
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
