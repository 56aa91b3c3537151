"""Compute the scores of a run from its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from spacy_slmre.calibration import calibration_error, reliability
from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.evaluation.significance import bootstrap_interval, document_counts, instance_items
from spacy_slmre.metrics import confusion, count, count_per_label, macro_f1, official_macro_f1

COVERAGE_SCORES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
NO_RELATION = "no relation"
"""Name of the negative class in tables if the label set has no negative label."""
OUT_OF_SCHEMA = "(out of schema)"
"""Name of out-of-schema answers in tables by label."""


def score_predictions(
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    negative: str | None,
    *,
    inverse_of: Mapping[str, str] | None = None,
    truncated: int = 0,
) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    Args:
        predictions: All pairs of a run.
        labels: The label set; other answers are out of schema.
        negative: Its negative label.
        inverse_of: Its symmetric and inverse labels, see `LabelSchema.inverse_of`.
        truncated: Number of pairs whose context was truncated.

    Returns:
        - "micro": positive-class p, r, f and counts over instances (see `instance_items`)
        - "interval": its 95 % interval by bootstrap over documents
        - "micro_any": micro scores if any of a pair's gold labels counts as correct
        - "ceiling": the micro-F1 of predicting one correct label per pair; None if pairs may have several
        - "macro_f" and "per_label": over the labels that occur; out-of-schema answers are one row
        - "official_macro_f": SemEval-2010 Task 8's score, if all labels are directed ("Name(e1,e2)")
        - "accuracy", "out_of_schema", "unanswered", "truncated": of pairs
        - "calibration" and "coverage": None without probabilities
        - "confusion": "labels" and "rows"
    """
    gold, predicted = instance_items(predictions, inverse_of)
    known = {*labels, *(label for _, label in gold)}
    renamed = [(key, label if label in known else OUT_OF_SCHEMA) for key, label in predicted]
    micro, per_label = count(gold, predicted), count_per_label(gold, renamed)
    best = [replace(pair, predicted=pair.gold[0] if pair.gold else None) for pair in predictions]
    has_ceiling = gold and all(pair.labels is None for pair in predictions)
    answers = [label for pair in predictions for label in pair.predicted_labels]
    none = negative or NO_RELATION
    cells = [cell for pair in predictions for cell in _confused(pair)]
    named = [[label if label in known or not label else OUT_OF_SCHEMA for label in cell] for cell in cells]
    names, rows = confusion([(gold or none, label or none) for gold, label in named])
    return {
        "micro": {**micro.to_dict(), "tp": micro.tp, "fp": micro.fp, "fn": micro.fn},
        "interval": asdict(bootstrap_interval(list(document_counts(predictions, inverse_of).values()))),
        "micro_any": count(
            [(pair.id, _closest_gold(pair)) for pair in predictions if pair.gold],
            [(pair.id, pair.predicted) for pair in predictions if pair.predicted is not None],
        ).to_dict(),
        "ceiling": count(*instance_items(best, inverse_of)).f1 if has_ceiling else None,
        "macro_f": macro_f1({label: prf for label, prf in per_label.items() if label != OUT_OF_SCHEMA}),
        "per_label": {label: {**prf.to_dict(), "gold": prf.tp + prf.fn} for label, prf in per_label.items()},
        "official_macro_f": official_macro_f1(gold, predicted) if _are_directed(labels, negative) else None,
        "accuracy": sum(pair.is_correct for pair in predictions) / len(predictions),
        "out_of_schema": sum(label not in labels for label in answers),
        "unanswered": sum(not pair.answered for pair in predictions),
        "truncated": truncated,
        **_calibration(predictions, negative, inverse_of),
        "confusion": {"labels": names, "rows": rows},
    }


def _are_directed(labels: Sequence[str], negative: str | None) -> bool:
    positive = [label for label in labels if label != negative]
    return bool(positive) and all(label.endswith(("(e1,e2)", "(e2,e1)")) for label in positive)


def _confused(prediction: Prediction) -> list[tuple[str, str]]:
    """Return gold and predicted labels for the confusion matrix; "" is the negative label.

    If a pair may have several labels, each missed one is confused with each wrong one.
    """
    if prediction.labels is None:
        return [(_closest_gold(prediction), prediction.predicted or "")]
    gold, predicted = dict.fromkeys(prediction.gold), dict.fromkeys(prediction.labels)
    correct = [(label, label) for label in gold if label in predicted]
    missed = [label for label in gold if label not in predicted]
    wrong = [label for label in predicted if label not in gold]
    confused = [(one, other) for one in missed or [""] for other in wrong or [""]]
    return correct if correct and not (missed or wrong) else correct + confused


def _closest_gold(prediction: Prediction) -> str:
    """Return the gold label that was predicted, or else the first one; empty if there is none."""
    if prediction.predicted in prediction.gold:
        return prediction.predicted or ""
    return prediction.gold[0] if prediction.gold else ""


def _calibration(
    predictions: Sequence[Prediction], negative: str | None, inverse_of: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return "calibration" (how well scores match accuracy) and "coverage" (pairs by minimum score)."""
    scored = [pair for pair in predictions if pair.score is not None and pair.top]
    if not scored:
        return {"calibration": None, "coverage": None}
    scores = np.array([pair.score for pair in scored])
    # The most probable label counts, even if it did not pass a threshold.
    correct = np.array([pair.top[0][0] in (pair.gold or (negative,)) for pair in scored])
    coverage = []
    for minimum in COVERAGE_SCORES:
        kept = [pair for pair in scored if (pair.score or 0.0) >= minimum]
        coverage.append(
            {
                "score": minimum,
                "coverage": len(kept) / len(predictions),
                "accuracy": sum(pair.is_correct for pair in kept) / len(kept) if kept else None,
                "f": count(*instance_items(kept, inverse_of)).f1 if kept else None,
            }
        )
    bins = [asdict(one) for one in reliability(scores, correct)]
    return {"calibration": {"ece": calibration_error(scores, correct), "bins": bins}, "coverage": coverage}
