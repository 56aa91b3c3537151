"""Calibration of a relation component on a development set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from spacy.training import Example

from spacy_slmre.calibration import apply_temperature, calibration_error, fit_temperature, fit_thresholds
from spacy_slmre.metrics import count
from spacy_slmre.pipeline.examples import make_training_instances
from spacy_slmre.pipeline.relation_extractor import RelationExtractor


def calibrate(pipe: RelationExtractor, examples: Iterable[Example], *, thresholds: bool = False) -> dict[str, Any]:
    """Fit and set a component's temperature, and optionally a threshold for each label.

    Args:
        pipe: The component; its previous calibration has no effect.
        examples: A development set, which is used for neither training nor testing.
        thresholds: Replace the component's thresholds by fitted ones.

    Returns:
        "pairs", "temperature", and "before" and "after", each with "ece" (expected calibration error), "nll" (mean
        negative log-likelihood of the gold label) and "micro_f1" (positive class, over these pairs); with thresholds
        also "label_thresholds".

    Raises:
        ValueError: There are no labeled pairs.
    """
    pipe.load()
    schema = pipe.schema
    labeled = make_training_instances(examples, pipe.candidates, schema, pipe.attr).instances
    fitting = pipe.model.truncate(labeled, schema, pipe.max_context_tokens)
    instances = [instance for instance in fitting if instance is not None]
    gold = [instance.label or "" for instance in instances]
    columns = np.array([schema.index[label] for label in gold], dtype=int)
    log_probs = np.concatenate(
        [np.zeros((0, len(schema.labels)))]
        + [
            pipe.model.log_probs(instances[start : start + pipe.batch_size], schema)
            for start in range(0, len(instances), pipe.batch_size)
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
        pipe.threshold = 0.0
        pipe.label_thresholds = fit_thresholds(predicted, confidences, gold, schema.negative_label)
        summary["label_thresholds"] = pipe.label_thresholds
    summary["after"] = _quality(scaled, columns, pipe)
    return summary


def _quality(log_probs: np.ndarray, gold: np.ndarray, pipe: RelationExtractor) -> dict[str, float]:
    schema = pipe.schema
    rows = np.arange(len(gold))
    best = log_probs.argmax(axis=1)
    confidences = np.exp(log_probs[rows, best])
    predicted = {
        (row, label)
        for row, label, score in zip(rows.tolist(), (schema.names[c] for c in best), confidences, strict=True)
        if pipe.passes_threshold(label, score)
    }
    true = {(row, schema.names[column]) for row, column in enumerate(gold)}
    positive = {item for item in true if item[1] != schema.negative_label}
    return {
        "ece": calibration_error(confidences, best == gold),
        "nll": float(-log_probs[rows, gold].mean()),
        "micro_f1": count(positive, predicted).f1,
    }
