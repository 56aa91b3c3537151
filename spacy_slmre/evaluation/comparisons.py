"""Which of two systems is better on a benchmark, and how sure that is."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacy_slmre.evaluation.runs import EvaluationRun
from spacy_slmre.evaluation.scoring import is_right
from spacy_slmre.evaluation.significance import document_counts, holm, mcnemar, paired_bootstrap


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Two systems on the same pairs of one benchmark.

    Attributes:
        benchmark: Name of the benchmark's card.
        split: Its split.
        first: Name of the one system, as reports have it.
        second: Name of the other one.
        difference: Positive-class micro-F1 of the first, less that of the second.
        low: Lower end of the difference's 95 % interval.
        high: Its upper end.
        p_bootstrap: P-value of the paired bootstrap by document.
        p_mcnemar: P-value of McNemar's test on right and wrong pairs.
        p_holm: `p_bootstrap` after Holm's correction over all comparisons on the same pairs.
    """

    benchmark: str
    split: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_mcnemar: float
    p_holm: float


def compare(runs: Sequence[EvaluationRun], names: Sequence[str]) -> list[ComparisonRow]:
    """All pairs of systems on each benchmark and split, where they have answered the same pairs.

    Args:
        runs: The runs.
        names: What each is called.
    """
    answered: dict[tuple[str, ...], list[_Answered]] = defaultdict(list)
    for run, name in zip(runs, names, strict=True):
        # What is compared is kept, the predictions themselves are not: there may be millions.
        predictions = list(run.predictions())
        ids = hashlib.sha256("\n".join(one.id for one in predictions).encode()).hexdigest()
        place = (*(run.info[key] for key in ("benchmark", "split", "data_sha256")), ids)
        answered[place].append(
            _Answered(name, document_counts(predictions), [is_right(one) for one in predictions])
        )
    rows = []
    for (benchmark, split, *_), systems in answered.items():
        compared = paired_bootstrap([one.counts for one in systems])
        corrected = holm([one.p_value for one in compared.values()])
        for ((first, second), found), p_holm in zip(compared.items(), corrected, strict=True):
            a, b = systems[first], systems[second]
            rows.append(
                ComparisonRow(
                    benchmark,
                    split,
                    a.name,
                    b.name,
                    found.difference,
                    found.low,
                    found.high,
                    found.p_value,
                    mcnemar(a.right, b.right),
                    p_holm,
                )
            )
    return rows


@dataclass(frozen=True)
class _Answered:
    """What is compared of a run: counts by document, and which pairs are right."""

    name: str
    counts: dict[str, np.ndarray]
    right: list[bool]
