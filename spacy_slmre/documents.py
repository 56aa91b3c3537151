"""The JSON form of a document with entities and relations, used by all of this package.

    {"id": "a.txt", "text": "Ann lives in Rome.", "sentences": [[0, 18]],
     "entities": [{"start": 0, "end": 3, "text": "Ann", "type": "PERSON"}, …],
     "relations": [{"head": {…}, "tail": {…}, "label": "residence", "score": 0.91}],
     "report": {…}, "model": "en_pipeline 1.0.0 slm_relations"}

Offsets are in characters. An entity linked to a knowledge base also has "kb_id". A document that failed in extraction
is {"id": …, "error": …}. In gold data, "pairs" may list annotated pairs with their labels, including the negative one.

Optional fields tell which relations are the same fact (coreference clusters, and symmetric or inverse labels), which
ones exclude each other, and the IRIs of labels:

     "clusters": [{"name": "Ann", "mentions": [[0, 3], [20, 23]]}],
     "inverse_of": {"spouse": "spouse", "child": "parent"},
     "limits": {"place of birth": {"max_per_head": 1, "directions": 1}},
     "iris": {"spouse": "https://schema.org/spouse"}
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from spacy_slmre.coreference import (
    MENTIONS,
    MentionCluster,
    find_clusters,
    mention_id,
    mentions_of,
    normalize_id,
    write_clusters,
)
from spacy_slmre.gold import annotates_pairs
from spacy_slmre.instances import Mention
from spacy_slmre.relations import (
    PAIRS,
    RELATIONS,
    Relation,
    install_extensions,
    inverses_of,
    iris_of,
    limits_of,
    relations_of,
    report_of,
    write_label_properties,
    write_report,
)
from spacy_slmre.util.json_files import is_int

ID = "slmre.id"
"""Key in `doc.user_data` of the document's id."""
MODEL = "slmre.model"
"""Key in `doc.user_data` of the name of the pipeline that found the relations."""
UNTYPED = "ENTITY"
"""Label of entities without a type in their source: spaCy requires one."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class DocumentError(ValueError):
    """A document with relations has the wrong form or cannot be read."""


@dataclass(frozen=True, slots=True)
class EntityMention:
    """An entity mention in a text, with character offsets.

    Attributes:
        type: Entity type, or "".
        kb_id: Id in a knowledge base, or else the id that an entity ruler gave (`ent_id_`), or "". Wikidata IRIs are
            shortened to the id (Q220).
    """

    start: int
    end: int
    text: str
    type: str = ""
    kb_id: str = ""

    @classmethod
    def from_span(cls, span: Span) -> EntityMention:
        """Convert a span."""
        return cls(span.start_char, span.end_char, span.text, span.label_, mention_id(span))

    @property
    def key(self) -> tuple[int, int, str]:
        """Start, end and type, which identify the mention in its document."""
        return self.start, self.end, self.type

    def to_dict(self) -> dict[str, Any]:
        """Return the mention as plain data; `kb_id` is omitted if it is empty."""
        data = {"start": self.start, "end": self.end, "text": self.text, "type": self.type}
        return {**data, "kb_id": self.kb_id} if self.kb_id else data


@dataclass(frozen=True, slots=True)
class DocumentRelation:
    """A relation between two mentions of a document."""

    head: EntityMention
    tail: EntityMention
    label: str
    score: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the relation as plain data, with the score rounded to six digits."""
        sides = {"head": self.head.to_dict(), "tail": self.tail.to_dict()}
        return {**sides, "label": self.label, "score": round(self.score, 6)}


@dataclass(frozen=True)
class RelationDocument:
    """A text with its entities and relations, independent of spaCy objects.

    Attributes:
        entities: The entities in text order.
        relations: The relations, best first.
        sentences: Start and end of each sentence, or None if unknown.
        report: What the extraction considered and skipped, or None.
        model: The pipeline that found the relations, or "".
        error: Why extraction failed, or None; a failed document has no text.
        pairs: All annotated pairs of a gold document with their labels, or None.
        clusters: Coreference clusters; their mentions need not be entities.
        inverse_of: The symmetric and inverse labels of the relations, see `LabelSchema.inverse_of`.
        iris: The IRIs of the labels of the relations and of their inverses, as far as there are any.
        limits: How often their labels may hold, see `LabelSchema.limits`; none in gold documents.
    """

    id: str
    text: str
    entities: tuple[EntityMention, ...] = ()
    relations: tuple[DocumentRelation, ...] = ()
    sentences: tuple[tuple[int, int], ...] | None = None
    report: Mapping[str, Any] | None = None
    model: str = ""
    error: str | None = None
    pairs: tuple[DocumentRelation, ...] | None = None
    clusters: tuple[MentionCluster, ...] = ()
    inverse_of: Mapping[str, str] = field(default_factory=dict)
    iris: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def from_doc(cls, doc: Doc, id: str | None = None, attr: str = RELATIONS) -> RelationDocument:
        """Convert a Doc with relations in `doc._.<attr>`; `id` is used if `doc.user_data` has none."""
        entities = tuple(map(EntityMention.from_span, mentions_of(doc)))
        with_id = {entity.key: entity for entity in entities if entity.kb_id}

        def mention(span: Span) -> EntityMention:
            found = EntityMention.from_span(span)
            return with_id.get(found.key, found)

        def convert(relation: Relation) -> DocumentRelation:
            return DocumentRelation(mention(relation.head), mention(relation.tail), relation.label, relation.score)

        sentences = None
        if doc.has_annotation("SENT_START"):
            sentences = tuple((sent.start_char, sent.end_char) for sent in doc.sents)
        relations = tuple(map(convert, relations_of(doc, attr)))
        labels = {relation.label for relation in relations}
        inverse_of = {one: other for one, other in inverses_of(doc, attr).items() if labels & {one, other}}
        labels |= {*inverse_of, *inverse_of.values()}
        return cls(
            id=str(doc.user_data.get(ID) or id or "doc"),
            text=doc.text,
            entities=entities,
            relations=relations,
            sentences=sentences,
            report=report_of(doc, attr),
            model=str(doc.user_data.get(MODEL) or ""),
            pairs=tuple(map(convert, relations_of(doc, PAIRS))) if annotates_pairs(doc.user_data) else None,
            clusters=find_clusters(doc),
            inverse_of=inverse_of,
            iris={label: iri for label, iri in iris_of(doc, attr).items() if label in labels},
            limits={label: rules for label, rules in limits_of(doc, attr).items() if label in labels},
        )

    @property
    def mentions(self) -> list[EntityMention]:
        """All entities, and heads and tails of relations, in text order, each once."""
        sides = (side for relation in self.relations for side in (relation.head, relation.tail))
        # Only entities surely have their id.
        by_key = {mention.key: mention for mention in (*sides, *self.entities)}
        return [by_key[key] for key in sorted(by_key)]

    def to_doc(self, nlp: Language) -> Doc:
        """Make a Doc with entities, sentences, `doc._.relations` and, in gold data, `doc._.relation_pairs`.

        Raises:
            DocumentError: The document failed in extraction.
        """
        if self.error is not None:
            raise DocumentError(f'The document "{self.id}" failed in extraction: {self.error}')
        install_extensions()
        sides = [side for rel in (*self.relations, *(self.pairs or ())) for side in (rel.head, rel.tail)]
        doc, spans = doc_with_mentions(nlp, self.text, [*self.entities, *sides], sentences=self.sentences)
        set_provenance(doc, self.id, self.model)
        for attr, relations in ((RELATIONS, self.relations), (PAIRS, self.pairs)):
            if relations is not None:
                views = [Relation(spans[r.head.key], spans[r.tail.key], r.label, r.score) for r in relations]
                setattr(doc._, attr, views)
        if self.report is not None:
            write_report(doc, self.report)
        write_clusters(doc, self.clusters)
        write_label_properties(doc, self.inverse_of, self.iris, self.limits)
        return doc

    @classmethod
    def from_dict(cls, data: Any, source: str = "document") -> RelationDocument:
        """Read the JSON form.

        Args:
            data: The parsed JSON.
            source: File and line for error messages, and the id of a document that has none.

        Raises:
            DocumentError: The data is malformed.
        """
        if isinstance(data, Mapping) and isinstance(data.get("error"), str):
            return cls(_read_id(data, source), "", error=replace_surrogates(data["error"]))
        if not isinstance(data, Mapping) or not isinstance(data.get("text"), str):
            raise DocumentError(
                f'{source}: expected a JSON object with "text" and "relations", as written by '
                "`python -m spacy slmre extract`."
            )
        text = data["text"]
        try:
            entities = sorted(
                (_read_mention(entry, text) for entry in _read_list(data, "entities")), key=attrgetter("key")
            )
            # Heads and tails get the kb_id of the matching entity.
            kb_ids = {entity.key: entity.kb_id for entity in entities}
            relations = tuple(
                _read_relation(entry, text, kb_ids) for entry in _read_list(data, "relations", required=True)
            )
            pairs = tuple(_read_relation(entry, text, kb_ids) for entry in _read_list(data, "pairs"))
            sentences = [_read_bounds("sentence", bounds, text) for bounds in _read_list(data, "sentences")]
            return cls(
                id=_read_id(data, source),
                text=replace_surrogates(text),
                entities=tuple(entities),
                relations=relations,
                sentences=tuple(sorted(sentences)) or None,
                report=None if data.get("report") is None else _read_object(data, "report"),
                model=replace_surrogates(str(data.get("model") or "")),
                pairs=None if data.get("pairs") is None else pairs,
                clusters=tuple(_read_cluster(entry, text) for entry in _read_list(data, "clusters")),
                inverse_of=_read_texts(data, "inverse_of"),
                iris=_read_texts(data, "iris"),
                limits=_read_limits(data),
            )
        except KeyError as error:
            raise DocumentError(f"{source}: the field {error} is missing.") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise DocumentError(f"{source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        if self.error is not None:
            return {"id": self.id, "error": self.error}
        data = {
            "id": self.id,
            "text": self.text,
            "sentences": [list(bounds) for bounds in self.sentences or ()],
            "entities": [entity.to_dict() for entity in self.entities],
            "relations": [relation.to_dict() for relation in self.relations],
            "report": self.report,
            "model": self.model or None,
        }
        if self.pairs is not None:
            data["pairs"] = [pair.to_dict() for pair in self.pairs]
        clusters = [cluster.to_dict() for cluster in self.clusters]
        optional = {"clusters": clusters, "inverse_of": dict(self.inverse_of), "iris": dict(self.iris)}
        optional["limits"] = {label: dict(rules) for label, rules in self.limits.items()}
        return data | {name: value for name, value in optional.items() if value}

    @cached_property
    def sentence_bounds(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each sentence; if these are unknown, the text is split at punctuation."""
        if self.sentences is not None:
            return self.sentences
        return tuple((sent.start_char, sent.end_char) for sent in _sentencizer()(self.text).sents)

    def sentence_of(self, relation: DocumentRelation) -> tuple[int, int]:
        """Return start and end of a relation's sentence, or of all sentences from its head to its tail."""
        first = min(relation.head.start, relation.tail.start)
        last = max(relation.head.end, relation.tail.end)
        starts, bounds = self._sentence_starts, self.sentence_bounds
        if not starts:
            return first, last
        begin, end = (max(bisect_right(starts, place) - 1, 0) for place in (first, last - 1))
        return min(bounds[begin][0], first), max(bounds[end][1], last)

    @cached_property
    def _sentence_starts(self) -> list[int]:
        return [start for start, _ in self.sentence_bounds]


def set_provenance(doc: Doc, id: str, model: str) -> None:
    """Store the name of the pipeline that found a document's relations, and an id unless the document has one."""
    doc.user_data.setdefault(ID, id)
    if model:
        doc.user_data[MODEL] = model


def doc_with_mentions(
    nlp: Language,
    text: str,
    mentions: Iterable[EntityMention | Mention],
    words: Sequence[str] | None = None,
    sentences: Iterable[tuple[int, int]] | None = None,
) -> tuple[Doc, dict[tuple[int, int, str], Span]]:
    """Make a Doc with entities, and return it with the spans of all mentions by (start, end, type).

    Of overlapping mentions, `doc.ents` contains the longest, and `doc.spans[MENTIONS]` all. A mention without a type is
    one with a type if both have the same offsets.

    Args:
        nlp: Provides vocabulary and tokenizer.
        text: The text.
        mentions: Non-empty mentions.
        words: The source's own tokens, if it has any; joined by single spaces, they must equal the text.
        sentences: Start and end of each sentence, if they are known.
    """
    by_key = {(mention.start, mention.end, mention.type): mention for mention in mentions}
    doc = tokenize(nlp, text, by_key.values(), words)
    if sentences is not None:
        # A sentence may begin with a space, which is no token.
        offsets = [token.idx for token in doc]
        starts = {bisect_left(offsets, start) for start, _ in sentences}
        for token in doc:
            token.is_sent_start = token.i in starts
    types = {key[:2]: key[2] for key in sorted(by_key, reverse=True) if key[2] not in ("", UNTYPED)}
    typed = {
        key: key if key[2] not in ("", UNTYPED) else (*key[:2], types.get(key[:2], UNTYPED)) for key in sorted(by_key)
    }
    kb_ids = {typed[key]: kb_id for key, mention in by_key.items() if (kb_id := getattr(mention, "kb_id", ""))}
    spans: dict[tuple[int, int, str], Span] = {}
    for key in sorted(set(typed.values())):
        span = doc.char_span(*key, kb_id=kb_ids.get(key, ""))
        assert span is not None, "tokens are split at mention boundaries"
        spans[key] = span
    entities = filter_spans(spans.values())
    doc.set_ents(entities)
    if len(entities) < len(spans):
        doc.spans[MENTIONS] = list(spans.values())
    return doc, {key: spans[name] for key, name in typed.items()}


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can contain but UTF-8 cannot, by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def tokenize(
    nlp: Language, text: str, mentions: Iterable[EntityMention | Mention], words: Sequence[str] | None = None
) -> Doc:
    """Make a Doc, splitting tokens at mention boundaries; see `doc_with_mentions` for the arguments."""
    doc = nlp.tokenizer(text)  # without the limit of `nlp.max_length`, which is for parsers
    if words is not None:
        doc = Doc(nlp.vocab, list(words), [True] * (len(words) - 1) + [False])
    mentions = list(mentions)
    if all(doc.char_span(mention.start, mention.end) is not None for mention in mentions):
        return doc
    edges = {edge for mention in mentions for edge in (mention.start, mention.end)}
    pieces: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        end = token.idx + len(token)
        cuts = [token.idx, *sorted(edge for edge in edges if token.idx < edge < end), end]
        pieces += [text[first:last] for first, last in pairwise(cuts)]
        spaces += [False] * (len(cuts) - 2) + [bool(token.whitespace_)]
    return Doc(nlp.vocab, pieces, spaces)


def _read_id(data: Mapping[str, Any], source: str) -> str:
    id = data.get("id")
    return replace_surrogates(source if id is None else str(id))


def _read_list(data: Mapping[str, Any], key: str, *, required: bool = False) -> list[Any]:
    values = data[key] if required else data.get(key)
    if values is None and not required:
        return []
    if not isinstance(values, list | tuple):
        raise ValueError(f'"{key}" must be a list, not {values!r:.80}.')
    return list(values)


def _read_object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    values = data.get(key)
    if not isinstance(values, Mapping | None):
        raise ValueError(f'"{key}" must be an object, not {values!r:.80}.')
    return values or {}


def _read_mention(data: Any, text: str) -> EntityMention:
    if not isinstance(data, Mapping):
        raise ValueError(f'an entity must be an object with "start" and "end", not {data!r:.80}.')
    start, end = _read_offsets("entity", data["start"], data["end"], text=text)
    covered = text[start:end]
    if data.get("text", covered) != covered:
        raise ValueError(f'an entity has the text "{data["text"]}", but text[{start}:{end}] is "{covered}".')
    kb_id = normalize_id(replace_surrogates(str(data.get("kb_id") or "")))
    return EntityMention(
        start, end, replace_surrogates(covered), replace_surrogates(str(data.get("type") or "")), kb_id
    )


def _read_relation(data: Any, text: str, kb_ids: Mapping[tuple[int, int, str], str]) -> DocumentRelation:
    if not isinstance(data, Mapping):
        raise ValueError(f'a relation must be an object with "head", "tail" and "label", not {data!r:.80}.')
    label, score = data["label"], data.get("score", 1.0)
    if not isinstance(label, str) or not label:
        raise ValueError(f"the label of a relation must be a non-empty string, not {label!r}.")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"the score of a relation must be a number, not {score!r}.")
    sides = (_read_mention(data[side], text) for side in ("head", "tail"))
    head, tail = (side if side.kb_id else replace(side, kb_id=kb_ids.get(side.key, "")) for side in sides)
    return DocumentRelation(head, tail, replace_surrogates(label), float(score))


def _read_cluster(data: Any, text: str) -> MentionCluster:
    if not isinstance(data, Mapping):
        raise ValueError(f'a cluster must be an object with "mentions", not {data!r:.80}.')
    mentions = sorted(_read_bounds("mention", bounds, text) for bounds in _read_list(data, "mentions", required=True))
    return MentionCluster(tuple(mentions), replace_surrogates(str(data.get("name") or "")))


def _read_texts(data: Mapping[str, Any], key: str) -> dict[str, str]:
    values = _read_object(data, key)
    if not all(isinstance(text, str) for pair in values.items() for text in pair):
        raise ValueError(f'"{key}" must map labels to texts, not {values!r}.')
    return dict(values)


def _read_limits(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    values = _read_object(data, "limits")
    rules = [_read_object(values, label) for label in values]
    if not all(is_int(number) and number > 0 for rule in rules for number in rule.values()):
        raise ValueError(f'"limits" must map labels to positive numbers by rule, not {values!r}.')
    return {label: dict(rule) for label, rule in zip(values, rules, strict=True)}


def _read_bounds(what: str, bounds: Any, text: str) -> tuple[int, int]:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(f"a {what} must be a list of start and end, not {bounds!r:.80}.")
    return _read_offsets(what, *bounds, text=text)


def _read_offsets(what: str, start: Any, end: Any, *, text: str) -> tuple[int, int]:
    if not (is_int(start) and is_int(end) and 0 <= start < end <= len(text)):
        raise ValueError(f"{what} offsets {start!r} to {end!r} are invalid in a text of {len(text)} characters.")
    return start, end


@cache
def _sentencizer() -> Language:
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    nlp.max_length = 10**9  # the limit is for parsers; a sentencizer needs little memory
    return nlp
