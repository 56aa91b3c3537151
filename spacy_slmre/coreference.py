"""Entity mentions, their ids, and their coreference clusters as found by other components.

Clusters are read from spacy-experimental (`doc.spans["coref_clusters_1"]`, … or, where spans are not resolved,
`doc.spans["coref_head_clusters_1"]`, …), coreferee (`doc._.coref_chains`) and
fastcoref (`doc._.coref_clusters`); if several are present, from the first in this order.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.pipeline import EntityLinker
from spacy.tokens import Doc, Span, SpanGroup

MENTIONS = "relation_mentions"
"""`doc.spans["relation_mentions"]`: all mentions, set if some overlap, which `doc.ents` cannot represent."""
CLUSTERS = "coref_clusters"
"""`doc.spans["coref_clusters_1"]` and so on: the mentions of the same entity, named as in spaCy's own component."""

_KEY = re.compile(rf"{CLUSTERS}_\d+")
_HEAD_KEY = re.compile(r"coref_head_clusters_\d+")
_WIKIDATA = re.compile(r"https?://www\.wikidata\.org/(?:entity|wiki)/(Q[1-9]\d*)")
_NAME = "name"
_Found = tuple[list[Span], str | None]  # the members, and their name if it is known


@dataclass(frozen=True, slots=True)
class MentionCluster:
    """Mentions of the same entity.

    Attributes:
        mentions: Start and end of each mention in characters, in text order. If a longer mention ("Ann Lee, the
            mayor,") contains an entity of the document, the entity is the mention.
        name: The longest name of the entity in the document, the first of equally long ones, or "" if there are only
            pronouns and descriptions.
    """

    mentions: tuple[tuple[int, int], ...]
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the cluster as plain data."""
        return {"name": self.name, "mentions": [list(bounds) for bounds in self.mentions]}


def mentions_of(doc: Doc) -> list[Span]:
    """Return the entity mentions of a document, overlapping ones included."""
    return list(doc.spans.get(MENTIONS) or doc.ents)


def mention_id(span: Span) -> str:
    """Return the id that an entity linker (`kb_id_`) or else an entity ruler (`ent_id_`) gave to a mention, or ""."""
    return normalize_id(span.kb_id_) or normalize_id(span.id_)


def normalize_id(kb_id: str) -> str:
    """Shorten IRIs of Wikidata to the id, and turn the id of an unknown entity into ""."""
    if wikidata := _WIKIDATA.fullmatch(kb_id):
        return wikidata[1]
    return "" if kb_id == EntityLinker.NIL else kb_id


def find_clusters(doc: Doc) -> tuple[MentionCluster, ...]:
    """Return the coreference clusters of a document, in text order; a mention is in the first of its clusters only."""
    sources = (_read_spans(doc, _KEY), _read_spans(doc, _HEAD_KEY), _read_chains(doc), _read_offsets(doc))
    found = next(filter(None, map(list, sources)), [])
    if not found:
        return ()
    entities = _Entities(doc)
    taken: set[tuple[int, int]] = set()
    clusters = []
    for members, name in found:
        resolved = [entities.find(member) or member for member in members]
        spans = {(span.start_char, span.end_char): span for span in resolved}
        spans = {bounds: spans[bounds] for bounds in sorted(spans) if bounds not in taken}
        taken |= spans.keys()
        if spans:
            name = choose_name(spans.values(), entities.spans) if name is None else name
            clusters.append(MentionCluster(tuple(spans), name))
    return tuple(sorted(clusters, key=lambda cluster: cluster.mentions))


def referring_mentions(doc: Doc, clusters: Iterable[MentionCluster]) -> Iterator[Span]:
    """Yield the pronouns and descriptions in clusters that refer to an entity, with the entity's type."""
    entities = {(span.start_char, span.end_char): span.label_ for span in mentions_of(doc)}
    for cluster in clusters:
        types = Counter(entities[bounds] for bounds in cluster.mentions if bounds in entities)
        for bounds in cluster.mentions if types else ():
            span = None if bounds in entities else _char_span(doc, *bounds)
            if span is not None:
                yield Span(doc, span.start, span.end, label=types.most_common(1)[0][0])


def write_clusters(doc: Doc, clusters: Sequence[MentionCluster]) -> None:
    """Store clusters in `doc.spans["coref_clusters_1"]` and so on, replacing existing ones."""
    for key in filter(_KEY.fullmatch, list(doc.spans)):
        del doc.spans[key]
    for number, cluster in enumerate(clusters, 1):
        spans = [span for bounds in cluster.mentions if (span := _char_span(doc, *bounds)) is not None]
        key = f"{CLUSTERS}_{number}"
        doc.spans[key] = SpanGroup(doc, name=key, attrs={_NAME: cluster.name}, spans=spans)


def shift_clusters(doc: Doc, offset: int, length: int) -> list[MentionCluster]:
    """Return the clusters of a document with shifted mentions, without those outside of a text of this length."""
    shifted = []
    for cluster in find_clusters(doc):
        mentions = tuple((start + offset, end + offset) for start, end in cluster.mentions)
        if inside := tuple((start, end) for start, end in mentions if start >= 0 and end <= length):
            shifted.append(MentionCluster(inside, cluster.name))
    return shifted


def _read_spans(doc: Doc, pattern: re.Pattern[str]) -> Iterator[_Found]:
    for key, group in doc.spans.items():
        if pattern.fullmatch(key):
            name = group.attrs.get(_NAME)
            yield list(group), name if isinstance(name, str) else None


def _read_chains(doc: Doc) -> Iterator[_Found]:
    """Read coreferee's chains, whose mentions are head tokens; several tokens ("Ann and Bo") are not one entity."""
    chains = doc._.coref_chains if Doc.has_extension("coref_chains") else None
    for chain in chains or ():
        heads = [mention.token_indexes[0] for mention in chain if len(mention.token_indexes) == 1]
        yield [doc[head : head + 1] for head in heads], None


def _read_offsets(doc: Doc) -> Iterator[_Found]:
    """Read fastcoref's clusters, which are character offsets."""
    clusters = doc._.coref_clusters if Doc.has_extension(CLUSTERS) else None
    for cluster in clusters or ():
        yield [span for bounds in cluster if (span := _char_span(doc, *bounds)) is not None], None


def _char_span(doc: Doc, start: int, end: int) -> Span | None:
    return doc.char_span(start, end, alignment_mode="expand")


class _Entities:
    """The entity mentions of a document, found by the members of clusters."""

    def __init__(self, doc: Doc) -> None:
        self.spans = mentions_of(doc)
        self._by_bounds = {_bounds(span): span for span in reversed(self.spans)}
        self._by_start = sorted(self.spans)
        self._starts = [span.start for span in self._by_start]
        self._by_head: dict[int, Span] = {}  # the longest
        self._has_heads = doc.has_annotation("DEP")
        for span in sorted(self.spans, key=len) if self._has_heads else ():
            if (head := _head(span)) is not None:
                self._by_head[head] = span

    def find(self, member: Span) -> Span | None:
        """Return the entity that a member is: the same span, or the longest one with its head or its words.

        "Ann Lee, the mayor," is the entity "Ann Lee" by its head, and "the Red Mill's" is "Red Mill" by its words, but
        "Ann and Bo" and "Ann's sister" are not "Ann".
        """
        if (same := self._by_bounds.get(_bounds(member))) is not None:
            return same
        words = {token.i for token in member if not (token.is_stop or token.is_punct or token.is_space)}
        inside = self._by_start[bisect_left(self._starts, member.start) : bisect_left(self._starts, member.end)]
        found = [span for span in inside if span.end <= member.end and words <= {*range(*_bounds(span))}]
        if self._has_heads and (head := _head(member)) in self._by_head:
            found.append(self._by_head[head])
        return max(found, key=len, default=None)


def _head(span: Span) -> int | None:
    """Return the index of a span's head, or None if the span has several heads."""
    root = span.root
    return None if any(token in span for token in root.conjuncts) else root.i


def _bounds(span: Span) -> tuple[int, int]:
    return span.start, span.end


def choose_name(members: Iterable[Span], entities: Sequence[Span]) -> str:
    """Return the longest name among the members of a cluster, an entity if possible; "" if there is none."""
    names = [span for span in members if _is_name(span)]
    bounds = set(map(_bounds, entities))
    # A member that is not an entity may be a long phrase.
    names = [span for span in names if _bounds(span) in bounds] or names[:1]
    return max((span.text for span in names), key=len, default="")


def _is_name(span: Span) -> bool:
    """Return whether a span contains a proper noun; in an untagged document, a word that is capitalized or has no case.

    Capitalized stop words, such as a pronoun at the start of a sentence, are not names.
    """
    if span.doc.has_annotation("POS"):
        return any(token.pos_ in ("PROPN", "NUM") for token in span)
    return any(
        any(map(str.isalnum, token.text))
        and not token.is_lower
        and (not token.is_stop or (token.is_upper and len(token) > 1))
        for token in span
    )
