"""Reading gold annotation: which pairs are positive, negative or unknown.

If a document annotates *pairs* (`doc._.relation_pairs`), all other pairs are unknown. If it only annotates *relations*
(`doc._.relations`), all other candidate pairs are negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.metrics import NEGATIVES, normalize_answer
from spacy_slmre.relations import PAIRS, RELATIONS, Relation, annotates_pairs, relations_of
from spacy_slmre.schema import LabelSchema

PairKey = tuple[int, int, int, int]
"""Head start, head end, tail start and tail end in characters."""


@dataclass
class TrainingInstances:
    """Labeled instances of examples.

    Attributes:
        instances: The instances; a pair with several labels has an instance for each.
        n_gold: Number of gold pairs with a relation.
        n_proposed: How many of these pairs the candidate generator proposed.
    """

    instances: list[RelationInstance] = field(default_factory=list)
    n_gold: int = 0
    n_proposed: int = 0

    def describe_proposed(self) -> str | None:
        """Return a warning if no gold pair with a relation is a candidate, else None."""
        if not self.n_gold or self.n_proposed:
            return None
        return (
            f"the training data has {self.n_gold} relations, but the candidate generator proposes none of their pairs, "
            "so nothing can be learned. The predicted docs of the examples need entities: read the corpus with "
            '@readers = "spacy-slmre.RelationCorpus.v1" and entities = "gold", or add the component that predicts '
            "entities to training.annotating_components."
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


def gold_relations(doc: Doc, attr: str = RELATIONS) -> Sequence[Relation]:
    """Return all annotated pairs of a gold document with their labels, including negative ones.

    Relations are read from `doc._.<attr>` if there are none in `doc._.relations`.
    """
    if annotates_pairs(doc):
        return relations_of(doc, PAIRS)
    return relations_of(doc, RELATIONS) or relations_of(doc, attr)


def gold_labels(doc: Doc, attr: str = RELATIONS) -> tuple[dict[PairKey, list[str]], bool]:
    """Return the labels of each annotated pair, and whether all other pairs are negative (otherwise unknown)."""
    labels: dict[PairKey, list[str]] = {}
    for relation in gold_relations(doc, attr):
        of_pair = labels.setdefault(pair_key(relation.head, relation.tail), [])
        if relation.label not in of_pair:
            of_pair.append(relation.label)
    return labels, not annotates_pairs(doc)


def make_training_instances(
    examples: Iterable[Example], candidates: CandidateGenerator, schema: LabelSchema, attr: str
) -> TrainingInstances:
    """Label the candidate pairs of the predicted docs by the reference docs, skipping unknown pairs.

    Raises ValueError if a gold label is not in the schema. For `attr`, see `gold_relations`.
    """
    result = TrainingInstances()
    for example in examples:
        labels, complete = gold_labels(example.reference, attr)
        if unknown := {label for of_pair in labels.values() for label in of_pair} - set(schema.names):
            raise ValueError(
                f"The training data has labels that the component does not have: {', '.join(sorted(unknown))}. Add "
                "them (`add_label`, `labels` or `schema`), or remove them from the data."
            )
        positive = {pair for pair, of_pair in labels.items() if set(of_pair) - {schema.negative_label}}
        result.n_gold += len(positive)
        default = [schema.negative_label] if complete and schema.negative_label else []
        pairs: list[tuple[Span, Span]] = []
        gold: list[str] = []
        for pair in candidates(example.predicted, schema).pairs:
            key = pair_key(*pair)
            result.n_proposed += key in positive
            for label in labels.get(key, default):
                pairs.append(pair)
                gold.append(label)
        result.instances += make_instances(example.predicted, pairs, schema, gold)
    return result


def make_gold_instances(doc: Doc, schema: LabelSchema) -> list[RelationInstance]:
    """Return the labeled instances of all annotated pairs of a gold document, whether or not they are candidates.

    A pair with several labels has several instances, which share their context.
    """
    annotated = gold_relations(doc)
    pairs = [(relation.head, relation.tail) for relation in annotated]
    return make_instances(doc, pairs, schema, [relation.label for relation in annotated])


def collect_labels(
    examples: Iterable[Example], negative: str | None, attr: str = RELATIONS
) -> tuple[list[str], str | None]:
    """Return the labels of a corpus in alphabetical order, and the negative label if there are negative pairs.

    If the expected `negative` label does not occur, but exactly one label that usually means "no relation"
    (`spacy_slmre.metrics.NEGATIVES`: "NA", "Other", …), that is the negative label. For `attr`, see `gold_relations`.
    """
    names: set[str] = set()
    has_negatives = False
    for example in examples:
        labels, complete = gold_labels(example.reference, attr)
        names.update(label for of_pair in labels.values() for label in of_pair)
        has_negatives |= complete
    others = [label for label in names if normalize_answer(label) in NEGATIVES]
    if negative is not None and negative not in names and len(others) == 1:
        negative = others[0]
    return sorted(names - {negative}), negative if has_negatives or negative in names else None


def resolve_labels(
    labels: Mapping[str, object] | list[str] | None,
    configured: LabelSchema | None,
    get_examples: Callable[[], Iterable[Example]],
    negative: str | None,
    attr: str,
) -> LabelSchema | None:
    """Return the labels for initializing a component, or None if nothing specifies them.

    These are `labels` (the argument of `initialize`: names, or a schema as plain data), otherwise those that are
    configured, otherwise those of the examples. Raises ValueError if `labels` is not a valid schema.
    """
    if labels is not None:
        return LabelSchema.from_any(labels, negative)
    if configured is not None:
        return configured
    found, negative = collect_labels(get_examples(), negative, attr)
    return LabelSchema.from_labels(found, negative) if found else None


def pair_key(head: Span, tail: Span) -> PairKey:
    """Return the key of a pair: its character offsets."""
    return head.start_char, head.end_char, tail.start_char, tail.end_char
