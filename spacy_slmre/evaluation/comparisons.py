"""What is known of the difference between two systems on one benchmark."""

from __future__ import annotations

from dataclasses import dataclass


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
