"""Decoding: turn label probabilities into predicted relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy.tokens import Span

from spacy_slmre.instances import DocInstances
from spacy_slmre.schema import LabelSchema


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """A candidate pair and the labels that the model predicts for it.

    Attributes:
        labels: The most probable labels, including the negative one, with their probabilities, best first.
        truncated: Whether the model saw only part of the context.
    """

    head: Span
    tail: Span
    labels: tuple[tuple[str, float], ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class DocPrediction:
    """The predictions for a document.

    Attributes:
        pairs: Its candidate pairs, except those that are too long for the model.
        report: Numbers of pairs considered, scored, truncated, and skipped by reason.
    """

    pairs: list[PairPrediction]
    report: dict[str, Any]


def top_k(log_probs: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the k most probable labels, best first; ties are broken by the order of the labels.

    Args:
        log_probs: Log-probabilities (n, n_labels).
        k: How many labels to return.
        allowed: Labels that may be returned, bool (n, n_labels); None allows all.

    Returns:
        Columns and log-probabilities, (n, min(k, n_labels)) each; -inf where fewer than k labels are allowed.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k = {k}, but it must be at least 1.")
    if allowed is not None:
        log_probs = np.where(allowed, log_probs, -np.inf)
    columns = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    return columns, np.take_along_axis(log_probs, columns, axis=1)


def allowed_labels(docs: list[DocInstances], schema: LabelSchema) -> np.ndarray | None:
    """Return which labels the entity types of each instance allow: bool (n_instances, n_labels).

    None means all labels: the schema has no type constraints, or there are no instances.
    """
    if not any(label.types for label in schema.labels):
        return None
    all_labels = np.ones(len(schema.labels), dtype=bool)
    rows = [
        schema.allowed(instance.head_mention.type, instance.tail_mention.type) if doc.typed else all_labels
        for doc in docs
        for instance in doc.instances
    ]
    return np.stack(rows) if rows else None


def make_predictions(
    docs: Sequence[DocInstances], schema: LabelSchema, columns: np.ndarray, log_probs: np.ndarray
) -> list[DocPrediction]:
    """Turn the best labels of all instances into predictions for each document.

    Args:
        docs: Documents with n_instances instances in total.
        schema: The labels.
        columns: Columns of the best labels, (n_instances, k).
        log_probs: Their log-probabilities, (n_instances, k); -inf for labels that the types do not allow.
    """
    predictions, row = [], 0
    for doc in docs:
        pairs = []
        for (head, tail), truncated in zip(doc.pairs, doc.truncated, strict=True):
            scored = zip(columns[row].tolist(), np.exp(log_probs[row]).tolist(), strict=True)
            labels = tuple((schema.names[column], score) for column, score in scored if score > 0)
            pairs.append(PairPrediction(head, tail, labels, truncated))
            row += 1
        predictions.append(DocPrediction(pairs, doc.report))
    return predictions


def passes_threshold(
    label: str, score: float, negative_label: str | None, threshold: float, label_thresholds: Mapping[str, float]
) -> bool:
    """Return whether a pair's most probable label is written as a relation."""
    return label != negative_label and score >= label_thresholds.get(label, threshold)


def check_thresholds(
    where: str, threshold: float, label_thresholds: Mapping[str, float], labels: Sequence[str] | None = None
) -> None:
    """Check that thresholds are probabilities, and that label thresholds have known labels.

    Raises:
        ValueError: A threshold is below 0 or above 1, or its label is unknown.
    """
    for name, value in [("threshold", threshold), *label_thresholds.items()]:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}: the threshold {name} = {value} is not a probability (0 to 1).")
    if labels is not None and (unknown := sorted(set(label_thresholds) - set(labels))):
        raise ValueError(
            f"{where}.label_thresholds has unknown labels: {', '.join(unknown)}. The labels are: {', '.join(labels)}."
        )
