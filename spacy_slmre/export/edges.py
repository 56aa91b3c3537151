"""Relations as edges of a graph: one an annotation, or joined over all documents."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from spacy_slmre.documents import EntityMention, RelationDocument

MERGES = ("text", "type")
DEFAULT_BASE = "urn:slmre:"
"""What the IRIs of RDF begin with where no base is given."""


class ExportError(ValueError):
    """Relations cannot be exported; the message says what to do."""


# What separates the parts of keys, and what quotes it.
_JOINTS = re.compile("[%|:#&]")


@dataclass(frozen=True, slots=True)
class Node:
    """An entity of a graph.

    Attributes:
        key: What makes two nodes the same: document and place of a mention, or what mentions were joined by.
        text: Its words; of joined mentions, the most frequent ones.
        type: Its entity type; of joined mentions, the most frequent one.
        kb_id: Its identifier in a knowledge base, or "".
    """

    key: str
    text: str
    type: str = ""
    kb_id: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a relation was found.

    Attributes:
        document: The document's id.
        start: Offset of the first character of the sentence (of the sentences, where there are several).
        end: Offset after its last character.
        sentence: Its text.
        head: The first argument, as it stands there.
        tail: The second argument.
        score: The score that it was found with.
        model: What found it, or "".
    """

    document: str
    start: int
    end: int
    sentence: str
    head: EntityMention
    tail: EntityMention
    score: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A relation between two nodes, with all its sources.

    Attributes:
        key: Unique among the edges of an export.
        head: Where it comes from.
        tail: Where it goes.
        label: The relation's label.
        score: The best score of its sources.
        sources: Where it was found, best first.
    """

    key: str
    head: Node
    tail: Node
    label: str
    score: float
    sources: tuple[Source, ...]

    @property
    def count(self) -> int:
        """How often it was found."""
        return len(self.sources)


def make_edges(documents: Iterable[RelationDocument]) -> Iterator[Edge]:
    """Each relation as an edge between two mentions, in order."""
    for document in documents:
        for number, relation in enumerate(document.relations, 1):
            start, end = document.sentence_of(relation)
            source = Source(
                document.id,
                start,
                end,
                document.text[start:end],
                relation.head,
                relation.tail,
                relation.score,
                document.model,
            )
            yield Edge(
                f"{document.id}#{number}",
                mention_node(document.id, relation.head),
                mention_node(document.id, relation.tail),
                relation.label,
                relation.score,
                (source,),
            )


def mention_node(document: str, argument: EntityMention) -> Node:
    """The node of a mention that is joined with no other."""
    key = f"{_part(document)}#char={argument.start},{argument.end}&type={_part(argument.type)}"
    return Node(key, argument.text, argument.type, argument.kb_id)


@dataclass
class _Joined:
    """Mentions that are one node."""

    texts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    kb_id: str = ""

    def add(self, argument: EntityMention) -> None:
        self.texts[argument.text] += 1
        self.types[argument.type] += 1
        self.kb_id = argument.kb_id

    def node(self, key: str) -> Node:
        return Node(key, self.texts.most_common(1)[0][0], self.types.most_common(1)[0][0], self.kb_id)


def merge_edges(edges: Iterable[Edge], by: str = "text") -> list[Edge]:
    """Join the edges whose ends are the same entity and whose label is the same.

    Two mentions are the same entity if an entity linker gave them the same id; where it gave none, if their
    texts are equal after `normalise`. All edges are held in memory.

    Args:
        edges: The edges, with any number of sources.
        by: "text", or "type" to join only mentions of the same entity type.

    Returns:
        The joined edges, most frequent first, then by score.

    Raises:
        ExportError: `by` is something else.
    """
    if by not in MERGES:
        raise ExportError(f'Relations cannot be merged by "{by}": use one of {", ".join(MERGES)}.')
    nodes: dict[str, _Joined] = {}
    sources: dict[tuple[str, str, str], list[Source]] = {}
    for edge in edges:
        for source in edge.sources:
            ends = []
            for argument in (source.head, source.tail):
                key = entity_key(argument, by)
                nodes.setdefault(key, _Joined()).add(argument)
                ends.append(key)
            sources.setdefault((ends[0], edge.label, ends[1]), []).append(source)
    made = {key: joined.node(key) for key, joined in nodes.items()}
    merged = [
        Edge(
            joined_key(head, label, tail),
            made[head],
            made[tail],
            label,
            max(source.score for source in found),
            tuple(sorted(found, key=lambda source: -source.score)),
        )
        for (head, label, tail), found in sources.items()
    ]
    return sorted(merged, key=lambda edge: (-edge.count, -edge.score))


def entity_key(argument: EntityMention, by: str = "text") -> str:
    """What a mention is joined by: its knowledge base id, else its normalised text (and its type)."""
    if argument.kb_id:
        return f"id:{_part(argument.kb_id)}"
    text = _part(normalise(argument.text))
    return f"typed:{_part(argument.type)}:{text}" if by == "type" else f"text:{text}"


def joined_key(head: str, label: str, tail: str) -> str:
    """Key of a joined edge between two entity keys: the same in every export that has it."""
    return f"{head} | {_part(label)} | {tail}"


def normalise(text: str) -> str:
    """A text without differences of case, width and white space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def _part(text: str) -> str:
    """A part of a key: only what holds keys together is quoted, so that other text stays readable."""
    return _JOINTS.sub(lambda found: quote(found[0], safe=""), text)
