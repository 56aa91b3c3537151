"""Calibration of a relation component on a development set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from spacy.training import Example

from spacy_slmre.calibration import apply_temperature, calibration_error, fit_temperature, fit_thresholds
from spacy_slmre.candidates import GivenPairs
from spacy_slmre.decoding import top_labels
from spacy_slmre.instances import RelationInstance
from spacy_slmre.metrics import count
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.schema import LabelSchema


def calibrate(pipe: RelationExtractor, examples: Iterable[Example], *, thresholds: bool = False) -> dict[str, Any]:
    """Fit and set a component's temperature, and optionally a threshold for each label.

    Args:
        pipe: The component; its previous calibration has no effect.
        examples: A development set that is not used for training or testing.
        thresholds: Replace the component's thresholds with fitted ones.

    Returns:
        "pairs", "temperature", and "before" and "after", each with "ece" (expected calibration error), "nll" (mean
        negative log-likelihood of the gold label) and "micro_f1" (positive class, over these pairs); with thresholds
        also "label_thresholds".

    Raises:
        ValueError: There are no labeled pairs.
    """
    pipe.load()
    schema = pipe.schema
    labeled = pipe.make_training_instances(examples).instances
    fitting = pipe.model.truncate(labeled, schema, pipe.max_context_tokens)
    instances = [instance for instance in fitting if instance is not None]
    gold = [instance.label or "" for instance in instances]
    columns = np.array([schema.index[label] for label in gold], dtype=int)
    allowed = _allowed(instances, columns, schema) if not isinstance(pipe.candidates, GivenPairs) else None
    batches = [slice(start, start + pipe.batch_size) for start in range(0, len(instances), pipe.batch_size)]
    log_probs = np.concatenate(
        [np.zeros((0, len(schema.labels)))]
        + [
            pipe.model.log_probs(instances[rows], schema, None if allowed is None else allowed[rows])
            for rows in batches
        ]
    )
    temperature = fit_temperature(log_probs, columns)
    before = _quality(log_probs, columns, pipe)
    scaled = apply_temperature(log_probs, temperature)
    summary: dict[str, Any] = {"pairs": len(instances), "temperature": temperature, "before": before}
    pipe.temperature = temperature
    if thresholds:
        predicted = [schema.names[column] for column in scaled.argmax(axis=1)]
        confidences = np.exp(scaled.max(axis=1))
        pipe.threshold = None
        pipe.label_thresholds = fit_thresholds(predicted, confidences, gold, schema.negative_label)
        summary["label_thresholds"] = pipe.label_thresholds
    summary["after"] = _quality(scaled, columns, pipe)
    return summary


def _allowed(instances: Sequence[RelationInstance], gold: np.ndarray, schema: LabelSchema) -> np.ndarray | None:
    """Return the labels that prediction would choose from; the gold label of a pair is always among them."""
    if not instances or not any(label.types for label in schema.labels):
        return None
    allowed = np.stack([schema.allowed(one.head_mention.type, one.tail_mention.type) for one in instances])
    allowed[np.arange(len(instances)), gold] = True
    return allowed


def _quality(log_probs: np.ndarray, gold: np.ndarray, pipe: RelationExtractor) -> dict[str, float]:
    schema = pipe.schema
    rows = np.arange(len(gold))
    best = log_probs.argmax(axis=1)
    confidences = np.exp(log_probs[rows, best])
    decoding, predicted = pipe.decoding, set()
    for row, labels in enumerate(top_labels(log_probs, schema, decoding.n_needed(len(schema.labels)))):
        if label := decoding.best_label(labels, schema.negative_label):
            predicted.add((row, label))
    true = {(row, schema.names[column]) for row, column in enumerate(gold)}
    positive = {item for item in true if item[1] != schema.negative_label}
    return {
        "ece": calibration_error(confidences, best == gold),
        "nll": float(-log_probs[rows, gold].mean()),
        "micro_f1": count(positive, predicted).f1,
    }
