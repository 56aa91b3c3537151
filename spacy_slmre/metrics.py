"""Metrics of predicted relation labels.

Positive-class micro-F1 counts each label of a pair as one item, over all labels except the negative one, as in the
study (arXiv 2606.22606) and scikit-learn's `f1_score(average="micro", labels=positives)`. Items are hashable, so a pair
may have several labels or occur on one side only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

Item = tuple[Hashable, str]
"""A key of the pair, and a positive label."""

NEGATIVES = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})
"""Normalized answers that mean "no relation" in every label set, as in the study."""


@dataclass(frozen=True, slots=True)
class PRF:
    """Precision, recall and F1 from counts of true positives, false positives and false negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: PRF) -> PRF:
        return PRF(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 if nothing was predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 if there are no gold items."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 if all three are 0."""
        return self.f_beta(1.0)

    def f_beta(self, beta: float) -> float:
        """The F-measure in which recall is `beta` times as important as precision; 0 if all counts are 0."""
        total = (1 + beta**2) * self.tp + self.fp + beta**2 * self.fn
        return (1 + beta**2) * self.tp / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        """Return "p", "r" and "f", as in spaCy's scorers."""
        return {"p": self.precision, "r": self.recall, "f": self.f1}


def count(gold: Iterable[Item], predicted: Iterable[Item]) -> PRF:
    """Return the counts over all items, which must not include the negative label."""
    gold, predicted = set(gold), set(predicted)
    return PRF(len(gold & predicted), len(predicted - gold), len(gold - predicted))


def count_per_label(gold: Iterable[Item], predicted: Iterable[Item]) -> dict[str, PRF]:
    """Return the counts of each label that occurs on either side, in alphabetical order."""
    gold, predicted = set(gold), set(predicted)
    return {
        label: count(*({item for item in items if item[1] == label} for items in (gold, predicted)))
        for label in sorted({label for _, label in gold | predicted})
    }


def macro_f1(per_label: dict[str, PRF]) -> float:
    """Return the mean F1 of the labels; 0 without labels."""
    return sum(prf.f1 for prf in per_label.values()) / len(per_label) if per_label else 0.0


def normalize_answer(answer: str) -> str:
    """Normalize an answer as in the study: first line, lower case, single spaces, no quotes; "" becomes "none"."""
    lines = answer.strip().splitlines()
    text = " ".join(lines[0].casefold().split()) if lines else ""
    return text.strip("\"'`“”‘’ ") or "none"


def means_no_relation(label: str) -> bool:
    """Return whether a label usually means "no relation", for data that do not say which one does."""
    return normalize_answer(label) in NEGATIVES


def official_macro_f1(gold: Iterable[Item], predicted: Iterable[Item]) -> float:
    """Return the official score of SemEval-2010 Task 8: macro-F1 of the relations, with direction.

    Labels are "Name(e1,e2)" and "Name(e2,e1)". A prediction with the right name but the wrong direction is wrong; both
    directions count towards the same relation (Hendrickx et al. 2010, and the task's scorer). Relations without gold
    pairs are ignored.
    """
    gold, predicted = list(gold), list(predicted)
    correct = set(gold)
    scores = []
    for name in sorted({_undirected(label) for _, label in gold}):
        answers = [item for item in predicted if _undirected(item[1]) == name]
        total = sum(_undirected(label) == name for _, label in gold) + len(answers)
        scores.append(2 * sum(item in correct for item in answers) / total)
    return sum(scores) / len(scores) if scores else 0.0


def _undirected(label: str) -> str:
    return label.partition("(")[0]


def confusion(pairs: Sequence[tuple[str, str]], max_labels: int = 40) -> tuple[list[str], list[list[int]]]:
    """Return a confusion matrix, most frequent labels first.

    Args:
        pairs: Gold and predicted label of each pair.
        max_labels: If there are more labels, the least frequent ones are merged to "other labels".

    Returns:
        The labels, and the counts: rows are gold labels, columns predicted labels.
    """
    counts = Counter(label for pair in pairs for label in pair)
    labels = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if len(labels) > max_labels:
        labels = [*labels[: max_labels - 1], "other labels"]
    index = {label: column for column, label in enumerate(labels)}
    rows = [[0] * len(labels) for _ in labels]
    for gold, predicted in pairs:
        rows[index.get(gold, -1)][index.get(predicted, -1)] += 1
    return labels, rows
