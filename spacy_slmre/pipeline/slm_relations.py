"""`slm_relations`: relations by a small language model."""

from __future__ import annotations

from collections.abc import Callable

from spacy.language import Language
from thinc.api import Config

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.component_settings import SCORE_WEIGHTS, choose_schema, component_defaults
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.schema import LabelSchema, UnreadSchema

default_model_config = """
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = null
revision = null
adapter = "auto"
quantization = "auto"
keep_4bit = false
dtype = "auto"
device = "auto"
max_batch_tokens = 1024
prefix_cache = true
label_list = null
definitions = null
demonstrations = null
templates = null
lora_rank = 16
"""
DEFAULT_SLM_MODEL = Config().from_str(default_model_config)["model"]


@Language.factory(
    "slm_relations",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=component_defaults(DEFAULT_SLM_MODEL),
    default_score_weights=SCORE_WEIGHTS,
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
    temperature: float,
    negative_rate: float,
    class_weights: str | None,
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
        temperature: Probabilities are taken at this temperature; `slmre calibrate` fits it. Any other than 1
            has the model compute all labels of every pair.
        negative_rate: In training, the share of negative pairs that an update learns from (0 to 1).
        class_weights: In training, "balanced" has pairs of rare labels count for more.
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
        negative_label=negative_label,
        candidates=candidates,
        threshold=threshold,
        label_thresholds=label_thresholds,
        temperature=temperature,
        negative_rate=negative_rate,
        class_weights=class_weights,
        batch_size=batch_size,
        max_context_tokens=max_context_tokens,
        attr=attr,
        weights=weights,
        scorer=scorer,
    )


class SLMRelations(RelationExtractor):
    """Labels pairs of entities with a small language model; see `make_slm_relations`."""
