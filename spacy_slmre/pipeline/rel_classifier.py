"""`rel_classifier`: relations by an encoder that was trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from spacy.language import Language
from spacy.training import Example
from thinc.api import Config

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.component_settings import SCORE_WEIGHTS, choose_schema, component_defaults
from spacy_slmre.pipeline.examples import make_training_instances
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.schema import LabelSchema, UnreadSchema

if TYPE_CHECKING:
    from spacy_slmre.models.encoder.model import EncoderClassifier

default_model_config = """
[model]
@architectures = "spacy-slmre.EncoderClassifier.v1"
base = "all-minilm-l6-v2"
revision = null
markers = "typed"
type_embedding = false
dropout = null
frozen_layers = null
head_learn_rate = 1.0
mixed_precision = true
dtype = "auto"
device = "auto"
runtime = "torch"
max_batch_tokens = 4096
seed = 0
"""
DEFAULT_ENCODER_MODEL = Config().from_str(default_model_config)["model"]


@Language.factory(
    "rel_classifier",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=component_defaults(DEFAULT_ENCODER_MODEL),
    default_score_weights=SCORE_WEIGHTS,
)
def make_rel_classifier(
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
) -> RelClassifier:
    """Make the component. Its settings are those of `slm_relations`, in whose place it can stand.

    Args:
        nlp: The pipeline.
        name: Name of the component.
        model: An `EncoderClassifier`, as `@architectures = "spacy-slmre.EncoderClassifier.v1"` gives it.
        schema: Labels with the types that they join; wordings and definitions are not used.
        labels: Names of labels, in place of a schema; without either, those of the training data.
        negative_label: The label that says "no relation". Null where every pair has a relation.
        candidates: Which pairs are asked about.
        threshold: A relation is written if its probability is at least this (0 to 1).
        label_thresholds: The same for single labels.
        temperature: Probabilities are taken at this temperature; `slmre calibrate` fits it.
        negative_rate: In training, the share of negative pairs that an update learns from (0 to 1).
        class_weights: In training, "balanced" has pairs of rare labels count for more.
        batch_size: Pairs labelled together.
        max_context_tokens: Longer contexts are shortened around their pair.
        attr: Relations are written to `doc._.<attr>`.
        weights: Makes no difference here: the weights are the component's own and saved with it.
        scorer: The scorer.
    """
    return RelClassifier(
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


class RelClassifier(RelationExtractor):
    """Labels pairs of entities with a trained encoder; see `make_rel_classifier`."""

    def add_label(self, label: str) -> int:
        """Add a relation; a trained label head gets an output for it, which has yet to learn.

        Returns:
            1, or 0 where the label is there already.
        """
        added = super().add_label(label)
        if self._encoder.is_trained:
            self._encoder.add_labels(self.schema.names)
        return added

    def _begin(self, get_examples: Callable[[], Iterable[Example]]) -> None:
        """Make a label head for the labels and entity types of the examples."""
        if self.problem is not None:
            raise self.problem
        labelled = make_training_instances(get_examples(), self.candidates, self.schema, self.attr)
        found = {instance.label for instance in labelled.instances}
        if labelled.gold and not labelled.proposed:
            raise ValueError(
                f"{self.name}: the training data have {labelled.gold} relations, but the candidate generator "
                "proposes none of their pairs. The predicted side of an example must have the entities: read "
                'the corpus with @readers = "spacy-slmre.RelationCorpus.v1" and entities = "gold".'
            )
        if len(found) < 2:
            told = f"one label only ({', '.join(map(str, found))})" if found else "no labelled pair"
            raise ValueError(
                f"{self.name}: the training data have {told}: there is nothing to tell apart. Add pairs of "
                "other labels, or pairs without a relation."
            )
        types = {
            mention.type
            for instance in labelled.instances
            for mention in (instance.head_mention, instance.tail_mention)
        }
        if self.class_weights == "balanced":
            self._balance(labelled)
        self._encoder.start(self.schema.names, types)

    @property
    def _encoder(self) -> EncoderClassifier:
        return cast("EncoderClassifier", self.model)
