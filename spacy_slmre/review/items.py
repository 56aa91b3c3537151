"""The pairs to review, and the file that keeps them between sessions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.json_files import read_record


@dataclass(frozen=True, eq=False)
class ReviewDocument:
    """A document with pairs to review, and its labels. All heads and tails are among its entities."""

    document: RelationDocument
    schema: LabelSchema = field(repr=False)


@dataclass(frozen=True, eq=False)
class ReviewItem:
    """A pair to review.

    Attributes:
        source: Its document.
        head: The first argument.
        tail: The second argument.
        labels: The predicted labels with their scores or, for a near miss, the most probable positive one.
        probabilities: The most probable labels, including the negative one, best first.
        is_predicted: Whether the pair has predicted relations; otherwise it is a near miss.
        margin: Distance of the score from the one at which the decision changes: small if the model is uncertain.
    """

    source: ReviewDocument
    head: EntityMention
    tail: EntityMention
    labels: tuple[tuple[str, float], ...]
    probabilities: tuple[tuple[str, float], ...]
    is_predicted: bool
    margin: float

    @property
    def pair(self) -> tuple[EntityMention, EntityMention]:
        """Head and tail."""
        return self.head, self.tail

    def relations(self, labels: Iterable[str], *, reverse: bool = False) -> tuple[DocumentRelation, ...]:
        """Return the pair, or its reverse, as relations with these labels and their scores (1 if unknown)."""
        head, tail = reversed(self.pair) if reverse else self.pair
        scores = {} if reverse else dict((*self.probabilities, *self.labels))
        return tuple(DocumentRelation(head, tail, label, scores.get(label, 1.0)) for label in labels)

    def choices(self) -> list[str]:
        """Return all positive labels: first the most probable, then those that the entity types allow."""
        schema = self.source.schema
        allowed = schema.allowed(schema.map_type(self.head.type), schema.map_type(self.tail.type))
        probable = [label for label, _ in (*self.labels, *self.probabilities)]
        by_types = sorted(schema.positive_names, key=lambda name: not allowed[schema.index[name]])
        return [name for name in dict.fromkeys([*probable, *by_types]) if name != schema.negative_label]


def add_mentions(document: RelationDocument, mentions: Sequence[EntityMention]) -> RelationDocument:
    """Return a document with these mentions added to its entities, unless it already has them."""
    by_key = {mention.key: mention for mention in (*mentions, *document.entities)}
    return replace(document, entities=tuple(by_key[key] for key in sorted(by_key)))


def proposed_documents(items: Iterable[ReviewItem]) -> Iterator[RelationDocument]:
    """Yield the documents of items with the proposed labels as relations, in the order of their first items."""
    by_source: dict[ReviewDocument, list[DocumentRelation]] = {}
    for item in items:
        by_source.setdefault(item.source, []).extend(item.relations([label for label, _ in item.labels]))
    for source, relations in by_source.items():
        yield replace(source.document, relations=tuple(relations))


def write_items(path: Path, items: Sequence[ReviewItem]) -> None:
    """Write items; documents and label schemas that they share are written once."""
    sources = list(dict.fromkeys(item.source for item in items))
    schemas = {source.schema.fingerprint: source.schema for source in sources}
    numbers = {source: number for number, source in enumerate(sources)}
    data = {
        "schemas": [schema.to_dict() for schema in schemas.values()],
        "documents": [
            {"schema": list(schemas).index(source.schema.fingerprint), "document": source.document.to_dict()}
            for source in sources
        ],
        "items": [
            {
                "document": numbers[item.source],
                "head": item.head.key,
                "tail": item.tail.key,
                "labels": item.labels,
                "probabilities": item.probabilities,
                "is_predicted": item.is_predicted,
                "margin": item.margin,
            }
            for item in items
        ],
    }
    atomic_write(path, json.dumps(data))


def read_items(path: Path) -> list[ReviewItem]:
    """Read items in the order in which they were written. Raises OutputError if the file is missing or damaged."""
    return read_record(path, _parse_items, OutputError)


def _parse_items(data: dict[str, Any]) -> list[ReviewItem]:
    schemas = [LabelSchema.from_dict(schema) for schema in data["schemas"]]
    sources = [
        ReviewDocument(RelationDocument.from_dict(entry["document"]), schemas[entry["schema"]])
        for entry in data["documents"]
    ]
    mentions = [{mention.key: mention for mention in source.document.entities} for source in sources]

    def scored(pairs: Sequence[Any]) -> tuple[tuple[str, float], ...]:
        return tuple((label, score) for label, score in pairs)

    return [
        ReviewItem(
            sources[entry["document"]],
            mentions[entry["document"]][tuple(entry["head"])],
            mentions[entry["document"]][tuple(entry["tail"])],
            scored(entry["labels"]),
            scored(entry["probabilities"]),
            entry["is_predicted"],
            entry["margin"],
        )
        for entry in data["items"]
    ]
