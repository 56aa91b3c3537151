"""Relations as edges of a graph: one edge per annotation, or merged over all documents."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from spacy_slmre.documents import EntityMention, RelationDocument

MERGE_BY = ("text", "type")

# Characters that separate the parts of a key, and the one that escapes them.
_SEPARATORS = re.compile("[%|:#&]")


class ExportError(ValueError):
    """Relations cannot be exported with these settings."""


@dataclass(frozen=True, slots=True)
class Node:
    """An entity in a graph.

    Attributes:
        key: Identifies the node: document and position of a mention, or what its mentions were merged by.
        text: Its text; the most frequent one of merged mentions.
        type: Its entity type; the most frequent one of merged mentions.
        kb_id: Its id in a knowledge base, or "".
    """

    key: str
    text: str
    type: str = ""
    kb_id: str = ""


@dataclass(frozen=True, slots=True)
class EdgeSource:
    """Where a relation was found.

    Attributes:
        document: Id of the document.
        start: Offset of the first character of the sentence, or of the first of several sentences.
        end: Offset after its last character.
        sentence: Its text.
        head: The head as mentioned there.
        tail: The tail as mentioned there.
        score: The score of the relation.
        model: The pipeline that found it, or "".
    """

    document: str
    start: int
    end: int
    sentence: str
    head: EntityMention
    tail: EntityMention
    score: float
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the source as plain data, with all fields."""
        # Not `dataclasses.asdict`: it copies every string, which dominates the time of a large export.
        data = {name: getattr(self, name) for name in self.__slots__}
        sides = {side: data[side] for side in ("head", "tail")}
        return data | {
            side: {name: getattr(mention, name) for name in EntityMention.__slots__}
            for side, mention in sides.items()
        }


@dataclass(frozen=True, slots=True)
class Edge:
    """A relation between two nodes, with all its sources.

    Attributes:
        key: Unique among the edges of an export.
        head: The head of the relation.
        tail: The tail of the relation.
        label: Its label.
        score: The highest score of its sources.
        sources: Where it was found, best first.
    """

    key: str
    head: Node
    tail: Node
    label: str
    score: float
    sources: tuple[EdgeSource, ...]

    @property
    def count(self) -> int:
        """How often the relation was found."""
        return len(self.sources)

    @property
    def source(self) -> EdgeSource:
        """The source with the highest score; the only one of an edge that is not merged."""
        return self.sources[0]

    @property
    def source_dicts(self) -> list[dict[str, Any]]:
        """All sources as plain data."""
        return [source.to_dict() for source in self.sources]


def make_edges(documents: Iterable[RelationDocument]) -> Iterator[Edge]:
    """Turn each relation into an edge between two mentions, in order."""
    for document in documents:
        for number, relation in enumerate(document.relations, 1):
            head, tail, score = relation.head, relation.tail, relation.score
            start, end = document.sentence_of(relation)
            sentence = document.text[start:end]
            source = EdgeSource(document.id, start, end, sentence, head, tail, score, document.model)
            nodes = mention_node(document.id, head), mention_node(document.id, tail)
            yield Edge(f"{document.id}#{number}", *nodes, relation.label, score, (source,))


def mention_node(document: str, mention: EntityMention) -> Node:
    """Return the node of a mention that is not merged with others."""
    key = f"{_escape(document)}#char={mention.start},{mention.end}&type={_escape(mention.type)}"
    return Node(key, mention.text, mention.type, mention.kb_id)


@dataclass
class _MergedNode:
    texts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    kb_id: str = ""

    def add(self, mention: EntityMention) -> None:
        self.texts[mention.text] += 1
        self.types[mention.type] += 1
        self.kb_id = mention.kb_id

    def node(self, key: str) -> Node:
        return Node(key, self.texts.most_common(1)[0][0], self.types.most_common(1)[0][0], self.kb_id)


def merge_edges(edges: Iterable[Edge], by: str = "text") -> list[Edge]:
    """Merge edges with the same label whose heads and whose tails are the same entity.

    Mentions are merged if they share a `kb_id`; those without one, if their texts are equal, ignoring case
    and spaces. All edges are held in memory.

    Args:
        edges: The edges, with any number of sources.
        by: "text", or "type" to merge only mentions with equal entity types.

    Returns:
        The merged edges, most frequent first, then by score.

    Raises:
        ExportError: Unknown `by`.
    """
    if by not in MERGE_BY:
        raise ExportError(f'Relations cannot be merged by "{by}". Use one of {", ".join(MERGE_BY)}.')
    merged: dict[str, _MergedNode] = {}
    sources: dict[tuple[str, str, str], list[EdgeSource]] = {}
    for edge in edges:
        for source in edge.sources:
            head, tail = entity_key(source.head, by), entity_key(source.tail, by)
            for key, mention in ((head, source.head), (tail, source.tail)):
                merged.setdefault(key, _MergedNode()).add(mention)
            sources.setdefault((head, edge.label, tail), []).append(source)
    nodes = {key: node.node(key) for key, node in merged.items()}
    result = []
    for (head, label, tail), found in sources.items():
        best = sorted(found, key=lambda source: -source.score)
        key = merged_key(head, label, tail)
        result.append(Edge(key, nodes[head], nodes[tail], label, best[0].score, tuple(best)))
    return sorted(result, key=lambda edge: (-edge.count, -edge.score))


def new_nodes(edges: Iterable[Edge], *, merged: bool) -> Iterator[tuple[Edge, list[Node]]]:
    """Yield each edge with those of its nodes that have not occurred before."""
    seen: set[str] = set()
    document = None
    for edge in edges:
        if not merged and edge.source.document != document:
            # Documents share no mentions, so only the nodes of one document are held.
            document = edge.source.document
            seen.clear()
        nodes = {node.key: node for node in (edge.head, edge.tail) if node.key not in seen}
        seen.update(nodes)
        yield edge, list(nodes.values())


def entity_key(mention: EntityMention, by: str = "text") -> str:
    """Return what a mention is merged by: its `kb_id`, otherwise its normalized text (and type)."""
    if mention.kb_id:
        return f"id:{_escape(mention.kb_id)}"
    text = _escape(normalize(mention.text))
    return f"typed:{_escape(mention.type)}:{text}" if by == "type" else f"text:{text}"


def merged_key(head: str, label: str, tail: str) -> str:
    """Return the key of a merged edge between two entity keys; it is the same in every export."""
    return f"{head} | {_escape(label)} | {tail}"


def normalize(text: str) -> str:
    """Remove differences of case, character width and white space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def _escape(text: str) -> str:
    return _SEPARATORS.sub(lambda found: quote(found[0], safe=""), text)
