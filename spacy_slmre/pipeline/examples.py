"""Labeled instances of gold documents, for training, calibration and evaluation.

`spacy_slmre.gold` says which pairs are positive, negative or unknown.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.gold import gold_pairs, pair_key
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.metrics import means_no_relation
from spacy_slmre.relations import RELATIONS, inverses_of, iris_of, limits_of
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema


@dataclass
class TrainingInstances:
    """Labeled instances of examples.

    Attributes:
        instances: The instances; a pair with several labels has an instance for each.
        n_gold: Number of gold pairs with a relation.
        n_proposed: How many of these pairs the candidate generator proposed.
        n_unannotated: Number of documents with entities in which nothing is annotated.
    """

    instances: list[RelationInstance] = field(default_factory=list)
    n_gold: int = 0
    n_proposed: int = 0
    n_unannotated: int = 0

    def describe_unannotated(self) -> str | None:
        """Return a warning if documents have entities, but no annotation, else None."""
        if not self.n_unannotated:
            return None
        return (
            f"{self.n_unannotated} training documents with entities annotate neither relations nor pairs, so nothing "
            "is learned from them. If they have no relations, assign an empty list: doc._.relations = []."
        )

    def describe_proposed(self) -> str | None:
        """Return a warning if no gold pair with a relation is a candidate, else None."""
        if not self.n_gold or self.n_proposed:
            return None
        return (
            f"the training data has {self.n_gold} relations, but the candidate generator proposes none of their pairs, "
            "so nothing can be learned. The predicted docs of the examples need entities: set use_gold_pairs = true, "
            'read the corpus with @readers = "spacy-slmre.RelationCorpus.v1" and entities = "gold", or add the '
            "component that predicts entities to training.annotating_components."
        )

    def sample(self, negative: str | None, negative_rate: float, rng: np.random.Generator) -> list[RelationInstance]:
        """Return all positive and a random share of the negative instances."""
        if negative_rate == 1.0:
            return self.instances
        kept = rng.random(len(self.instances)) < negative_rate
        return [pair for pair, keep in zip(self.instances, kept, strict=True) if keep or pair.label != negative]


def balanced_weights(
    instances: Iterable[RelationInstance], negative: str | None = None, negative_rate: float = 1.0
) -> dict[str, float]:
    """Return weights by label that give all labels the same total weight, with a mean of 1 over all instances.

    `negative_rate` is the share of negative instances that an update samples.
    """
    counts: dict[str, float] = dict(Counter(instance.label or "" for instance in instances))
    if negative in counts:
        counts[negative] *= negative_rate
    total = sum(counts.values())
    return {label: total / (len(counts) * count) for label, count in counts.items() if count}


def make_training_instances(
    examples: Iterable[Example],
    candidates: CandidateGenerator,
    schema: LabelSchema,
    attr: str,
    *,
    use_gold_pairs: bool = False,
) -> TrainingInstances:
    """Label the candidate pairs of the predicted docs from the reference docs, skipping unknown pairs.

    With `use_gold_pairs`, the pairs are those of the reference docs whose labels are known. For `attr`, see
    `gold_pairs`. Raises ValueError if a gold label is not in the schema.
    """
    result = TrainingInstances()
    for example in examples:
        annotated = gold_pairs(example.reference, attr, schema.mirrors)
        if unknown := annotated.unknown_labels(schema):
            raise ValueError(
                f"The training data has labels that the component does not have: {', '.join(sorted(unknown))}. Add "
                "them (`add_label`, `labels` or `schema`), or remove them from the data."
            )
        positive = {key for key, _ in annotated.positives(schema.negative_label)}
        result.n_gold += len(positive)
        result.n_unannotated += bool(example.reference.ents) and not annotated.is_annotated
        pairs: list[tuple[Span, Span]] = []
        gold: list[str] = []
        if use_gold_pairs:
            proposed = _aligned(example.predicted, annotated.known_pairs(candidates, schema).values())
        else:
            proposed = candidates(example.predicted, schema).pairs
        for pair in proposed:
            key = pair_key(*pair)
            result.n_proposed += key in positive
            for label in annotated.labels_of(key, schema.negative_label):
                pairs.append(pair)
                gold.append(label)
        result.instances += make_instances(example.predicted, pairs, schema, gold)
    return result


def _aligned(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> list[tuple[Span, Span]]:
    """Map pairs of a document with the same text to this one, without those that do not match its token boundaries."""
    aligned = []
    for pair in pairs:
        head, tail = (doc.char_span(span.start_char, span.end_char, span.label, kb_id=span.kb_id) for span in pair)
        if head is not None and tail is not None:
            aligned.append((head, tail))
    return aligned


def describe_missing_negatives(instances: Collection[RelationInstance], negative: str | None) -> str | None:
    """Return a warning if there are instances, but none with the negative label, else None."""
    if not instances or any(instance.label == negative for instance in instances):
        return None
    return (
        "the training data has no negative pair, so the model will predict a relation for every pair. Annotate all "
        "relations of a text (doc._.relations), annotate pairs without a relation, too (doc._.relation_pairs), or set "
        "`negatives = RATIO` in the corpus reader. If every pair does have a relation, set `negative_label = null`."
    )


def make_gold_instances(doc: Doc, schema: LabelSchema, attr: str = RELATIONS) -> list[RelationInstance]:
    """Return the labeled instances of all pairs of a gold document whose labels are known.

    A pair with several labels has several instances, which share their context. For `attr`, see `gold_pairs`.
    """
    annotated = gold_pairs(doc, attr, schema.mirrors)
    labeled = [
        (pair, label)
        for key, pair in annotated.known_pairs().items()
        for label in annotated.labels_of(key, schema.negative_label)
    ]
    return make_instances(doc, [pair for pair, _ in labeled], schema, [label for _, label in labeled])


def collect_schema(docs: Iterable[Doc], negative: str | None, attr: str = RELATIONS) -> LabelSchema | None:
    """Return the labels of a corpus in alphabetical order, with what its documents know about them; None without any.

    The negative label is last, if there are negative pairs. If the expected `negative` label does not occur, but one
    label does that usually means "no relation" (`spacy_slmre.metrics.NEGATIVES`: "NA", "Other", …), it is the negative
    label. For `attr`, see `gold_pairs`.

    Documents may know which labels are symmetric or have an inverse, their limits and their IRIs, see
    `write_label_properties`. A property that they do not agree about is left out with a warning.

    Raises:
        ValueError: Several labels usually mean "no relation", and `negative` does not say which one does; or a property
            is invalid.
    """
    names: set[str] = set()
    has_negatives = False
    properties: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for doc in docs:
        annotated = gold_pairs(doc, attr)
        names.update(row.label for row in annotated.rows)
        has_negatives |= annotated.is_complete
        for source in {RELATIONS, attr}:
            for name, key, value in _label_properties(doc, source):
                properties[name][key].add(value)
    is_default = negative == NEGATIVE_LABEL
    others = sorted(filter(means_no_relation, names))
    if negative is not None and others and (is_default or negative not in names):
        if len(others) > 1:
            raise ValueError(
                f'The labels {" and ".join(others)} all usually mean "no relation". Set the negative label to the one '
                "that does, rename the others, or set the labels."
            )
        negative = others[0]
    if not names - {negative}:
        return None
    has_negatives |= negative in names
    schema = LabelSchema.from_labels(sorted(names - {negative}), negative if has_negatives else None)
    labels = [
        {"name": label.name, "wording": label.wording, **_agreed(label.name, properties[label.name])}
        for label in schema.labels
    ]
    return LabelSchema.from_dict({"labels": labels, "negative_label": schema.negative_label})


def _label_properties(doc: Doc, attr: str) -> Iterator[tuple[str, str, Any]]:
    """Yield what a document knows about the labels in an attribute: name, key of `RelationLabel`, and value."""
    for name, other in inverses_of(doc, attr).items():
        if name == other:
            yield name, "symmetric", True
        else:
            yield name, "inverse", other
            yield other, "inverse", name
    for name, limits in limits_of(doc, attr).items():
        for key, value in limits.items():
            yield (name, "symmetric", False) if key == "directions" else (name, key, value)
    for name, iri in iris_of(doc, attr).items():
        yield name, "iri", iri


def _agreed(name: str, properties: Mapping[str, set[Any]]) -> dict[str, Any]:
    """Return the properties of a label that all documents agree about."""
    disputed = {key for key, values in properties.items() if len(values) > 1}
    if True in properties.get("symmetric", ()) and "inverse" in properties:
        disputed |= {"symmetric", "inverse"}
    if disputed:
        warnings.warn(
            f'The documents disagree about these properties of the label "{name}", which are not used: '
            f"{', '.join(sorted(disputed))}. Set a schema to choose.",
            stacklevel=3,
        )
    return {key: value for key, (value, *_) in properties.items() if key not in disputed}


def resolve_labels(
    labels: Mapping[str, object] | list[str] | None,
    configured: LabelSchema | None,
    get_examples: Callable[[], Iterable[Example]],
    negative: str | None,
    attr: str,
) -> LabelSchema | None:
    """Return the labels for initializing a component, or None if nothing specifies them.

    These are `labels` (the argument of `initialize`: names, or a schema as plain data), otherwise the configured
    labels, otherwise those of the examples. Raises ValueError if `labels` is not a valid schema.
    """
    if labels is not None:
        return LabelSchema.from_any(labels, negative)
    if configured is not None:
        return configured
    return collect_schema((example.reference for example in get_examples()), negative, attr)
