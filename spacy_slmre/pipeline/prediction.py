"""Predict the relations of documents: scores from the model, then decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spacy_slmre.calibration import apply_temperature
from spacy_slmre.decoding import (
    Decoding,
    Directions,
    DocPrediction,
    allowed_labels,
    decode,
    incomplete_rows,
    make_predictions,
)
from spacy_slmre.instances import DocInstances
from spacy_slmre.models.base import RelationModel


def predict_docs(
    model: RelationModel, docs: Sequence[DocInstances], decoding: Decoding, *, temperature: float = 1.0, k: int = 1
) -> list[DocPrediction]:
    """Predict the relations of documents, scoring the pairs of documents with the same labels together.

    Args:
        model: Scores the labels.
        docs: The documents with their instances.
        decoding: The rules by which labels are written as relations.
        temperature: Temperature of the probabilities.
        k: Number of most probable labels of each pair in the result.
    """
    by_schema: dict[str, list[int]] = {}
    for number, doc in enumerate(docs):
        by_schema.setdefault(doc.schema.fingerprint, []).append(number)
    predictions: dict[int, DocPrediction] = {}
    for numbers in by_schema.values():
        same = [docs[number] for number in numbers]
        predictions.update(zip(numbers, _predict(model, same, decoding, temperature, k), strict=True))
    return [predictions[number] for number in range(len(docs))]


def _predict(
    model: RelationModel, docs: list[DocInstances], decoding: Decoding, temperature: float, k: int
) -> list[DocPrediction]:
    schema = docs[0].schema
    instances = [instance for one in docs for instance in one.instances]
    allowed = allowed_labels(instances, schema, [one.typed for one in docs for _ in one.instances])
    mentions = [
        ((number, head.start, head.end), (number, tail.start, tail.end))
        for number, doc in enumerate(docs)
        for head, tail in doc.pairs
    ]
    directions = Directions.of_mentions(mentions, schema, allowed)

    def all_log_probs(rows: Any) -> np.ndarray:
        of_rows = None if allowed is None else allowed[rows]
        return apply_temperature(model.log_probs([instances[row] for row in rows], schema, of_rows), temperature)

    if temperature != 1.0:
        log_probs = all_log_probs(np.arange(len(instances)))
    else:
        min_prob = decoding.min_threshold if k == 1 else 0.0
        n_needed = max(k, decoding.n_needed(len(schema.labels)))
        log_probs = model.log_probs(instances, schema, allowed, k=n_needed, min_prob=min_prob)
        rows = incomplete_rows(log_probs, directions, schema, decoding)
        if len(rows):
            log_probs[rows] = all_log_probs(rows)
    relations = decode(log_probs, directions, mentions, schema, decoding)
    return make_predictions(docs, schema, log_probs, relations, k)
