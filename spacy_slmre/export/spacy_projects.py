"""Relations in the formats of other spaCy projects, in both directions.

- spacy-llm: `doc._.rel` is a list of `RelationItem`s, which refer to entities by their index.
- spaCy's tutorial component `rel_component`: `doc._.rel` is a dict `{(head start, tail start): {label:
score}}`,
  with offsets in tokens.

Both refer to entities in `doc.ents`, so they cannot hold relations between other mentions.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import spacy
from spacy.tokens import Doc, DocBin

from spacy_slmre.documents import DocumentError, DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.relations import RELATIONS, Relation, relations_of

if TYPE_CHECKING:
    from spacy_llm.tasks.rel.items import RelationItem

_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID")

Rel = dict[tuple[int, int], dict[str, float]]


def to_relation_items(doc: Doc, attr: str = RELATIONS) -> list[RelationItem]:
    """Convert `doc._.<attr>` to spacy-llm's `doc._.rel`; scores are lost."""
    from spacy_llm.tasks.rel.items import RelationItem

    index = {(ent.start, ent.end): number for number, ent in enumerate(doc.ents)}
    return [
        RelationItem(
            dep=index[one.head.start, one.head.end], dest=index[one.tail.start, one.tail.end], relation=one.label
        )
        for one in _between_entities(doc, attr)
    ]


def from_relation_items(doc: Doc, items: Iterable[RelationItem]) -> list[Relation]:
    """Convert spacy-llm's relations to ours, which can be assigned to `doc._.relations`.

    Raises:
        DocumentError: An item refers to an entity that the document does not have.
    """
    relations = []
    for item in items:
        if not (0 <= item.dep < len(doc.ents) and 0 <= item.dest < len(doc.ents)):
            raise DocumentError(
                f"The relation {item!r} refers to a missing entity: the document has {len(doc.ents)}, counted from 0."
            )
        relations.append(Relation(doc.ents[item.dep], doc.ents[item.dest], item.relation))
    return relations


def to_rel(doc: Doc, labels: Sequence[str] = (), attr: str = RELATIONS) -> Rel:
    """Convert `doc._.<attr>` to the `doc._.rel` of spaCy's tutorial.

    Args:
        doc: The document.
        labels: The tutorial is trained on all pairs of entities: each pair gets these labels, with 0.0 where
            the relation was not found. If empty, only the relations that were found are listed.
        attr: The relations are read from `doc._.<attr>`.
    """
    rel: Rel = {}
    if labels:
        pairs = [(head.start, tail.start) for head in doc.ents for tail in doc.ents]
        rel = {pair: dict.fromkeys(labels, 0.0) for pair in pairs if pair[0] != pair[1]}
    for one in _between_entities(doc, attr):
        scores = rel.setdefault((one.head.start, one.tail.start), {})
        scores[one.label] = max(one.score, scores.get(one.label, 0.0))
    return rel


def from_rel(doc: Doc, rel: Mapping[tuple[int, int], Mapping[str, float]], threshold: float = 0.5) -> list[Relation]:
    """Convert relations of spaCy's tutorial to ours, which can be assigned to `doc._.relations`.

    Args:
        doc: The document.
        rel: Scores of labels, by the first tokens of head and tail.
        threshold: Labels with a lower score are skipped.

    Raises:
        DocumentError: No entity begins at one of the tokens.
    """
    starts = {ent.start: ent for ent in doc.ents}
    relations = []
    for pair, scores in rel.items():
        for label, score in scores.items():
            if score < threshold:
                continue
            if not all(start in starts for start in pair):
                raise DocumentError(f"doc._.rel has the pair {pair}, but no entity begins at one of these tokens.")
            relations.append(Relation(starts[pair[0]], starts[pair[1]], label, float(score)))
    return relations


def write_items(path: Path, documents: Iterable[RelationDocument]) -> None:
    """Write one JSON line per document with `text`, `ents` and `relations`, like spacy-llm's examples."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            # Unlike in a Doc, entities can overlap here, so heads and tails are simply added.
            sides = (side for one in document.relations for side in (one.head, one.tail))
            ordered = sorted({mention.key for mention in (*document.entities, *sides)})
            index = {key: number for number, key in enumerate(ordered)}
            ents = [{"start_char": start, "end_char": end, "label": label} for start, end, label in ordered]
            relations = [
                {"dep": index[one.head.key], "dest": index[one.tail.key], "relation": one.label}
                for one in document.relations
            ]
            entry = {"id": document.id, "text": document.text, "ents": ents, "relations": relations}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_items(path: str | Path) -> Iterator[RelationDocument]:
    """Read documents from lines with `text`, `ents` and `relations`; every relation gets the score 1.

    Raises:
        DocumentError: A line has another form.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            try:
                entry = json.loads(line)
                text, ents = entry["text"], []
                for ent in entry["ents"]:
                    start, end = ent["start_char"], ent["end_char"]
                    ents.append(EntityMention(start, end, text[start:end], ent["label"]))
                if any(one[side] < 0 for one in entry["relations"] for side in ("dep", "dest")):
                    raise IndexError("entities are counted from 0")
                relations = [
                    DocumentRelation(ents[one["dep"]], ents[one["dest"]], one["relation"]) for one in entry["relations"]
                ]
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise DocumentError(
                    f"{path}:{number}: expected spacy-llm's text, ents and relations ({error!r})."
                ) from error
            yield RelationDocument(entry.get("id", f"{path}:{number}"), text, tuple(ents), tuple(relations))


def write_rel(path: Path, documents: Iterable[RelationDocument], lang: str = "xx") -> int:
    """Write a `.spacy` file whose documents have the tutorial's `doc._.rel`; it is held in memory.

    Args:
        path: The file.
        documents: The documents.
        lang: Language of the tokenizer. A token that contains an entity boundary is split.

    Returns:
        The number of relations skipped because their head or tail overlaps with another entity.
    """
    install_rel()
    nlp = spacy.blank(lang)
    docs = DocBin(attrs=_ATTRS, store_user_data=True)
    skipped = 0
    for document in documents:
        doc = document.to_doc(nlp)
        kept = _split_relations(doc, RELATIONS)[0]
        skipped += len(document.relations) - len(kept)
        doc._.relations = kept
        doc._.rel = to_rel(doc)
        # The tutorial's readers do not know our attributes.
        doc._.relations = []
        doc.spans.clear()
        docs.add(doc)
    docs.to_disk(path)
    return skipped


def install_rel() -> None:
    """Register `doc._.rel` as spaCy's tutorial does, unless it is registered."""
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


def _split_relations(doc: Doc, attr: str) -> tuple[list[Relation], list[Relation]]:
    """Return the relations between two entities in `doc.ents`, and all others."""
    ents = {(ent.start, ent.end) for ent in doc.ents}
    kept: list[Relation] = []
    skipped: list[Relation] = []
    for one in relations_of(doc, attr):
        known = all((side.start, side.end) in ents for side in (one.head, one.tail))
        (kept if known else skipped).append(one)
    return kept, skipped
