"""Gold annotation: which pairs of a document are positive, negative or unknown.

A document that annotates *pairs* (`doc._.relation_pairs`) says nothing about any other pair: these are unknown, and
neither learned nor counted. A document that annotates *relations* (`doc._.relations`, possibly none) makes every other
candidate pair negative, unless a label of the other direction implies one: "A spouse B" also makes (B, A) positive if
"spouse" is symmetric. `no_relation` is always negative, also if a schema calls its negative label something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.candidates import CandidateGenerator, EntityPairs
from spacy_slmre.directions import turn_relation
from spacy_slmre.relations import PAIRS, RELATIONS, Relation, relations_of, user_data_key
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema

PairKey = tuple[int, int, int, int]
"""Head start, head end, tail start and tail end in characters."""


@dataclass(frozen=True)
class GoldPairs:
    """What a gold document says about its pairs.

    Attributes:
        doc: The document.
        rows: The annotated pairs with their labels, negative ones included, as annotated: a row may occur twice.
        is_complete: Whether all other pairs are negative; otherwise they are unknown.
        mirrors: Labels that imply another one in the other direction, see `LabelSchema.mirrors`.
    """

    doc: Doc
    rows: Sequence[Relation]
    is_complete: bool
    mirrors: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def labels(self) -> dict[PairKey, list[str]]:
        """The distinct labels of each pair that has any: annotated ones, and those that the other direction implies."""
        labels: dict[PairKey, dict[str, None]] = {}
        for row in self.rows:
            labels.setdefault(pair_key(row.head, row.tail), {})[row.label] = None
        for row in self.rows:
            opposite = pair_key(row.tail, row.head)
            if row.label in self.mirrors and (self.is_complete or opposite in labels):
                labels.setdefault(opposite, {})[self.mirrors[row.label]] = None
        return {key: list(of_pair) for key, of_pair in labels.items()}

    @property
    def is_annotated(self) -> bool:
        """Whether relations or pairs were assigned, possibly none; otherwise all pairs are unknown."""
        return self.is_complete or annotates_pairs(self.doc.user_data)

    def is_known(self, key: PairKey) -> bool:
        """Return whether a pair is positive or negative, not unknown."""
        return self.is_complete or key in self.labels

    def labels_of(self, key: PairKey, negative_label: str | None) -> list[str]:
        """Return the labels of a pair: the negative one if it has no other, none if they are unknown."""
        if negative_label is None:
            return self.labels.get(key, [])
        positive = [label for label in self.labels.get(key, ()) if label not in (negative_label, NEGATIVE_LABEL)]
        return positive or ([negative_label] if self.is_known(key) else [])

    def positives(self, negative_label: str | None) -> set[tuple[PairKey, str]]:
        """Return the relations: pairs with a label other than the negative one."""
        negatives = (negative_label, NEGATIVE_LABEL)
        return {(key, label) for key, of_pair in self.labels.items() for label in of_pair if label not in negatives}

    def unknown_labels(self, schema: LabelSchema) -> set[str]:
        """Return the annotated labels that a schema does not have."""
        negative = set() if schema.negative_label is None else {NEGATIVE_LABEL}
        return {row.label for row in self.rows} - {*schema.names} - negative

    def known_pairs(
        self, candidates: CandidateGenerator | None = None, schema: LabelSchema | None = None
    ) -> dict[PairKey, tuple[Span, Span]]:
        """Return the annotated pairs and, where these are negative, all other candidate pairs, in this order.

        By default, candidates are those of `EntityPairs` for any entity types.
        """
        pairs = {pair_key(row.head, row.tail): (row.head, row.tail) for row in self.rows}
        if self.is_complete:
            for pair in (candidates or EntityPairs(clusters=False))(self.doc, schema).pairs:
                pairs.setdefault(pair_key(*pair), pair)
        return pairs


def gold_pairs(doc: Doc, attr: str = RELATIONS, mirrors: Mapping[str, str] | None = None) -> GoldPairs:
    """Read the gold annotation of a document; with the `mirrors` of a schema, also what the other direction implies.

    Relations are read from `doc._.<attr>` if there are none in `doc._.relations`. If neither attribute has been set,
    the pairs of the document are unknown; an empty list means that it has no relations.
    """
    if annotates_pairs(doc.user_data):
        return GoldPairs(doc, relations_of(doc, PAIRS), False, mirrors or {})
    is_annotated = annotates_relations(doc.user_data) or annotates_relations(doc.user_data, attr)
    rows = relations_of(doc, RELATIONS) or relations_of(doc, attr)
    return GoldPairs(doc, rows, is_annotated, mirrors or {})


def annotates_pairs(user_data: Mapping[Any, Any]) -> bool:
    """Return whether a gold document with this `doc.user_data` annotates pairs, so that all others are unknown."""
    return user_data_key(PAIRS) in user_data


def annotates_relations(user_data: Mapping[Any, Any], attr: str = RELATIONS) -> bool:
    """Return whether `doc._.<attr>` of a document with this `doc.user_data` was assigned, even without relations."""
    return user_data_key(attr) in user_data


def count_rows(user_data: Mapping[Any, Any]) -> int | None:
    """Return the number of annotated pairs, or None if the document annotates relations: other pairs are known, too."""
    return len(user_data[user_data_key(PAIRS)]) if annotates_pairs(user_data) else None


def turn_pair(key: PairKey, label: str, inverse_of: Mapping[str, str]) -> tuple[PairKey, str]:
    """Return a labeled pair as it is counted, see `turn_relation`."""
    head, turned, tail = turn_relation(key[:2], label, key[2:], inverse_of)
    return (*head, *tail), turned


def directions_of(key: PairKey, label: str, inverse_of: Mapping[str, str]) -> tuple[PairKey, ...]:
    """Return the pairs that can have the label or, in the other direction, its inverse."""
    has_inverse = label in inverse_of or label in inverse_of.values()
    return (key, reverse_key(key)) if has_inverse else (key,)


def reverse_key(key: PairKey) -> PairKey:
    """Return the key of a pair in the other direction."""
    return (*key[2:], *key[:2])


def pair_key(head: Span, tail: Span) -> PairKey:
    """Return the key of a pair: its character offsets."""
    return head.start_char, head.end_char, tail.start_char, tail.end_char
