"""Candidate generators: choose the ordered pairs of a document to score, and count why others are skipped."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from spacy.tokens import Doc, Span

from spacy_slmre.coreference import find_clusters, mention_id, referring_mentions
from spacy_slmre.relations import CANDIDATES
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.settings import check_minimum, check_types


@dataclass
class Candidates:
    """The pairs that a candidate generator proposes.

    Attributes:
        pairs: Ordered (head, tail) pairs.
        considered: Number of ordered pairs in the document.
        skipped: Number of skipped pairs by reason.
        typed: Whether a pair may only have labels that the schema allows for its entity types.
    """

    pairs: list[tuple[Span, Span]]
    considered: int
    skipped: Counter[str] = field(default_factory=Counter)
    typed: bool = True


@runtime_checkable
class CandidateGenerator(Protocol):
    """Proposes pairs of a document, given a schema with type constraints, or None for no constraints."""

    def __call__(self, doc: Doc, schema: LabelSchema | None) -> Candidates:
        """Return the candidate pairs of a document."""


@dataclass(frozen=True, kw_only=True)
class EntityPairs:
    """Ordered pairs of entities that are close to each other; `spacy-slmre.EntityPairs.v1` in configs.

    Skipped pairs are counted as "sentence", "distance", "type" (no label of the schema allows the two entity types),
    "same_span" (two annotations of the same tokens), "same_entity" (two mentions with the same id, or of one
    coreference cluster) and "cap".

    Attributes:
        spans_key: Take the entities from `doc.spans[spans_key]`, which may overlap, instead of `doc.ents`.
        max_sentences: Both arguments must be within this many consecutive sentences; 1 means the same sentence. A
            document without sentence boundaries counts as one sentence.
        max_distance: Maximum number of tokens between the arguments; None means no limit.
        max_pairs: Maximum number of pairs per document; the closest are kept. None means no limit.
        clusters: Also take pronouns and descriptions that refer to an entity, if a component before has found
            coreference clusters. They have the entity's type.

    Raises:
        ValueError: A limit is out of range.
    """

    spans_key: str | None = None
    max_sentences: int = 1
    max_distance: int | None = None
    max_pairs: int | None = 10_000
    clusters: bool = True

    def __post_init__(self) -> None:
        check_types(self, "candidates")
        check_minimum(self, "candidates", max_sentences=1, max_distance=0, max_pairs=1)

    def __call__(self, doc: Doc, schema: LabelSchema | None) -> Candidates:
        """Return the candidate pairs of a document."""
        clusters = find_clusters(doc) if self.clusters else ()
        cluster_of = {bounds: number for number, one in enumerate(clusters) for bounds in one.mentions}
        found = [*self._spans(doc), *(referring_mentions(doc, clusters) if self.spans_key is None else ())]
        spans = sorted(found, key=lambda span: (span.start_char, span.end_char, span.label_))
        candidates = Candidates([], len(spans) * (len(spans) - 1))
        types = [schema.map_type(span.label_) if schema else "" for span in spans]
        identities = [(mention_id(span), cluster_of.get((span.start_char, span.end_char))) for span in spans]
        n_close = 0
        for i, j in self._close(doc, spans):
            n_close += 2
            left, right = spans[i], spans[j]
            if (left.start, left.end) == (right.start, right.end):
                candidates.skipped["same_span"] += 2
            elif _are_same(identities[i], identities[j]):
                candidates.skipped["same_entity"] += 2
            elif self.max_distance is not None and right.start - left.end > self.max_distance:
                candidates.skipped["distance"] += 2
            else:
                for head, tail in ((i, j), (j, i)):
                    if schema is None or schema.allows_any(types[head], types[tail]):
                        candidates.pairs.append((spans[head], spans[tail]))
                    else:
                        candidates.skipped["type"] += 1
        if n_far := candidates.considered - n_close:
            candidates.skipped["sentence"] = n_far
        if self.max_pairs is not None and len(candidates.pairs) > self.max_pairs:
            candidates.skipped["cap"] = len(candidates.pairs) - self.max_pairs
            closest = sorted(range(len(candidates.pairs)), key=lambda n: _distance(*candidates.pairs[n]))
            candidates.pairs = [candidates.pairs[n] for n in sorted(closest[: self.max_pairs])]
        return candidates

    def _spans(self, doc: Doc) -> Sequence[Span]:
        if self.spans_key is None:
            return doc.ents
        if self.spans_key not in doc.spans:
            return ()
        return [span for span in doc.spans[self.spans_key] if len(span)]

    def _close(self, doc: Doc, spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
        """Yield the indices of unordered pairs within `max_sentences`."""
        starts = [sent.start for sent in doc.sents] if doc.has_annotation("SENT_START") else [0]
        first = [bisect.bisect_right(starts, span.start) for span in spans]
        last = [bisect.bisect_right(starts, span.end - 1) for span in spans]
        for i in range(len(spans)):
            for j in range(i + 1, len(spans)):
                if first[j] - first[i] >= self.max_sentences:
                    break  # spans are in text order, so all later ones are farther away
                if max(last[i], last[j]) - first[i] < self.max_sentences:
                    yield i, j


class GivenPairs:
    """The pairs in `doc._.relation_candidates`; `spacy-slmre.GivenPairs.v1` in configs.

    Use it to label known pairs, such as those of a gold corpus: there are no limits and no type constraints. A pair
    that is given twice counts once.
    """

    def __call__(self, doc: Doc, schema: LabelSchema | None) -> Candidates:
        """Return the candidate pairs of a document."""
        pairs = list(dict.fromkeys(getattr(doc._, CANDIDATES)))
        return Candidates(pairs, len(pairs), typed=False)


def _are_same(one: tuple[str, int | None], other: tuple[str, int | None]) -> bool:
    """Return whether two mentions, given by id and cluster, are the same entity; different ids are different entities.

    Equal names do not suffice here, unlike in `spacy_slmre.facts`: father and son may have the same.
    """
    if one[0] and other[0]:
        return one[0] == other[0]
    return one[1] is not None and one[1] == other[1]


def _distance(head: Span, tail: Span) -> int:
    return max(head.start, tail.start) - min(head.end, tail.end)
