"""Confidence intervals and significance tests: bootstrap by document, McNemar's test, Holm's correction.

Pairs of one document are not independent, so the bootstrap draws documents (Efron and Tibshirani 1993; paired
for two systems, as in Berg-Kirkpatrick et al. 2012).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spacy_slmre.directions import turn_relation
from spacy_slmre.evaluation.runs import EvaluationRun, Prediction
from spacy_slmre.metrics import Item, count

SAMPLES = 1000
# The smallest p-value is about 2 / samples, small enough for significance among two hundred comparisons.
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
    """Micro-F1 of one system minus that of another on the same documents, with the 95 % interval."""

    value: float
    low: float
    high: float
    p_value: float  # two-sided, of the paired bootstrap


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same pairs of a corpus."""

    corpus: str  # its title
    first: str
    second: str
    difference: Difference  # first minus second
    p_mcnemar: float  # McNemar's test on correct and wrong pairs
    p_holm: float  # the bootstrap's p-value after Holm's correction over all comparisons on the same pairs


def compare_runs(runs: Sequence[EvaluationRun], names: Sequence[str]) -> list[Comparison]:
    """Compare any two systems that were evaluated on the same pairs; `names` are the systems' names."""
    groups = defaultdict(list)
    for run, name in zip(runs, names, strict=True):
        # Keep only the counts: there may be millions of predictions.
        predictions = list(run.predictions())
        ids = hashlib.sha256("\n".join(pair.id for pair in predictions).encode()).hexdigest()
        correct = [pair.is_correct for pair in predictions]
        data = (run.title, run.info["data_sha256"], ids)
        groups[data].append((name, document_counts(predictions, run.info.get("inverse_of")), correct))
    comparisons = []
    for (corpus, *_), systems in groups.items():
        differences = paired_bootstrap([counts for _, counts, _ in systems])
        corrected = holm([difference.p_value for difference in differences.values()])
        for ((a, b), difference), p_holm in zip(differences.items(), corrected, strict=True):
            (first, _, first_correct), (second, _, second_correct) = systems[a], systems[b]
            p_mcnemar = mcnemar(first_correct, second_correct)
            comparisons.append(Comparison(corpus, first, second, difference, p_mcnemar, p_holm))
    return comparisons


def instance_items(
    predictions: Iterable[Prediction], inverse_of: Mapping[str, str] | None = None
) -> tuple[list[Item], list[Item]]:
    """Return gold and predicted labels by instance, as `spacy_slmre.metrics` expects them.

    As in the benchmarks and the study, a pair with several gold labels is one instance per label. All of them have
    the pair's prediction, which is correct for at most one of them. If a run has several labels per pair, each label is
    compared with the gold labels instead. A symmetric relation is one instance for both directions, and so are a
    relation and its inverse.

    Args:
        predictions: The pairs.
        inverse_of: The symmetric and inverse labels, see `LabelSchema.inverse_of`.
    """
    inverse_of = inverse_of or {}
    mirrored = {*inverse_of, *inverse_of.values()}

    def item(pair: Prediction, label: str, number: int) -> Item:
        if label in mirrored:
            first, label, _ = turn_relation(pair.id, label, pair.opposite or f"{pair.id}~", inverse_of)
            return (first, "both directions"), label
        return (pair.id, number if pair.labels is None else "all labels"), label

    gold: dict[Item, None] = {}
    predicted: dict[Item, None] = {}
    for pair in predictions:
        gold |= dict.fromkeys(item(pair, label, number) for number, label in enumerate(pair.gold))
        if pair.labels is not None:
            predicted |= dict.fromkeys(item(pair, label, 0) for label in pair.labels)
        elif pair.predicted is not None:
            numbers = range(max(1, len(pair.gold)))
            predicted |= dict.fromkeys(item(pair, pair.predicted, number) for number in numbers)
    return list(gold), list(predicted)


def document_counts(
    predictions: Iterable[Prediction], inverse_of: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Return TP, FP and FN of each document: (3,); see `instance_items` for the arguments."""
    by_document: dict[str, list[Prediction]] = {}
    for pair in predictions:
        by_document.setdefault(pair.doc, []).append(pair)
    counts = {}
    for document, pairs in by_document.items():
        prf = count(*instance_items(pairs, inverse_of))
        counts[document] = np.array([prf.tp, prf.fp, prf.fn], dtype=float)
    return counts


def bootstrap_interval(counts: Sequence[np.ndarray]) -> Interval:
    """Return the interval of micro-F1 over documents drawn with replacement, from their TP, FP and FN."""
    return Interval(*_percentiles(_sampled_f1([np.stack(counts)], SAMPLES)[0]))


def paired_bootstrap(systems: Sequence[dict[str, np.ndarray]]) -> dict[tuple[int, int], Difference]:
    """Return the difference in micro-F1 between any two systems, by their positions.

    Args:
        systems: The `document_counts` of each system. Bootstrap samples are the same for all systems.

    Raises:
        ValueError: The systems have different documents.
    """
    if any(system.keys() != systems[0].keys() for system in systems):
        raise ValueError("Systems can only be compared on the same documents.")
    counts = [np.stack([system[doc] for doc in sorted(system)]) for system in systems]
    sampled = _sampled_f1(counts, PAIRED_SAMPLES)
    observed = [float(_f1(system.sum(0)[None])[0]) for system in counts]
    results = {}
    for a, b in combinations(range(len(systems)), 2):
        differences = sampled[a] - sampled[b]
        # The observed data count as one sample, so that no p-value is 0.
        tails = [(1 + np.sum(side)) / (PAIRED_SAMPLES + 1) for side in (differences <= 0, differences >= 0)]
        p_value = min(1.0, 2 * float(min(tails)))
        results[a, b] = Difference(observed[a] - observed[b], *_percentiles(differences), p_value)
    return results


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the p-value of McNemar's exact test, given which pairs each of two systems got right."""
    from scipy.stats import binomtest

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons (Holm 1979)."""
    if not p_values:
        return []
    order = np.argsort(p_values)
    corrected = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    result = np.empty(len(p_values))
    result[order] = np.minimum(corrected, 1.0)
    return result.tolist()


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the interval that contains `LEVEL` of the values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _sampled_f1(counts: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """Return bootstrapped micro-F1 (n_systems, samples), from counts of (n_documents, 3) per system."""
    documents = len(counts[0])
    rng = np.random.default_rng(0)
    scores = np.empty((len(counts), samples))
    for start in range(0, samples, 100):  # in chunks, to limit memory
        stop = min(start + 100, samples)
        drawn = rng.multinomial(documents, np.full(documents, 1 / documents), size=stop - start)
        for number, system in enumerate(counts):
            scores[number, start:stop] = _f1(drawn @ system)
    return scores


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, fp, fn = counts.T
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)
