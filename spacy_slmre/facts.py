"""Facts: relations between entities, derived from relations between mentions.

An entity is what its mentions refer to. Mentions are the same entity

1. if they have the same id: that of an entity linker (`kb_id_`), or else of an entity ruler (`ent_id_`);
2. otherwise, if they are in the same coreference cluster (see `spacy_slmre.coreference`), which has the id or name of
   its mentions;
3. otherwise, if their texts are equal, ignoring case, character width and white space.

So a cluster gives its mentions an id and a name: "she" is "Ann Lee", and thereby the same entity as "Ann Lee" in
another document. A cluster without a name is an entity of its own. Nothing else decides what the same entity is:
`doc._.facts`, merged exports and the graph view all use this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from spacy.tokens import Doc, Span

from spacy_slmre.coreference import MentionCluster, mentions_of
from spacy_slmre.directions import inverse_label, turn_relation
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.relations import RELATIONS, Relation, register, relations_of

FACTS = "facts"
"""`doc._.facts`: the facts that follow from `doc._.relations`, best first."""
LEVELS = ("mentions", "facts")
"""What relations in outputs connect: mentions, or the entities of each document."""
MERGE_BY = ("text", "type")
"""What must be equal in two mentions without an id: their texts, or also their entity types."""

# Characters that separate the parts of a key, and the escape character.
_SEPARATORS = re.compile("[%|:#&]")
MentionT = TypeVar("MentionT")
RelationT = TypeVar("RelationT")
FactT = TypeVar("FactT", bound="Fact[Any, Any]")


@dataclass(frozen=True)
class Entity(Generic[MentionT]):
    """An entity of a document.

    Attributes:
        key: Identifies the entity, in all documents unless it has neither an id nor a name.
        name: The longest name in the document, the first of equally long ones; the first mention if all are pronouns.
        type: The most frequent entity type of its mentions, or "".
        kb_id: Its id in a knowledge base, or "".
        mentions: Its annotated mentions, in text order.
    """

    key: str
    name: str
    type: str
    kb_id: str
    mentions: tuple[MentionT, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the entity as plain data; `kb_id` is omitted if it is empty."""
        data = {"key": self.key, "name": self.name, "type": self.type, "mentions": [*map(_to_dict, self.mentions)]}
        return {**data, "kb_id": self.kb_id} if self.kb_id else data

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Fact(Generic[MentionT, RelationT]):
    """A relation between two entities, with its evidence.

    A symmetric relation is one fact, and so are a relation and its inverse: of inverse labels, a fact has the one that
    the schema lists first. The head of a symmetric fact is the entity whose key comes first.

    Attributes:
        head: The first argument.
        tail: The second argument.
        label: The label.
        score: The combined score of the relations, see `combine_scores`.
        relations: The relations between mentions that state the fact, best first, in the fact's direction; one for each
            pair of mentions.
        sentences: For each relation, the sentence that states it, or the text from its first to its last sentence.
        inverse: The label that holds from tail to head: the same if it is symmetric, "" if there is none.
    """

    head: Entity[MentionT]
    tail: Entity[MentionT]
    label: str
    score: float
    relations: tuple[RelationT, ...]
    sentences: tuple[str, ...]
    inverse: str = ""

    @property
    def symmetric(self) -> bool:
        """Whether the label also holds from tail to head."""
        return self.inverse == self.label

    def to_dict(self) -> dict[str, Any]:
        """Return the fact as plain data, with the score rounded to six digits."""
        return {
            "head": self.head.to_dict(),
            "tail": self.tail.to_dict(),
            "label": self.label,
            "inverse": self.inverse,
            "score": round(self.score, 6),
            "relations": [*map(_to_dict, self.relations)],
            "sentences": list(self.sentences),
        }

    def __str__(self) -> str:
        return f"{self.head} – {self.label} – {self.tail} ({self.score:.2f})"


def combine_scores(scores: Iterable[float]) -> float:
    """Return the score of a fact from those of its relations: the highest one.

    The noisy-or 1 - Π(1 - p) would be the probability that at least one relation holds if these were independent. They
    are not: the same model reads the same names, so its errors repeat, and ten doubtful mentions (0.2) would make a
    fact of 0.89. The maximum never exceeds what one sentence supports, keeps the meaning of a threshold (a fact passes
    if and only if one of its relations does), and does not depend on how often a text repeats itself.
    """
    return max(scores)


def make_facts(document: RelationDocument, by: str = "text") -> list[Fact[EntityMention, DocumentRelation]]:
    """Return the facts of a document, best first.

    An entity has no relation to itself. If a predicted document knows the limits of its labels, a fact that exceeds one
    together with better facts is left out, as it is among the relations of mentions.

    Args:
        document: The document, also one that was read from a file.
        by: "text", or "type" to keep mentions without an id apart if their entity types differ.
    """
    entities = find_entities(document, by)
    groups: dict[tuple[str, str, str], list[DocumentRelation]] = {}
    for relation in distinct_relations(document):
        head, tail = entities[relation.head.key].key, entities[relation.tail.key].key
        key = turn_relation(head, relation.label, tail, document.inverse_of)
        is_turned = key != (head, relation.label, tail)
        groups.setdefault(key, []).append(_turn(relation, key[1]) if is_turned else relation)
    facts = []
    for (_, label, _), group in groups.items():
        relations = sorted(group, key=lambda relation: -relation.score)
        first = relations[0]
        bounds = [document.sentence_of(relation) for relation in relations]
        facts.append(
            Fact(
                entities[first.head.key],
                entities[first.tail.key],
                label,
                combine_scores(relation.score for relation in relations),
                tuple(relations),
                tuple(document.text[start:end] for start, end in bounds),
                inverse_label(label, document.inverse_of),
            )
        )
    return list(_consistent(sorted(facts, key=lambda fact: -fact.score), document.limits))


def _consistent(facts: Iterable[FactT], limits: Mapping[str, Mapping[str, int]]) -> Iterator[FactT]:
    """Yield facts, best first, that do not contradict a better one."""
    stated: set[tuple[str, str, str]] = set()
    number: Counter[tuple[str, str, str]] = Counter()  # by side, entity and label
    for fact in facts:
        head, tail = fact.head.key, fact.tail.key
        # The limits of an inverse label are those of the label, turned.
        rules, turned = limits.get(fact.label, {}), limits.get(fact.inverse, {})
        per_head = rules.get("max_per_head", turned.get("max_per_tail"))
        per_tail = rules.get("max_per_tail", turned.get("max_per_head"))
        counted = []
        for first, second in ((head, tail), (tail, head))[: 1 + fact.symmetric]:
            counted += [(("head", first, fact.label), per_head), (("tail", second, fact.label), per_tail)]
        is_reversed = rules.get("directions") == 1 and (tail, fact.label, head) in stated
        if head == tail or is_reversed or any(limit is not None and number[key] >= limit for key, limit in counted):
            continue
        stated.add((head, fact.label, tail))
        number.update(key for key, _ in counted)
        yield fact


def facts_of(doc: Doc, attr: str = RELATIONS) -> tuple[Fact[Span, Relation], ...]:
    """Return the facts that follow from the relations in `doc._.<attr>`, best first, with spans of the document."""
    relations = relations_of(doc, attr)
    if not relations:
        return ()
    sides = [side for relation in relations for side in (relation.head, relation.tail)]
    spans = {(span.start_char, span.end_char, span.label_): span for span in (*sides, *mentions_of(doc))}

    def with_spans(entity: Entity[EntityMention]) -> Entity[Span]:
        mentions = tuple(spans[mention.key] for mention in entity.mentions)
        return Entity(entity.key, entity.name, entity.type, entity.kb_id, mentions)

    return tuple(
        Fact(
            with_spans(fact.head),
            with_spans(fact.tail),
            fact.label,
            fact.score,
            tuple(Relation(spans[one.head.key], spans[one.tail.key], one.label, one.score) for one in fact.relations),
            fact.sentences,
            fact.inverse,
        )
        for fact in make_facts(RelationDocument.from_doc(doc, attr=attr))
    )


def install_facts() -> None:
    """Register `doc._.facts`, unless another package owns that name: then use `facts_of`."""
    register([(Doc, FACTS, facts_of, None)], strict=False)


def find_entities(document: RelationDocument, by: str = "text") -> dict[tuple[int, int, str], Entity[EntityMention]]:
    """Return the entity of each mention, by `EntityMention.key`; see `make_facts` for the arguments."""
    cluster_of: dict[tuple[int, int], MentionCluster] = {}
    for cluster in document.clusters:
        for bounds in cluster.mentions:
            cluster_of.setdefault(bounds, cluster)
    members: dict[MentionCluster | None, list[EntityMention]] = {}
    for mention in document.mentions:
        members.setdefault(cluster_of.get((mention.start, mention.end)), []).append(mention)

    # The mentions of each entity with their names, by its key and id.
    grouped: dict[tuple[str, str], list[tuple[EntityMention, str]]] = {}
    for one, of_cluster in members.items():
        cluster_id = most_frequent(Counter(mention.kb_id for mention in of_cluster)) if one else ""
        cluster_type = most_frequent(Counter(mention.type for mention in of_cluster))
        for mention in of_cluster:
            name, type_, kb_id = mention.text, mention.type, mention.kb_id or cluster_id
            # A mention whose id differs from that of its cluster is a different entity.
            if one is not None and kb_id == cluster_id:
                name, type_ = one.name, cluster_type
            if kb_id or name or one is None:
                key = entity_key(kb_id, name, type_ if by == "type" else None)
            else:
                key = f"mention:{escape_key(document.id)}#char={one.mentions[0][0]},{one.mentions[0][1]}"
            grouped.setdefault((key, kb_id), []).append((mention, name))

    entities: dict[tuple[int, int, str], Entity[EntityMention]] = {}
    for (key, kb_id), pairs in grouped.items():
        pairs.sort(key=lambda pair: pair[0].key)
        of_entity = tuple(mention for mention, _ in pairs)
        name = max((name for _, name in pairs), key=lambda name: len(normalize(name))) or of_entity[0].text
        entity = Entity(key, name, most_frequent(Counter(mention.type for mention in of_entity)), kb_id, of_entity)
        entities |= {mention.key: entity for mention in of_entity}
    return entities


class EntityKeys(dict[tuple[int, int], str]):
    """The key of the entity of each mention, by its character offsets; a span that is no mention has a key of its own.

    See `entity_keys`.
    """

    def __missing__(self, bounds: tuple[int, int]) -> str:
        return f"mention:{bounds}"


def entity_keys(doc: Doc) -> EntityKeys:
    """Return the keys of the entities of a gold document, which say which of its mentions are the same entity."""
    found = find_entities(RelationDocument.from_doc(doc))
    return EntityKeys({(start, end): entity.key for (start, end, _), entity in found.items()})


def distinct_relations(document: RelationDocument) -> list[DocumentRelation]:
    """Return the relations that are counted: one for both directions of a symmetric label, and for inverse labels.

    Of several equal relations, the one with the highest score is kept.
    """
    kept: dict[Hashable, DocumentRelation] = {}
    for relation in document.relations:
        key = turn_relation(relation.head.key, relation.label, relation.tail.key, document.inverse_of)
        if key not in kept or relation.score > kept[key].score:
            is_turned = key != (relation.head.key, relation.label, relation.tail.key)
            kept[key] = _turn(relation, key[1]) if is_turned else relation
    return list(kept.values())


def entity_key(kb_id: str, name: str, type: str | None = None) -> str:
    """Return the key of an entity: its id, or otherwise its normalized name (and type, unless that is None)."""
    if kb_id:
        return f"id:{escape_key(kb_id)}"
    text = escape_key(normalize(name))
    return f"text:{text}" if type is None else f"typed:{escape_key(type)}:{text}"


def normalize(text: str) -> str:
    """Normalize case, character width and white space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def escape_key(text: str) -> str:
    """Escape the characters that separate the parts of a key."""
    return _SEPARATORS.sub(lambda found: quote(found[0], safe=""), text)


def _turn(relation: DocumentRelation, label: str) -> DocumentRelation:
    return replace(relation, head=relation.tail, tail=relation.head, label=label)


def _to_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Relation):
        return dict(value)
    return (EntityMention.from_span(value) if isinstance(value, Span) else value).to_dict()


def most_frequent(counts: Counter[str]) -> str:
    """Return the most frequent value that is not empty, the first of equally frequent ones; "" if there is none."""
    return next((value for value, _ in counts.most_common() if value), "")
