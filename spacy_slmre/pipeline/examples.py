"""TrainingInstances instances for training: a component's candidate pairs, with the gold labels of an example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.metrics import NEGATIVES, normalize_answer
from spacy_slmre.relations import PAIRS, RELATIONS, annotates_pairs, relations_of
from spacy_slmre.schema import LabelSchema


@dataclass
class TrainingInstances:
    """Instances of some examples.

    Attributes:
        instances: TrainingInstances instances; a pair with several labels is one instance for each.
        gold: Number of gold relations.
        proposed: How many of them the candidate generator proposed.
    """

    instances: list[RelationInstance] = field(default_factory=list)
    gold: int = 0
    proposed: int = 0


def make_training_instances(
    examples: Iterable[Example], candidates: CandidateGenerator, schema: LabelSchema, attr: str
) -> TrainingInstances:
    """The candidate pairs of the predicted side, labelled as the reference side says.

    A corpus that annotates pairs (`doc._.relation_pairs`) says of them alone what they are; in one that
    annotates relations only, any other pair has the negative label. Pairs whose label is unknown are left
    out.

    Args:
        examples: Examples.
        candidates: Proposes the pairs.
        schema: The labels.
        attr: Where relations are, if a corpus has none in `doc._.relations`.

    Raises:
        ValueError: A gold label is not among the schema's.
    """
    result = TrainingInstances()
    for example in examples:
        labels, complete = gold_labels(example.reference, attr)
        if unknown := {label for some in labels.values() for label in some} - set(schema.names):
            raise ValueError(
                f"The training data have labels that the component lacks: {', '.join(sorted(unknown))}. Add "
                "them (add_label, `labels`, a schema or a labels file), or leave them out of the data."
            )
        positive = {
            pair for pair, some in labels.items() if any(label != schema.negative_label for label in some)
        }
        result.gold += len(positive)
        default = [schema.negative_label] if complete and schema.negative_label else []
        pairs: list[tuple[Span, Span]] = []
        gold: list[str] = []
        for pair in candidates(example.predicted, schema).pairs:
            key = _key(*pair)
            result.proposed += key in positive
            for label in labels.get(key, default):
                pairs.append(pair)
                gold.append(label)
        result.instances += make_instances(example.predicted, pairs, schema, gold)
    return result


def collect_labels(
    examples: Iterable[Example], negative: str | None, attr: str
) -> tuple[list[str], str | None]:
    """The labels of a corpus in alphabetical order, and its negative one if pairs without a relation occur.

    Where the negative label's name does not occur, and one label does that says "no relation" in every label
    set (`spacy_slmre.metrics.NEGATIVES`: "NA", "Other", …), that one is it.

    Args:
        examples: Examples.
        negative: What the negative label is called.
        attr: Where relations are, if a corpus has none in `doc._.relations`.
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
    given: LabelSchema | None,
    get_examples: Callable[[], Iterable[Example]],
    negative: str | None,
    attr: str,
) -> LabelSchema | None:
    """The labels that a component is initialised with; None where nothing says what they are.

    Args:
        labels: Names, or a schema as plain data, as `initialize` was given them; they come first.
        given: The configured labels; they come next.
        get_examples: Gold documents, whose labels are taken otherwise.
        negative: What the negative label is called.
        attr: Where relations are, if the documents have none in `doc._.relations`.

    Raises:
        ValueError: The labels make no schema.
    """
    if isinstance(labels, Mapping):
        return LabelSchema.from_dict(labels)
    if labels is not None:
        return LabelSchema.from_labels(labels, negative)
    if given is not None:
        return given
    found, negative = collect_labels(get_examples(), negative, attr)
    return LabelSchema.from_labels(found, negative) if found else None


def gold_labels(doc: Doc, attr: str = RELATIONS) -> tuple[dict[tuple[int, ...], list[str]], bool]:
    """The labels of each annotated pair, by character offsets, and whether all other pairs have none."""
    if annotates_pairs(doc):
        relations = relations_of(doc, PAIRS)
    else:
        relations = relations_of(doc, RELATIONS) or relations_of(doc, attr)
    labels: dict[tuple[int, ...], list[str]] = {}
    for relation in relations:
        known = labels.setdefault(_key(relation.head, relation.tail), [])
        if relation.label not in known:
            known.append(relation.label)
    return labels, not annotates_pairs(doc)


def _key(head: Span, tail: Span) -> tuple[int, ...]:
    return head.start_char, head.end_char, tail.start_char, tail.end_char
