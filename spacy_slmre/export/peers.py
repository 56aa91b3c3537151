"""Relations as other spaCy projects keep them, in both directions.

- spacy-llm: `doc._.rel` is a list of `RelationItem`s, which count the entities of the document.
- spaCy's tutorial `rel_component`: `doc._.rel` is a dict `{(start of head, start of tail): {label: score}}`,
  in tokens.

Both name arguments by the entities of the document: they cannot say a relation whose argument is not in
`doc.ents`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import spacy
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.export.edges import ExportError
from spacy_slmre.relations import RELATIONS, Relation, relations_of

if TYPE_CHECKING:
    from spacy_llm.tasks.rel.items import RelationItem

_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID")

Rel = dict[tuple[int, int], dict[str, float]]


def to_relation_items(doc: Doc, attr: str = RELATIONS) -> list[RelationItem]:
    """The relations of a document as spacy-llm has them in `doc._.rel`; scores are lost."""
    from spacy_llm.tasks.rel.items import RelationItem

    index = {(ent.start, ent.end): number for number, ent in enumerate(doc.ents)}
    return [
        RelationItem(dep=index[_ends(one.head)], dest=index[_ends(one.tail)], relation=one.label)
        for one in _sayable(doc, index, attr)
    ]


def from_relation_items(doc: Doc, items: Iterable[RelationItem]) -> list[Relation]:
    """Relations of spacy-llm as ours, to be assigned to `doc._.relations`.

    Raises:
        ExportError: An item counts further than the document has entities.
    """
    relations = []
    for item in items:
        if not (0 <= item.dep < len(doc.ents) and 0 <= item.dest < len(doc.ents)):
            raise ExportError(
                f"The relation {item!r} names an entity that is not there: the document has {len(doc.ents)}, "
                "counted from 0."
            )
        relations.append(Relation(doc.ents[item.dep], doc.ents[item.dest], item.relation))
    return relations


def to_rel(doc: Doc, labels: Sequence[str] = (), attr: str = RELATIONS) -> Rel:
    """The relations of a document as spaCy's tutorial has them in `doc._.rel`.

    Args:
        doc: The document.
        labels: Labels that each pair of different entities gets, with 0.0 where the relation was not found:
            what the tutorial trains on. Without them there are only the pairs and labels that were found.
        attr: Where the relations lie: `doc._.<attr>`.
    """
    rel: Rel = {}
    if labels:
        pairs = ((head.start, tail.start) for head in doc.ents for tail in doc.ents if head is not tail)
        rel = {pair: dict.fromkeys(labels, 0.0) for pair in pairs if pair[0] != pair[1]}
    known = {(ent.start, ent.end) for ent in doc.ents}
    for one in _sayable(doc, known, attr):
        scores = rel.setdefault((one.head.start, one.tail.start), {})
        scores[one.label] = max(one.score, scores.get(one.label, 0.0))
    return rel


def from_rel(
    doc: Doc, rel: Mapping[tuple[int, int], Mapping[str, float]], threshold: float = 0.5
) -> list[Relation]:
    """Relations of spaCy's tutorial as ours, to be assigned to `doc._.relations`.

    Args:
        doc: The document.
        rel: Scores of labels by the first tokens of head and tail.
        threshold: A label with a lower score is no relation.

    Raises:
        ExportError: No entity begins at one of the tokens.
    """
    starts = {ent.start: ent for ent in doc.ents}
    relations = []
    for pair, scores in rel.items():
        for label, score in scores.items():
            if score < threshold:
                continue
            if not all(start in starts for start in pair):
                raise ExportError(
                    f"doc._.rel has the pair {pair}, but no entity begins at one of these tokens."
                )
            relations.append(Relation(starts[pair[0]], starts[pair[1]], label, float(score)))
    return relations


def write_items(path: Path, documents: Iterable[RelationDocument]) -> None:
    """One JSON line a document: `text`, `ents` and `relations`, as spacy-llm's examples have them."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            # Unlike a Doc, such a line can have entities that overlap: arguments are added to them.
            spans = {_place(ent): ent for ent in document.entities}
            for relation in document.relations:
                spans |= {_place(side): side for side in (relation.head, relation.tail)}
            ordered = sorted(spans)
            index = {place: number for number, place in enumerate(ordered)}
            entry = {
                "id": document.id,
                "text": document.text,
                "ents": [
                    {"start_char": start, "end_char": end, "label": label} for start, end, label in ordered
                ],
                "relations": [
                    {"dep": index[_place(one.head)], "dest": index[_place(one.tail)], "relation": one.label}
                    for one in document.relations
                ],
            }
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_items(path: str | Path) -> Iterator[RelationDocument]:
    """Documents from lines of `text`, `ents` and `relations`; every relation has the score 1.

    Raises:
        ExportError: A line has another form.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            try:
                entry = json.loads(line)
                text = entry["text"]
                ents = [
                    EntityMention(
                        ent["start_char"],
                        ent["end_char"],
                        text[ent["start_char"] : ent["end_char"]],
                        ent["label"],
                    )
                    for ent in entry["ents"]
                ]
                if any(one[side] < 0 for one in entry["relations"] for side in ("dep", "dest")):
                    raise IndexError("entities are counted from 0")
                relations = [
                    DocumentRelation(ents[one["dep"]], ents[one["dest"]], one["relation"])
                    for one in entry["relations"]
                ]
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise ExportError(
                    f"{path}:{number}: no line with text, ents and relations of spacy-llm ({error!r})."
                ) from error
            yield RelationDocument(entry.get("id", f"{path}:{number}"), text, tuple(ents), tuple(relations))


def write_rel(path: Path, documents: Iterable[RelationDocument], lang: str = "xx") -> int:
    """A `.spacy` file whose documents have the tutorial's `doc._.rel`; it is held in memory whole.

    Args:
        path: The file.
        documents: The documents.
        lang: Language of the tokenizer. Where the bounds of an entity run through a token, it is cut.

    Returns:
        How many relations were left out, since another entity overlaps with one of their arguments.
    """
    install_rel()
    nlp = spacy.blank(lang)
    docs = DocBin(attrs=_ATTRS, store_user_data=True)
    left_out = 0
    for document in documents:
        doc = document.to_doc(nlp)
        doc.spans.clear()
        sayable, _ = _divide(doc, {_ends(ent) for ent in doc.ents}, RELATIONS)
        left_out += len(document.relations) - len(sayable)
        doc._.relations = sayable
        doc._.rel = to_rel(doc)
        doc._.relations = []  # the tutorial's readers know nothing of ours
        docs.add(doc)
    docs.to_disk(path)
    return left_out


def install_rel() -> None:
    """Register `doc._.rel`, as spaCy's tutorial does, where nobody has."""
    if not Doc.has_extension("rel"):
        Doc.set_extension("rel", default={})


def _sayable(doc: Doc, known: Iterable[tuple[int, int]], attr: str) -> list[Relation]:
    kept, count = _divide(doc, set(known), attr)
    if len(kept) < count:
        warnings.warn(
            f"{count - len(kept)} of {count} relations are left out: their arguments are "
            "not in doc.ents, by which this format names them.",
            stacklevel=3,
        )
    return kept


def _divide(doc: Doc, known: set[tuple[int, int]], attr: str) -> tuple[list[Relation], int]:
    """The relations whose arguments are known, and how many there are of all."""
    relations = relations_of(doc, attr)
    return [one for one in relations if _ends(one.head) in known and _ends(one.tail) in known], len(relations)


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _place(argument: EntityMention) -> tuple[int, int, str]:
    return argument.start, argument.end, argument.type
