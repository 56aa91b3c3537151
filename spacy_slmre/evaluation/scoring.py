"""The scores of a run, from its predictions alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from spacy_slmre.calibration import calibration_error, reliability
from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.evaluation.significance import bootstrap_interval, document_counts, instance_items
from spacy_slmre.metrics import confusion, count, count_per_label, macro_f1, official_macro_f1

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
NEGATIVE = "no relation"
"""What the negative label is called where a label set has none."""
OUT_OF_SCHEMA = "(out of schema)"
"""What all answers that are no label are called together, in tables by label."""


def score_predictions(
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    negative: str | None,
    *,
    directed: bool = False,
    truncated: int = 0,
) -> dict[str, Any]:
    """What stands in `metrics.json`.

    Args:
        predictions: All pairs of a run.
        labels: The label set; an answer that is not in it is out of schema.
        negative: Its negative label.
        directed: Labels are "Name(e1,e2)" and "Name(e2,e1)": SemEval's official score is given too.
        truncated: Pairs whose context was truncated.

    Returns:
        "micro" (positive-class p, r, f and the counts over instances, see `instance_items`), "interval"
        (95 %, bootstrap by document), "micro_any" (a pair is right if any of its gold labels is hit),
        "ceiling" (the micro-F1 of one right label for every pair), "macro_f" (over the labels that occur),
        "per_label" (answers out of schema are one row of it), "official_macro_f", "accuracy" (of pairs),
        "out_of_schema" (pairs), "unanswered", "truncated", and, where there are probabilities, "calibration"
        and "coverage"; "confusion".
    """
    gold, found = instance_items(predictions)
    known = {*labels, *(label for _, label in gold)}
    named = [(key, label if label in known else OUT_OF_SCHEMA) for key, label in found]
    micro, per_label = count(gold, found), count_per_label(gold, named)
    sizes = {label: prf.tp + prf.fn for label, prf in per_label.items()}
    positives = sum(bool(one.gold) for one in predictions)
    answers = [one.predicted for one in predictions if one.predicted is not None]
    return {
        "micro": {**micro.to_dict(), "tp": micro.tp, "fp": micro.fp, "fn": micro.fn},
        "interval": asdict(bootstrap_interval(list(document_counts(predictions).values()))),
        "micro_any": count(
            [(one.id, _nearest(one)) for one in predictions if one.gold],
            [(one.id, one.predicted) for one in predictions if one.predicted is not None],
        ).to_dict(),
        "ceiling": positives / len(gold) if gold else None,
        "macro_f": macro_f1({label: prf for label, prf in per_label.items() if label != OUT_OF_SCHEMA}),
        "per_label": {label: {**prf.to_dict(), "gold": sizes[label]} for label, prf in per_label.items()},
        "official_macro_f": official_macro_f1(gold, found) if directed else None,
        "accuracy": sum(is_right(one) for one in predictions) / len(predictions),
        "out_of_schema": sum(label not in labels for label in answers),
        "unanswered": sum(not one.answered for one in predictions),
        "truncated": truncated,
        **_confidence(predictions, negative),
        "confusion": dict(
            zip(
                ("labels", "rows"),
                confusion(
                    [
                        (_nearest(one) or negative or NEGATIVE, _shown(one, known) or negative or NEGATIVE)
                        for one in predictions
                    ]
                ),
                strict=True,
            )
        ),
    }


def _shown(prediction: Prediction, known: Collection[str]) -> str:
    """The answer as tables have it; empty for the negative one."""
    return OUT_OF_SCHEMA if (prediction.predicted or "") not in {"", *known} else prediction.predicted or ""


def _nearest(prediction: Prediction) -> str:
    """The gold label that was hit, else the first one; empty for the negative one."""
    if prediction.predicted in prediction.gold:
        return prediction.predicted or ""
    return prediction.gold[0] if prediction.gold else ""


def is_right(prediction: Prediction) -> bool:
    """Whether an answer is one of the gold labels, or rightly says that there is none."""
    if not prediction.gold:
        return prediction.predicted is None and prediction.answered
    return prediction.predicted in prediction.gold


def _confidence(predictions: Sequence[Prediction], negative: str | None) -> dict[str, Any]:
    """Whether probabilities mean what they say, and what is left of the pairs at a least confidence."""
    scored = [one for one in predictions if one.score is not None and one.top]
    if not scored:
        return {"calibration": None, "coverage": None}
    confidences = np.array([one.score for one in scored])
    # Of the most probable label, whether or not a threshold let it pass.
    correct = np.array([one.top[0][0] in (one.gold or (negative,)) for one in scored])
    coverage = []
    for least in CONFIDENCES:
        kept = [one for one in scored if (one.score or 0.0) >= least]
        coverage.append(
            {
                "confidence": least,
                "coverage": len(kept) / len(predictions),
                "accuracy": sum(map(is_right, kept)) / len(kept) if kept else None,
                "f": count(*instance_items(kept)).f1 if kept else None,
            }
        )
    return {
        "calibration": {
            "ece": calibration_error(confidences, correct),
            "bins": [asdict(one) for one in reliability(confidences, correct)],
        },
        "coverage": coverage,
    }
