"""The settings that both relation components have: one block of a config serves either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacy_slmre.relations import RELATIONS
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, UnreadSchema

SCORE_WEIGHTS = {
    "rel_micro_f": 1.0,
    "rel_micro_p": 0.0,
    "rel_micro_r": 0.0,
    "rel_macro_f": None,
    "rel_per_type": None,
    "rel_candidate_recall": 0.0,
}


def component_defaults(model: Mapping[str, Any]) -> dict[str, Any]:
    """The default settings of a component with this model block."""
    return {
        "model": model,
        "schema": None,
        "labels": None,
        "negative_label": NEGATIVE_LABEL,
        "candidates": {"@misc": "spacy-slmre.EntityPairs.v1"},
        "threshold": 0.0,
        "label_thresholds": {},
        "temperature": 1.0,
        "negative_rate": 1.0,
        "class_weights": None,
        "batch_size": 128,
        "max_context_tokens": 512,
        "attr": RELATIONS,
        "weights": "reference",
        "scorer": {"@scorers": "spacy-slmre.RelationScorer.v1"},
    }


def choose_schema(
    name: str,
    schema: LabelSchema | UnreadSchema | None,
    labels: list[str] | None,
    negative_label: str | None,
    tuned: LabelSchema | None,
) -> LabelSchema | UnreadSchema | None:
    """The schema that a component's settings ask for; None where they leave it open.

    Args:
        name: The component.
        schema: Its setting `schema`.
        labels: Its setting `labels`; labels that the model was tuned with keep their wording.
        negative_label: Its setting `negative_label`.
        tuned: The labels that the model was tuned with.

    Raises:
        ValueError: Both `schema` and `labels` are given, or the labels make no schema.
    """
    if labels is None:
        return schema
    if schema is not None:
        raise ValueError(f"{name}: give either `labels` or a `schema`, not both.")
    chosen = LabelSchema.from_labels(labels, negative_label)
    if tuned is None:
        return chosen
    known = {label.name: label for label in tuned.labels}
    return LabelSchema(
        tuple(known.get(label.name, label) for label in chosen.labels), negative_label, tuned.type_map
    )
