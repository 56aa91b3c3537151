"""Calibration of a relation component on a development set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy.training import Example

from spacy_slmre.calibration import apply_temperature, calibration_error, fit_temperature, fit_thresholds
from spacy_slmre.candidates import GivenPairs
from spacy_slmre.decoding import Decoding, Directions, allowed_labels, decode, mention_keys
from spacy_slmre.instances import RelationInstance
from spacy_slmre.metrics import count
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.schema import LabelSchema


def calibrate(pipe: RelationExtractor, examples: Iterable[Example], *, thresholds: bool = False) -> dict[str, Any]:
    """Fit and set a component's temperature, and optionally a threshold for each label.

    Both are fitted on the scores that the component writes, those of both directions together.

    Args:
        pipe: The component; its previous calibration has no effect.
        examples: A development set that is not used for training or testing.
        thresholds: Replace the component's thresholds with fitted ones.

    Returns:
        "pairs", "temperature", and "before" and "after", each with "ece" (expected calibration error of the most
        probable label), "nll" (mean negative log-likelihood of the gold labels) and "micro_f1" (positive class, over
        these pairs); with thresholds also "label_thresholds".

    Raises:
        ValueError: There are no labeled pairs.
    """
    pipe.load()
    pairs = _read_pairs(pipe, examples)
    temperature = fit_temperature(lambda temperature: pairs.combined(temperature)[pairs.gold])
    before = pairs.quality(pipe.decoding)
    summary: dict[str, Any] = {"pairs": len(pairs.mentions), "temperature": temperature, "before": before}
    pipe.temperature = temperature
    if thresholds:
        pipe.threshold = None
        pipe.label_thresholds = pairs.thresholds(temperature, pipe.decoding.max_labels)
        summary["label_thresholds"] = pipe.label_thresholds
    summary["after"] = pairs.quality(pipe.decoding, temperature)
    return summary


@dataclass(frozen=True)
class _ScoredPairs:
    """The pairs of a development set.

    Attributes:
        mentions: Keys of the head and tail of each pair, each pair once.
        schema: Their labels.
        log_probs: Log-probabilities of all labels (n_pairs, n_labels).
        directions: How the pairs depend on each other.
        gold: Rows and columns of the gold labels, including negative ones; a pair may have several.
    """

    mentions: list[tuple[Any, Any]]
    schema: LabelSchema
    log_probs: np.ndarray
    directions: Directions
    gold: tuple[np.ndarray, np.ndarray]

    def combined(self, temperature: float = 1.0) -> np.ndarray:
        """Return the log-probabilities with which labels are written (n_pairs, n_labels)."""
        return self.directions.combine(apply_temperature(self.log_probs, temperature))

    def decode(self, decoding: Decoding, temperature: float = 1.0) -> list[tuple[int, int, float]]:
        """Return the relations that are written, as (row, column, score)."""
        log_probs = apply_temperature(self.log_probs, temperature)
        return decode(log_probs, self.directions, self.mentions, self.schema, decoding)

    def quality(self, decoding: Decoding, temperature: float = 1.0) -> dict[str, float]:
        """Return "ece", "nll" and "micro_f1"; see `calibrate`."""
        combined = self.combined(temperature)
        best = combined.argmax(axis=1)
        rows = np.arange(len(best))
        is_gold = np.zeros(combined.shape, dtype=bool)
        is_gold[self.gold] = True
        found = {(row, self.schema.names[column]) for row, column, _ in self.decode(decoding, temperature)}
        return {
            "ece": calibration_error(np.exp(combined[rows, best]), is_gold[rows, best]),
            "nll": float(-combined[self.gold].mean()),
            "micro_f1": count(self._positives(), found).f1,
        }

    def thresholds(self, temperature: float, max_labels: int) -> dict[str, float]:
        """Return the best thresholds of the labels; see `fit_thresholds`."""
        positives, decoded = self._positives(), self.decode(Decoding(max_labels=max_labels), temperature)
        found = [(row, self.schema.names[column]) for row, column, _ in decoded]
        return fit_thresholds(
            [label for _, label in found],
            np.array([score for _, _, score in decoded]),
            np.array([relation in positives for relation in found], dtype=bool),
            Counter(label for _, label in positives),
        )

    def _positives(self) -> set[tuple[int, str]]:
        labeled = ((int(row), self.schema.names[column]) for row, column in zip(*self.gold, strict=True))
        return {(row, label) for row, label in labeled if label != self.schema.negative_label}


def _read_pairs(pipe: RelationExtractor, examples: Iterable[Example]) -> _ScoredPairs:
    schema = pipe.schema
    labeled = pipe.make_training_instances(examples).instances
    fitting = pipe.model.truncate(labeled, schema, pipe.max_context_tokens)
    # A pair with several labels is scored once.
    row_of: dict[tuple[Any, Any], int] = {}
    instances: list[RelationInstance] = []
    gold: list[tuple[int, int]] = []
    for key, instance, truncated in zip(mention_keys(labeled), labeled, fitting, strict=True):
        if truncated is not None:
            if key not in row_of:
                row_of[key] = len(instances)
                instances.append(truncated)
            gold.append((row_of[key], schema.index[instance.label or ""]))
    rows, columns = np.array(gold, dtype=int).reshape(-1, 2).T
    allowed = allowed_labels(instances, schema, [not isinstance(pipe.candidates, GivenPairs)] * len(instances))
    if allowed is not None:
        allowed[rows, columns] = True  # a gold label that prediction would not choose from has a loss, too
    parts = [np.zeros((0, len(schema.labels)))]
    for start in range(0, len(instances), pipe.batch_size):
        part = slice(start, start + pipe.batch_size)
        parts.append(pipe.model.log_probs(instances[part], schema, None if allowed is None else allowed[part]))
    mentions = list(row_of)
    directions = Directions.of_mentions(mentions, schema, allowed)
    return _ScoredPairs(mentions, schema, np.concatenate(parts), directions, (rows, columns))
