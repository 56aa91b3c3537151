"""Relations as edges of a graph: between mentions, between entities (facts), or merged over all documents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spacy_slmre.directions import inverse_label, turn_relation
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.facts import (
    MERGE_BY,
    Entity,
    combine_scores,
    distinct_relations,
    escape_key,
    make_facts,
    most_frequent,
)


class ExportError(ValueError):
    """Relations cannot be exported with these settings."""


@dataclass(frozen=True, slots=True)
class Node:
    """A mention or entity in a graph; an entity has its most frequent name and type."""

    key: str  # document and position of a mention, or the key of an entity (see `spacy_slmre.facts`)
    text: str
    type: str = ""
    kb_id: str = ""


@dataclass(frozen=True, slots=True)
class EdgeSource:
    """Where a relation was found: a sentence, or several if it spans them."""

    document: str  # id
    start: int  # offsets of the sentence in the document
    end: int
    sentence: str
    head: EntityMention
    tail: EntityMention
    score: float
    model: str = ""  # the pipeline that found the relation

    def to_dict(self) -> dict[str, Any]:
        """Return the source as plain data, with all fields."""
        # Not `dataclasses.asdict`, whose copies dominate the time of a large export.
        data = {name: getattr(self, name) for name in self.__slots__}
        for side in ("head", "tail"):
            data[side] = {name: getattr(data[side], name) for name in EntityMention.__slots__}
        return data


@dataclass(frozen=True, slots=True)
class Edge:
    """A relation between two nodes, with all its sources, best first, and their combined score."""

    key: str  # unique in an export
    head: Node
    tail: Node
    label: str
    score: float
    sources: tuple[EdgeSource, ...]
    inverse: str = ""  # label that holds from tail to head, for which there is no second edge
    iri: str = ""  # of the label, if its schema has one
    inverse_iri: str = ""

    @property
    def symmetric(self) -> bool:
        """Whether the label also holds from tail to head."""
        return self.inverse == self.label

    @property
    def count(self) -> int:
        """How often the relation was found."""
        return len(self.sources)

    @property
    def source(self) -> EdgeSource:
        """The source with the highest score; the only one of an edge between mentions."""
        return self.sources[0]

    @property
    def source_dicts(self) -> list[dict[str, Any]]:
        """All sources as plain data."""
        return [source.to_dict() for source in self.sources]


def edges_of(documents: Iterable[RelationDocument], level: str, merge: str | None) -> Iterable[Edge]:
    """Return the relations of documents as edges.

    Args:
        documents: The documents, with unique ids.
        level: "mentions" for relations between mentions, or "facts" for those between the entities of each document.
        merge: Instead, merge the facts of all documents by "text" or "type"; see `merge_edges`.
    """
    if merge is not None:
        return merge_edges(documents, merge)
    return fact_edges(documents) if level == "facts" else make_edges(documents)


def make_edges(documents: Iterable[RelationDocument]) -> Iterator[Edge]:
    """Yield an edge between two mentions for each relation, in order; see `distinct_relations`."""
    for document in documents:
        for number, relation in enumerate(distinct_relations(document), 1):
            source = _make_source(document, relation)
            nodes = mention_node(document.id, relation.head), mention_node(document.id, relation.tail)
            inverse = inverse_label(relation.label, document.inverse_of)
            key = f"{document.id}#{number}"
            iris = _iris(document.iris, relation.label, inverse)
            yield Edge(key, *nodes, relation.label, relation.score, (source,), inverse, *iris)


def fact_edges(documents: Iterable[RelationDocument]) -> Iterator[Edge]:
    """Yield an edge between two entities for each fact of each document, best first; documents share no nodes."""
    for document in documents:
        for fact in make_facts(document):
            prefix = escape_key(document.id)
            head, tail = (Node(f"{prefix}#{one.key}", one.name, one.type, one.kb_id) for one in (fact.head, fact.tail))
            sources = tuple(_make_source(document, relation) for relation in fact.relations)
            key = f"{prefix}#{merged_key(fact.head.key, fact.label, fact.tail.key)}"
            iris = _iris(document.iris, fact.label, fact.inverse)
            yield Edge(key, head, tail, fact.label, fact.score, sources, fact.inverse, *iris)


def _make_source(document: RelationDocument, relation: DocumentRelation) -> EdgeSource:
    start, end = document.sentence_of(relation)
    sides = relation.head, relation.tail
    return EdgeSource(document.id, start, end, document.text[start:end], *sides, relation.score, document.model)


def _iris(iris: Mapping[str, str], label: str, inverse: str) -> tuple[str, str]:
    return iris.get(label, ""), iris.get(inverse, "")


def mention_node(document: str, mention: EntityMention) -> Node:
    """Return the node of a mention that is not merged with others."""
    key = f"{escape_key(document)}#char={mention.start},{mention.end}&type={escape_key(mention.type)}"
    return Node(key, mention.text, mention.type, mention.kb_id)


@dataclass
class _MergedEntity:
    kb_id: str = ""
    names: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)

    def add(self, entity: Entity[EntityMention], count: int) -> None:
        self.kb_id = entity.kb_id
        self.names[entity.name] += count
        self.types[entity.type] += count

    def node(self, key: str) -> Node:
        return Node(key, most_frequent(self.names), most_frequent(self.types), self.kb_id)


def merge_edges(documents: Iterable[RelationDocument], by: str = "text") -> list[Edge]:
    """Return the facts of all documents as edges: one for the same label between the same entities.

    `spacy_slmre.facts` defines which mentions are the same entity. A label that is symmetric, or has an inverse,
    according to one document is so in all of them. All relations are held in memory.

    Args:
        documents: The documents, with unique ids.
        by: "text", or "type" to merge mentions without an id only if their entity types are equal.

    Returns:
        The merged edges, most frequent first, then by score.

    Raises:
        ExportError: Unknown `by`.
    """
    if by not in MERGE_BY:
        raise ExportError(f'Relations cannot be merged by "{by}". Use one of {", ".join(MERGE_BY)}.')
    entities: defaultdict[str, _MergedEntity] = defaultdict(_MergedEntity)
    of_documents: defaultdict[tuple[str, str, str], list[EdgeSource]] = defaultdict(list)
    iris: dict[str, str] = {}
    inverse_of: dict[str, str] = {}
    for document in documents:
        for label, iri in document.iris.items():
            iris.setdefault(label, iri)
        for label, inverse in document.inverse_of.items():
            if inverse_of.get(inverse, inverse) == inverse:  # unless another document turns them the other way
                inverse_of.setdefault(label, inverse)
        for fact in make_facts(document, by):
            for entity in (fact.head, fact.tail):
                entities[entity.key].add(entity, len(fact.relations))
            key = fact.head.key, fact.label, fact.tail.key
            of_documents[key] += (_make_source(document, relation) for relation in fact.relations)
    sources: defaultdict[tuple[str, str, str], list[EdgeSource]] = defaultdict(list)
    for key, found in of_documents.items():
        turned = turn_relation(*key, inverse_of)
        sources[turned] += found if turned == key else [replace(one, head=one.tail, tail=one.head) for one in found]
    nodes = {key: entity.node(key) for key, entity in entities.items()}
    result = []
    for (head, label, tail), merged in sources.items():
        best = tuple(sorted(merged, key=lambda source: -source.score))
        score = combine_scores(source.score for source in best)
        inverse = inverse_label(label, inverse_of)
        names = _iris(iris, label, inverse)
        ends = nodes[head], nodes[tail]
        result.append(Edge(merged_key(head, label, tail), *ends, label, score, best, inverse, *names))
    return sorted(result, key=lambda edge: (-edge.count, -edge.score))


def new_nodes(edges: Iterable[Edge], *, merged: bool) -> Iterator[tuple[Edge, list[Node]]]:
    """Yield each edge with those of its nodes that have not occurred before."""
    seen: set[str] = set()
    document = None
    for edge in edges:
        if not merged and edge.source.document != document:
            # Documents share no mentions, so only the nodes of one document are kept.
            document = edge.source.document
            seen.clear()
        nodes = {node.key: node for node in (edge.head, edge.tail) if node.key not in seen}
        seen.update(nodes)
        yield edge, list(nodes.values())


def merged_key(head: str, label: str, tail: str) -> str:
    """Return the key of a merged edge between two entity keys, which is the same in every export."""
    return f"{head} | {escape_key(label)} | {tail}"
