"""Scores of relation labels: the one place of their definitions (pure functions).

Positive-class micro-F1 counts a label on a pair as one item: TP, FP and FN run over all labels but the
negative one, as in the study (arXiv 2606.22606) and in scikit-learn's `f1_score(average="micro",
labels=positives)`. Items are hashable keys, so that pairs with several labels, and pairs that only one
side has, are counted as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
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
        label: count((item for item in gold if item[1] == label), (item for item in predicted if item[1] == label))
        for label in sorted({label for _, label in gold | predicted})
    }


def macro_f1(per_label: dict[str, PRF]) -> float:
    """Plain mean of the labels' F1; 0 without labels."""
    return sum(prf.f1 for prf in per_label.values()) / len(per_label) if per_label else 0.0


# -- answers in words ------------------------------------------------------------------------------

NEGATIVES = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})
"""Answers that say "no relation" whatever the label set, as the study has it."""


def normalize_answer(answer: str) -> str:
    """An answer as the study compares it: the first line, in lower case, single spaces, without quotes.

    An empty answer becomes "none".
    """
    lines = answer.strip().splitlines()
    said = " ".join(lines[0].casefold().split()) if lines else ""
    return said.strip("\"'`“”‘’ ") or "none"


# -- further scores --------------------------------------------------------------------------------


def official_macro_f1(gold: Iterable[Item], predicted: Iterable[Item]) -> float:
    """The official score of SemEval-2010 Task 8: macro-F1 of the relations, direction taken into account.

    Labels are "Name(e1,e2)" and "Name(e2,e1)". An answer with the right name and the wrong direction is
    wrong, and counts among the answers and among the gold pairs of that name (Hendrickx et al. 2010, and
    the scorer that came with the task). Relations without gold pair are left out of the mean.
    """
    gold, predicted = list(gold), list(predicted)
    true = set(gold)
    scores = []
    for name in sorted({_undirected(label) for _, label in gold}):
        answered = [item for item in predicted if _undirected(item[1]) == name]
        hits = sum(item in true for item in answered)
        there = sum(_undirected(label) == name for _, label in gold)
        scores.append(2 * hits / (len(answered) + there))
    return sum(scores) / len(scores) if scores else 0.0


def _undirected(label: str) -> str:
    return label.partition("(")[0]


def confusion(
    pairs: Sequence[tuple[str, str]], most: int = 40, rest: str = "other labels"
) -> tuple[list[str], list[list[int]]]:
    """How often each gold label was answered by which.

    Args:
        pairs: Gold label and answer of each pair.
        most: Most labels to tell apart, the commonest first; all others become one.
        rest: What these are called.

    Returns:
        The labels, and the counts: rows are gold labels, columns answers.
    """
    counts = Counter(label for pair in pairs for label in pair)
    labels = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if len(labels) > most:
        labels = [*labels[: most - 1], rest]
    index = {label: place for place, label in enumerate(labels)}
    rows = [[0] * len(labels) for _ in labels]
    for gold, answer in pairs:
        rows[index.get(gold, -1)][index.get(answer, -1)] += 1
    return labels, rows
