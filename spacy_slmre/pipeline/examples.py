"""The only place that reads gold annotation: which pairs are positive, negative or unknown.

A document that annotates *pairs* (`doc._.relation_pairs`) says what these are and nothing about all others. In
a document that annotates only *relations* (`doc._.relations`), every other candidate pair is negative.
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
    """The labeled instances of some examples.

    Attributes:
        instances: Labeled instances; a pair with several labels is one instance for each.
        n_gold: Number of gold pairs with a relation.
        n_proposed: How many of them the candidate generator proposed.
    """

    instances: list[RelationInstance] = field(default_factory=list)
    n_gold: int = 0
    n_proposed: int = 0

    def describe_proposed(self) -> str | None:
        """Return a warning if none of the pairs with a relation is a candidate, else None."""
        if not self.n_gold or self.n_proposed:
            return None
        return (
            f"the training data have {self.n_gold} relations, but the candidate generator proposes none of their pairs, "
            "so nothing can be learned from them. The predicted side of an example needs the entities: read the corpus "
            'with @readers = "spacy-slmre.RelationCorpus.v1" and entities = "gold", or add the component that predicts '
            "them to training.annotating_components."
        )

    def sample(self, negative: str | None, negative_rate: float, rng: np.random.Generator) -> list[RelationInstance]:
        """Return the instances with a random share of the negative ones."""
        if negative_rate == 1.0:
            return self.instances
        kept = rng.random(len(self.instances)) < negative_rate
        return [one for one, keep in zip(self.instances, kept, strict=True) if keep or one.label != negative]


def balanced_weights(
    instances: Iterable[RelationInstance], negative: str | None = None, negative_rate: float = 1.0
) -> dict[str, float]:
    """Return a weight for each label so that all labels have the same total; the mean over the instances is 1.

    Args:
        instances: Labeled instances.
        negative: The negative label.
        negative_rate: Share of its instances that an update samples.
    """
    counts: dict[str, float] = dict(Counter(instance.label or "" for instance in instances))
    if negative in counts:
        counts[negative] *= negative_rate
    total = sum(counts.values())
    return {label: total / (len(counts) * count) for label, count in counts.items() if count}


def gold_relations(doc: Doc, attr: str = RELATIONS) -> Sequence[Relation]:
    """Return all annotated pairs of a gold document with their labels, negative ones included."""
    if annotates_pairs(doc):
        return relations_of(doc, PAIRS)
    return relations_of(doc, RELATIONS) or relations_of(doc, attr)


def gold_labels(doc: Doc, attr: str = RELATIONS) -> tuple[dict[PairKey, list[str]], bool]:
    """Return the labels of each annotated pair, and whether all other pairs are negative (else unknown).

    Args:
        doc: A gold document.
        attr: Where its relations are if `doc._.relations` is empty.
    """
    labels: dict[PairKey, list[str]] = {}
    for relation in gold_relations(doc, attr):
        known = labels.setdefault(pair_key(relation.head, relation.tail), [])
        if relation.label not in known:
            known.append(relation.label)
    return labels, not annotates_pairs(doc)


def make_training_instances(
    examples: Iterable[Example], candidates: CandidateGenerator, schema: LabelSchema, attr: str
) -> TrainingInstances:
    """Label the candidate pairs of the predicted side as the reference side does; skip unknown pairs.

    Args:
        examples: Examples.
        candidates: Proposes the pairs.
        schema: The labels.
        attr: Where relations are if a reference has none in `doc._.relations`.

    Raises:
        ValueError: A gold label is not in the schema.
    """
    result = TrainingInstances()
    for example in examples:
        labels, complete = gold_labels(example.reference, attr)
        if unknown := {label for some in labels.values() for label in some} - set(schema.names):
            raise ValueError(
                f"The training data have labels that the component lacks: {', '.join(sorted(unknown))}. Add "
                "them (`add_label`, `labels` or `schema`), or remove them from the data."
            )
        positive = {pair for pair, some in labels.items() if any(label != schema.negative_label for label in some)}
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
    """Return the labeled instances of a gold document's annotated pairs, whatever a pipeline would propose.

    A pair with several labels gives several instances, which share their context.
    """
    annotated = gold_relations(doc)
    pairs = [(relation.head, relation.tail) for relation in annotated]
    return make_instances(doc, pairs, schema, [relation.label for relation in annotated])


def collect_labels(
    examples: Iterable[Example], negative: str | None, attr: str = RELATIONS
) -> tuple[list[str], str | None]:
    """Return the labels of a corpus in alphabetical order, and the negative one if negative pairs occur.

    If `negative` does not occur itself but exactly one label does that commonly means "no relation"
    (`spacy_slmre.metrics.NEGATIVES`: "NA", "Other", …), that label is the negative one.

    Args:
        examples: Examples.
        negative: Expected name of the negative label.
        attr: Where relations are if a reference has none in `doc._.relations`.
    """
    found: set[str] = set()
    has_negatives = False
    for example in examples:
        labels, complete = gold_labels(example.reference, attr)
        found.update(label for some in labels.values() for label in some)
        has_negatives |= complete
    others = [label for label in found if normalize_answer(label) in NEGATIVES]
    if negative is not None and negative not in found and len(others) == 1:
        negative = others[0]
    return sorted(found - {negative}), negative if has_negatives or negative in found else None


def resolve_labels(
    labels: Mapping[str, object] | list[str] | None,
    configured: LabelSchema | None,
    get_examples: Callable[[], Iterable[Example]],
    negative: str | None,
    attr: str,
) -> LabelSchema | None:
    """Return the labels that a component is initialized with, or None if nothing specifies them.

    Args:
        labels: Argument of `initialize`: names or a schema as plain data; takes precedence.
        configured: The configured labels, used next.
        get_examples: Gold documents, whose labels are used otherwise.
        negative: Name of the negative label.
        attr: Where relations are if a reference has none in `doc._.relations`.

    Raises:
        ValueError: The labels are not a valid schema.
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
