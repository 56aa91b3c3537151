"""Settings of relation components."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spacy_slmre.candidates import CandidateGenerator, EntityPairs
from spacy_slmre.decoding import check_thresholds
from spacy_slmre.relations import RELATIONS
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.util.settings import check_choice, check_minimum, defaults_of

DEFAULT_SCORE_WEIGHTS = {
    "rel_micro_f": 1.0,
    "rel_micro_p": 0.0,
    "rel_micro_r": 0.0,
    "rel_macro_f": None,
    "rel_per_type": None,
    "rel_candidate_recall": 0.0,
}

CHANGEABLE = ("threshold", "label_thresholds", "temperature")
"""Settings that can change after construction, for example by calibration."""


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings:
    """Settings of `slm_relations` and `rel_classifier`.

    Attributes:
        labels: Names of the labels, instead of a schema.
        schema: Labels with wordings, definitions and entity types: a list of names, a dict, the path of a JSON or YAML
            file, or a registered function. Without `labels` and `schema`, the labels are those that the model was
            tuned on, in training those of the training data, and otherwise the general schema.
        negative_label: The label that means "no relation"; added to `labels` if missing. Null if every pair has a
            relation.
        candidates: Proposes the pairs to score, for instance `@misc = "spacy-slmre.EntityPairs.v1"`.
        threshold: Minimum probability of a relation (0 to 1).
        label_thresholds: Thresholds of individual labels, replacing `threshold`.
        temperature: Temperature of the probabilities, fitted by `slmre calibrate`. With a value other than 1, the model
            computes all labels of every pair.
        negative_rate: Share of negative pairs that are sampled for each update (0 to 1).
        class_weights: "balanced" gives pairs of rare labels more weight in training; null weights all pairs equally.
        batch_size: Number of pairs that are scored together, across documents.
        max_context_tokens: Longer contexts are truncated around their pair; counted in the model's tokens.
        attr: Relations are written to `doc._.<attr>`.
        weights: "reference" saves the name and fingerprint of the base model; "embed" saves the model itself, so that
            the pipeline needs no network. The weights of `rel_classifier` are always saved.
        scorer: Scores predicted documents.
    """

    labels: list[str] | None = None
    schema: Any = None
    negative_label: str | None = NEGATIVE_LABEL
    candidates: CandidateGenerator = EntityPairs()  # noqa: RUF009 (frozen)
    threshold: float = 0.0
    label_thresholds: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    negative_rate: float = 1.0
    class_weights: str | None = None
    batch_size: int = 128
    max_context_tokens: int = 512
    attr: str = RELATIONS
    weights: str = "reference"
    scorer: Callable | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are saved with a component, as plain data for JSON."""
        values = {name: getattr(self, name) for name in ("labels", "schema", *CHANGEABLE)}
        return json.loads(json.dumps(values, default=lambda schema: schema.to_dict()))

    def check(self, name: str) -> None:
        """Raise ValueError if a value is out of range; `name` is the component's name in messages."""
        if self.labels is not None and self.schema is not None:
            raise ValueError("Set either `labels` or `schema`, not both.")
        check_minimum(self, name, batch_size=1, max_context_tokens=1)
        check_choice(self, name, class_weights=(None, "balanced"), weights=("reference", "embed"))
        check_thresholds(name, self.threshold, self.label_thresholds)
        if self.temperature <= 0:
            raise ValueError(f"{name}.temperature = {self.temperature}, but it must be above 0.")
        if not 0.0 <= self.negative_rate <= 1.0:
            raise ValueError(f"{name}.negative_rate = {self.negative_rate}, but it must be between 0 and 1.")


def configured_schema(settings: ExtractorSettings, tuned: LabelSchema | None) -> LabelSchema | None:
    """Return the labels that the settings specify, or None.

    Plain names of labels that the model was tuned with get their wordings from `tuned`. Raises ValueError if the labels
    are not a valid schema, or its file is unreadable.
    """
    if settings.schema is not None:
        return LabelSchema.from_any(settings.schema, settings.negative_label)
    if settings.labels is None:
        return None
    plain = LabelSchema.from_labels(settings.labels, settings.negative_label)
    if tuned is None:
        return plain
    tuned_labels = {label.name: label for label in tuned.labels}
    labels = tuple(tuned_labels.get(label.name, label) for label in plain.labels)
    return LabelSchema(labels, settings.negative_label, tuned.type_map)


def default_config(model: dict[str, Any]) -> dict[str, Any]:
    """Return the default config of a component with this model."""
    return {
        "model": model,
        **defaults_of(ExtractorSettings),
        "candidates": {"@misc": "spacy-slmre.EntityPairs.v1"},
        "scorer": {"@scorers": "spacy-slmre.RelationScorer.v1"},
    }
