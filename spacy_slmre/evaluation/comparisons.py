"""Which of two systems is better on a benchmark, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from spacy_slmre.evaluation.runs import EvaluationRun, Prediction
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
        p_holm: `p_bootstrap` after Holm's correction over all rows.
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
    answered: list[tuple[tuple[str, str, str], str, list[Prediction]]] = [
        (
            (run.info["benchmark"], run.info["split"], run.info["data_sha256"]),
            name,
            list(run.predictions()),
        )
        for run, name in zip(runs, names, strict=True)
    ]
    rows = []
    for (place, first, a), (other, second, b) in combinations(answered, 2):
        if place != other or [one.id for one in a] != [one.id for one in b]:
            continue
        difference = paired_bootstrap(document_counts(a), document_counts(b))
        right = [[is_right(one) for one in predictions] for predictions in (a, b)]
        rows.append(
            ComparisonRow(
                *place[:2],
                first,
                second,
                difference.difference,
                difference.low,
                difference.high,
                difference.p_value,
                mcnemar(*right),
                1.0,
            )
        )
    corrected = holm([row.p_bootstrap for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
