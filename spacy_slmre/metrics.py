"""Scores of relation labels: the one place of their definitions (pure functions).

Positive-class micro-F1 counts a label on a pair as one item: TP, FP and FN run over all labels but the
negative one, as in the study (arXiv 2606.22606) and in scikit-learn's `f1_score(average="micro",
labels=positives)`. Items are hashable keys, so that pairs with several labels, and pairs that only one
side has, are counted as they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

Item = tuple[Hashable, str]
"""A key that identifies the pair, and a positive label."""


@dataclass(frozen=True, slots=True)
class PRF:
    """Precision, recall and F1 from counts of true positives, false positives and false negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 where nothing was predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 where nothing was there to find."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 where all three are 0."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        """As spaCy's scorers name them: "p", "r", "f"."""
        return {"p": self.precision, "r": self.recall, "f": self.f1}


def count(gold: Iterable[Item], predicted: Iterable[Item]) -> PRF:
    """Micro-averaged counts over all items; the negative label is left out by the caller."""
    gold, predicted = set(gold), set(predicted)
    return PRF(len(gold & predicted), len(predicted - gold), len(gold - predicted))


def count_per_label(gold: Iterable[Item], predicted: Iterable[Item]) -> dict[str, PRF]:
    """Counts for every label that occurs on either side, in alphabetical order."""
    gold, predicted = set(gold), set(predicted)
    return {
        label: count(
            (item for item in gold if item[1] == label), (item for item in predicted if item[1] == label)
        )
        for label in sorted({label for _, label in gold | predicted})
    }


def macro_f1(per_label: dict[str, PRF]) -> float:
    """Plain mean of the labels' F1; 0 without labels."""
    return sum(prf.f1 for prf in per_label.values()) / len(per_label) if per_label else 0.0
