"""Relations as edges of a graph: one edge per annotation, or merged over all documents."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from spacy_slmre.documents import EntityMention, RelationDocument

MERGE_BY = ("text", "type")

# Characters that separate the parts of a key, and the escape character.
_SEPARATORS = re.compile("[%|:#&]")


class ExportError(ValueError):
    """Relations cannot be exported with these settings."""


@dataclass(frozen=True, slots=True)
class Node:
    """An entity in a graph; merged mentions have their most frequent text and entity type."""

    key: str  # document and position of a mention, or the key of merged mentions (see `entity_key`)
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
    """A relation between two nodes, with all its sources, best first, and their highest score."""

    key: str  # unique in an export
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
    """Yield an edge between two mentions for each relation, in order."""
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


def merge_edges(edges: Iterable[Edge], by: str = "text") -> list[Edge]:
    """Merge edges with the same label between the same entities.

    Mentions are merged if they share a `kb_id`; those without one, if their texts are equal, ignoring case and spaces.
    All edges are held in memory.

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
    texts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    kb_ids: dict[str, str] = {}
    sources: dict[tuple[str, str, str], list[EdgeSource]] = {}
    for edge in edges:
        for source in edge.sources:
            head, tail = entity_key(source.head, by), entity_key(source.tail, by)
            for key, mention in ((head, source.head), (tail, source.tail)):
                texts[key][mention.text] += 1
                types[key][mention.type] += 1
                kb_ids[key] = mention.kb_id
            sources.setdefault((head, edge.label, tail), []).append(source)
    nodes = {
        key: Node(key, texts[key].most_common(1)[0][0], types[key].most_common(1)[0][0], kb_id)
        for key, kb_id in kb_ids.items()
    }
    result = []
    for (head, label, tail), merged in sources.items():
        best = sorted(merged, key=lambda source: -source.score)
        key = merged_key(head, label, tail)
        result.append(Edge(key, nodes[head], nodes[tail], label, best[0].score, tuple(best)))
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


def entity_key(mention: EntityMention, by: str = "text") -> str:
    """Return the key by which mentions are merged: the `kb_id`, otherwise the normalized text (and type)."""
    if mention.kb_id:
        return f"id:{_escape(mention.kb_id)}"
    text = _escape(normalize(mention.text))
    return f"typed:{_escape(mention.type)}:{text}" if by == "type" else f"text:{text}"


def merged_key(head: str, label: str, tail: str) -> str:
    """Return the key of a merged edge between two entity keys, which is the same in every export."""
    return f"{head} | {_escape(label)} | {tail}"


def normalize(text: str) -> str:
    """Normalize case, character width and white space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def _escape(text: str) -> str:
    return _SEPARATORS.sub(lambda found: quote(found[0], safe=""), text)
