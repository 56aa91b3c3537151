"""Settings of relation components."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spacy_slmre.candidates import CandidateGenerator, EntityPairs
from spacy_slmre.decoding import check_thresholds
from spacy_slmre.relations import RELATIONS
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, RelationLabel, wording_of
from spacy_slmre.util.settings import (
    check_choice,
    check_minimum,
    check_positive,
    check_probability,
    check_types,
    defaults_of,
)

DEFAULT_SCORE_WEIGHTS = {
    "rel_micro_f": 1.0,
    "rel_micro_p": 0.0,
    "rel_micro_r": 0.0,
    "rel_macro_f": None,
    "rel_per_type": None,
    "rel_candidate_recall": 0.0,
    **dict.fromkeys(("rel_fact_p", "rel_fact_r", "rel_fact_f")),
}

LABEL_SETTINGS = ("labels", "schema", "label_types", "type_map", "negative_label")
"""Settings that determine the labels."""
CHANGEABLE = ("threshold", "label_thresholds", "temperature")
"""Settings that can change after construction, for example by calibration."""


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings:
    """Settings of `slm_relations` and `rel_classifier`.

    Attributes:
        labels: Names of the labels, instead of a schema.
        schema: Labels with wordings, definitions and entity types: a list of names, a dict, the path of a JSON, YAML or
            ontology file, or a registered function. Without `labels` and `schema`, the labels are those that the model
            was tuned on (in training: those of the training data), otherwise the general schema.
        label_types: Whether `labels` that the model was tuned on keep their entity type constraints from tuning. By
            default, plain labels allow any types.
        type_map: Maps entity types of the pipeline to those that the labels allow, for instance {"FIRM": "ORG"}, in
            addition to a built-in map for the types of spaCy's pipelines. Case does not matter.
        negative_label: The label that means "no relation"; added to `labels` if missing. Null if every pair has a
            relation.
        candidates: Proposes the pairs to score, for instance `@misc = "spacy-slmre.EntityPairs.v1"`.
        use_gold_pairs: Train on the pairs of the corpus whose labels are known, wherever their entities are, and score
            the pairs that a corpus reader provides (`doc._.relation_candidates`). For other documents, such as raw
            text, `candidates` proposes the pairs.
        threshold: Minimum probability of a relation (0 to 1): every label with at least this probability is written,
            even if the negative label is more probable. Null writes the most probable label of a pair unless it is the
            negative one. "auto" is the model's own threshold: for the shipped adapter, the one that was best on
            development data; otherwise null.
        label_thresholds: Thresholds of individual labels, replacing `threshold`.
        max_labels_per_pair: Maximum number of relations of a pair in one direction; more than one requires a threshold.
        temperature: Temperature of the probabilities, fitted by `slmre calibrate`. With a value other than 1, the model
            computes all labels of every pair.
        negative_rate: Fraction of the negative pairs that is sampled for each update (0 to 1).
        class_weights: "balanced" gives pairs of rare labels more weight in training; null weights all pairs equally.
        batch_size: Number of pairs that are scored together, across documents.
        max_context_tokens: Longer contexts are truncated around their pair; counted in the model's tokens.
        attr: Relations are written to `doc._.<attr>`.
        weights: "reference" saves the name and fingerprint of the base model; "embed" saves the model itself, so that
            the pipeline works offline. The weights of `rel_classifier` are always saved.
        scorer: Scores predicted documents.
    """

    labels: list[str] | None = None
    schema: Any = None
    label_types: bool = False
    type_map: dict[str, str] = field(default_factory=dict)
    negative_label: str | None = NEGATIVE_LABEL
    candidates: CandidateGenerator = EntityPairs()  # noqa: RUF009 (frozen)
    use_gold_pairs: bool = False
    threshold: float | Literal["auto"] | None = "auto"
    label_thresholds: dict[str, float] = field(default_factory=dict)
    max_labels_per_pair: int = 3
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
        values = {name: getattr(self, name) for name in (*LABEL_SETTINGS, *CHANGEABLE)}
        return json.loads(json.dumps(values, default=lambda schema: schema.to_dict()))

    def check(self, name: str) -> None:
        """Raise ValueError if a value is out of range; `name` is the component's name in messages."""
        if self.labels is not None and self.schema is not None:
            raise ValueError("Set either `labels` or `schema`, not both.")
        check_types(self, name)
        check_minimum(self, name, batch_size=1, max_context_tokens=1, max_labels_per_pair=1)
        check_choice(self, name, class_weights=(None, "balanced"), weights=("reference", "embed"))
        check_thresholds(name, self.threshold, self.label_thresholds)
        check_positive(self, name, names=["temperature"])
        check_probability(self, name, names=["negative_rate"])


def configured_schema(settings: ExtractorSettings, tuned: LabelSchema | None) -> LabelSchema | None:
    """Return the labels that the settings specify, or None.

    Plain names of labels that the model was tuned on get their wordings from `tuned`, but types only with
    `label_types`. Raises ValueError if the labels are not a valid schema, or its file is unreadable.
    """
    if settings.schema is not None:
        try:
            return LabelSchema.from_any(settings.schema, settings.negative_label)
        except TypeError as error:
            raise ValueError(str(error)) from error
    if settings.labels is None:
        return None
    plain = LabelSchema.from_labels(settings.labels, settings.negative_label)
    return plain if tuned is None else with_known_wordings(plain, tuned, types=settings.label_types)


def with_known_wordings(schema: LabelSchema, known: LabelSchema, *, types: bool) -> LabelSchema:
    """Return a schema whose plain labels have the wordings, definitions, … of known labels with the same name.

    Without `types`, they have no type constraints.
    """
    by_name = {label.name: label if types else replace(label, types=()) for label in known.labels}
    labels = tuple(
        by_name.get(label.name, label) if label == RelationLabel(label.name, wording_of(label.name)) else label
        for label in schema.labels
    )
    return LabelSchema(labels, schema.negative_label, {**known.type_map, **schema.type_map})


def default_config(model: dict[str, Any]) -> dict[str, Any]:
    """Return the default config of a component with this model."""
    return {
        "model": model,
        **defaults_of(ExtractorSettings),
        "candidates": {"@misc": "spacy-slmre.EntityPairs.v1"},
        "scorer": {"@scorers": "spacy-slmre.RelationScorer.v1"},
    }
