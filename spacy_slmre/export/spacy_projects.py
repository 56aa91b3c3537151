"""Relations in the formats of other spaCy projects, in both directions.

- spacy-llm: `doc._.rel` is a list of `RelationItem`s, which refer to entities by their index.
- spaCy's tutorial component `rel_component`: `doc._.rel` is a dict `{(head start, tail start): {label: score}}` with
  token offsets.

Both refer to entities in `doc.ents`, so they cannot represent relations between other mentions.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import spacy
from spacy.tokens import Doc, DocBin

from spacy_slmre.documents import UNTYPED, DocumentError, RelationDocument
from spacy_slmre.relations import PAIRS, RELATIONS, Relation, relations_of, user_data_key
from spacy_slmre.util.extras import require_extra

if TYPE_CHECKING:
    from spacy_llm.tasks.rel.items import RelationItem

_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID")

OVERLAPPING_RELATION = "relation of an overlapping entity"
"""Reason of rejects."""

Rel = dict[tuple[int, int], dict[str, float]]
RejectWriter = Callable[[str, str, str], None]
"""Takes the id of a document, and reason and details of something in it that a format cannot represent."""


def to_relation_items(doc: Doc, attr: str = RELATIONS) -> list[RelationItem]:
    """Convert `doc._.<attr>` to spacy-llm's `doc._.rel`, which has no scores.

    Raises:
        MissingExtraError: spacy-llm is not installed.
    """
    with require_extra("llm", "to_relation_items"):
        from spacy_llm.tasks.rel.items import RelationItem

    index = {(ent.start, ent.end): number for number, ent in enumerate(doc.ents)}
    return [
        RelationItem(
            dep=index[rel.head.start, rel.head.end], dest=index[rel.tail.start, rel.tail.end], relation=rel.label
        )
        for rel in _between_entities(doc, attr)
    ]


def from_relation_items(doc: Doc, items: Iterable[RelationItem]) -> list[Relation]:
    """Convert spacy-llm's relations to ours, which can be assigned to `doc._.relations`.

    Raises DocumentError if an item refers to a missing entity.
    """
    relations = []
    for item in items:
        if not (0 <= item.dep < len(doc.ents) and 0 <= item.dest < len(doc.ents)):
            raise DocumentError(
                f"The relation {item!r} refers to a missing entity: the document has {len(doc.ents)} entities, counted "
                "from 0."
            )
        relations.append(Relation(doc.ents[item.dep], doc.ents[item.dest], item.relation))
    return relations


def to_rel(doc: Doc, labels: Sequence[str] = (), attr: str = RELATIONS) -> Rel:
    """Convert `doc._.<attr>` to the `doc._.rel` of spaCy's tutorial.

    The tutorial is trained on all pairs of entities. If `labels` are given, all pairs get a score for each of them,
    0.0 if there is no relation; otherwise only existing relations are included.
    """
    return _make_rel(doc, _between_entities(doc, attr), labels)


def _make_rel(doc: Doc, relations: Iterable[Relation], labels: Sequence[str] = ()) -> Rel:
    rel: Rel = {}
    if labels:
        pairs = [(head.start, tail.start) for head in doc.ents for tail in doc.ents]
        rel = {pair: dict.fromkeys(labels, 0.0) for pair in pairs if pair[0] != pair[1]}
    for relation in relations:
        scores = rel.setdefault((relation.head.start, relation.tail.start), {})
        scores[relation.label] = max(relation.score, scores.get(relation.label, 0.0))
    return rel


def write_relation_items(path: Path, documents: Iterable[RelationDocument]) -> None:
    """Write one JSON line per document with `text`, `ents` and `relations`, like spacy-llm's examples."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            # Unlike in a Doc, entities may overlap here, so heads and tails can be added.
            ordered = [mention.key for mention in document.mentions]
            index = {key: number for number, key in enumerate(ordered)}
            ents = [{"start_char": start, "end_char": end, "label": label} for start, end, label in ordered]
            relations = [
                {"dep": index[rel.head.key], "dest": index[rel.tail.key], "relation": rel.label}
                for rel in document.relations
            ]
            entry = {"id": document.id, "text": document.text, "ents": ents, "relations": relations}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_relation_items(path: str | Path) -> Iterator[RelationDocument]:
    """Read documents from JSON lines with `text`, `ents` and `relations`; scores are 1.

    Raises DocumentError if a line is malformed.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            source = f"{path}:{number}"
            try:
                entry = json.loads(line)
                ents = [
                    {"start": ent["start_char"], "end": ent["end_char"], "type": ent["label"]} for ent in entry["ents"]
                ]
                if any(rel[side] < 0 for rel in entry["relations"] for side in ("dep", "dest")):
                    raise IndexError("entities are counted from 0")
                relations = [
                    {"head": ents[rel["dep"]], "tail": ents[rel["dest"]], "label": rel["relation"]}
                    for rel in entry["relations"]
                ]
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise DocumentError(f"{source}: expected spacy-llm's text, ents and relations ({error!r}).") from error
            document = {"id": entry.get("id", source), "text": entry["text"], "entities": ents, "relations": relations}
            yield RelationDocument.from_dict(document, source)


def write_rel(path: Path, documents: Iterable[RelationDocument], lang: str, reject: RejectWriter) -> None:
    """Write a `.spacy` file whose documents have the tutorial's `doc._.rel`; all of it is held in memory.

    Documents are tokenized in the language `lang`, with tokens split at entity boundaries. Entities that overlap longer
    ones, and their relations, are rejected.
    """
    install_rel()
    nlp = spacy.blank(lang)
    docs = DocBin(attrs=_ATTRS, store_user_data=True)
    for document in documents:
        doc = document.to_doc(nlp)
        doc._.rel = _make_rel(doc, without_overlaps(document, doc, reject))
        # Readers of the tutorial's format do not know our attributes.
        for name in (RELATIONS, PAIRS):
            doc.user_data.pop(user_data_key(name), None)
        doc.spans.clear()
        docs.add(doc)
    docs.to_disk(path)


def install_rel() -> None:
    """Register `doc._.rel` like spaCy's tutorial, unless it is registered."""
    if not Doc.has_extension("rel"):
        Doc.set_extension("rel", default={})


def _between_entities(doc: Doc, attr: str) -> list[Relation]:
    kept, skipped = _split_relations(doc, attr)
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(kept) + len(skipped)} relations were skipped: this format only "
            "has relations between entities in doc.ents.",
            stacklevel=3,
        )
    return kept


def without_overlaps(document: RelationDocument, doc: Doc, reject: RejectWriter) -> list[Relation]:
    """Return the relations between entities in `doc.ents`, and reject all others and the entities that are not there.

    Args:
        document: The document.
        doc: The result of `document.to_doc`.
        reject: Called with the document's id, the reason and details.
    """
    labels = {(ent.start_char, ent.end_char): ent.label_ for ent in doc.ents}
    for mention in document.mentions:
        label = labels.get((mention.start, mention.end))
        if label is None or mention.type not in ("", UNTYPED, label):
            detail = f"{mention.text!r} [{mention.start}:{mention.end}] {mention.type}".rstrip()
            reject(document.id, "entity that overlaps another one", detail)
    kept, others = _split_relations(doc)
    for relation in others:
        detail = f"{relation.head.text!r} – {relation.label} – {relation.tail.text!r}"
        reject(document.id, OVERLAPPING_RELATION, detail)
    return kept


def _split_relations(doc: Doc, attr: str = RELATIONS) -> tuple[list[Relation], list[Relation]]:
    """Return the relations between entities in `doc.ents`, and all others."""
    ents = {(ent.start, ent.end) for ent in doc.ents}
    kept: list[Relation] = []
    skipped: list[Relation] = []
    for relation in relations_of(doc, attr):
        known = all((side.start, side.end) in ents for side in (relation.head, relation.tail))
        (kept if known else skipped).append(relation)
    return kept, skipped
