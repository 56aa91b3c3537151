"""`slm_relations`: relations by a small language model."""

from __future__ import annotations

from collections.abc import Callable

from spacy.language import Language
from thinc.api import Config

from spacy_slmre.pipeline.relation_pipe import RelationModel, RelationPipe
from spacy_slmre.relations import RELATIONS
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, UnreadSchema

default_model_config = """
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = null
revision = null
adapter = null
quantization = "nf4"
keep_4bit = false
dtype = "auto"
device = "auto"
max_batch_tokens = 512
prefix_cache = true
label_list = null
definitions = null
demonstrations = null
templates = null
"""
DEFAULT_SLM_MODEL = Config().from_str(default_model_config)["model"]


@Language.factory(
    "slm_relations",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config={
        "model": DEFAULT_SLM_MODEL,
        "schema": None,
        "labels": None,
        "negative_label": NEGATIVE_LABEL,
        "candidates": {"@misc": "spacy-slmre.EntityPairs.v1"},
        "threshold": 0.0,
        "label_thresholds": {},
        "batch_size": 128,
        "max_context_tokens": 512,
        "attr": RELATIONS,
        "weights": "reference",
        "scorer": {"@scorers": "spacy-slmre.RelationScorer.v1"},
    },
    default_score_weights={
        "rel_micro_f": 1.0,
        "rel_micro_p": 0.0,
        "rel_micro_r": 0.0,
        "rel_macro_f": None,
        "rel_per_type": None,
        "rel_candidate_recall": 0.0,
    },
)
def make_slm_relations(
    nlp: Language,
    name: str,
    model: RelationModel,
    schema: LabelSchema | UnreadSchema | None,
    labels: list[str] | None,
    negative_label: str | None,
    candidates: Callable,
    threshold: float,
    label_thresholds: dict[str, float],
    batch_size: int,
    max_context_tokens: int,
    attr: str,
    weights: str,
    scorer: Callable | None,
) -> SLMRelations:
    """Make the component.

    Args:
        nlp: The pipeline.
        name: Name of the component.
        model: A `SmallLM`, as `@architectures = "spacy-slmre.SmallLM.v1"` gives it.
        schema: Labels with wordings, definitions and types, for instance by
            `@misc = "spacy-slmre.SchemaFile.v1"`.
        labels: Names of labels, in place of a schema.
        negative_label: The label among `labels` that says "no relation"; added where absent. Null where
            every pair has a relation.
        candidates: Which pairs are asked about, for instance by `@misc = "spacy-slmre.EntityPairs.v1"`.
        threshold: A relation is written if its probability is at least this (0 to 1).
        label_thresholds: The same for single labels.
        batch_size: Pairs labelled together.
        max_context_tokens: Longer contexts are shortened around their pair.
        attr: Relations are written to `doc._.<attr>`.
        weights: What saving does with the base model: "reference" writes its name and fingerprint,
            "embed" the model itself, so that the pipeline runs with no network at all.
        scorer: The scorer.
    """
    return SLMRelations(
        nlp.vocab,
        model,
        name,
        schema=choose_schema(name, schema, labels, negative_label, model.schema),
        candidates=candidates,
        threshold=threshold,
        label_thresholds=label_thresholds,
        batch_size=batch_size,
        max_context_tokens=max_context_tokens,
        attr=attr,
        weights=weights,
        scorer=scorer,
    )


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


class SLMRelations(RelationPipe):
    """Labels pairs of entities with a small language model; see `make_slm_relations`."""
