"""The format "json": our own JSON form, as `slmre extract` writes it; see `spacy_slmre.documents`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Pair, Record, Reject, parse_rows
from spacy_slmre.corpus.rejects import FAILED
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.documents import EntityMention, RelationDocument
from spacy_slmre.instances import Mention


def read_json_form(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read documents; those with `pairs` annotate pairs, all others relations.

    Relations of pairs that are not in `pairs` are annotated pairs as well.

    Args:
        source: A .jsonl file, or a .json file with a list.
        split: The split, used in the identifiers of documents without one.
    """
    return parse_rows(read_json(source), _parse, split, lambda row: [row.get("id")])


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    document = RelationDocument.from_dict({**row, "id": id}, f"document {id}")
    if document.error is not None:
        yield Reject(line, document.id, FAILED, document.error)
        return
    if document.pairs is not None:
        listed = {(pair.head.key, pair.tail.key) for pair in document.pairs}
        others = (one for one in document.relations if (one.head.key, one.tail.key) not in listed)
        document = replace(document, pairs=(*document.pairs, *others))
    yield record_of(document, line)


def record_of(document: RelationDocument, line: int) -> Record:
    """Convert a document that did not fail."""
    pairs = document.relations if document.pairs is None else document.pairs
    return Record(
        document.id,
        line,
        document.text,
        tuple(dict.fromkeys(Pair(_mention(pair.head), _mention(pair.tail), pair.label) for pair in pairs)),
        document.entities,
        complete=document.pairs is None,
        sentences=document.sentences,
        clusters=tuple(tuple(Mention(*bounds, "") for bounds in cluster.mentions) for cluster in document.clusters),
        inverse_of=document.inverse_of,
        iris=document.iris,
        predicted_by=document.model if document.pairs is None else "",
    )


def _mention(mention: EntityMention) -> Mention:
    return Mention(mention.start, mention.end, mention.type)


def _is_document(row: dict[str, Any]) -> bool:
    if isinstance(row.get("error"), str):  # a document that failed in extraction
        return "id" in row
    entities, relations = row.get("entities", []), row.get("relations")
    return (
        isinstance(row.get("text"), str)
        and isinstance(relations, list)
        and isinstance(entities, list)
        and ("entities" in row or bool(relations))
        and all(isinstance(one, dict) and {"start", "end"} <= one.keys() for one in entities)
        and all(isinstance(one, dict) and isinstance(one.get("head"), dict) for one in relations)
    )


JSON_FORM = CorpusFormat(
    name="json",
    title="spacy-slmre's JSON form",
    read=read_json_form,
    recognize=lambda sample: sample.share(_is_document),
)
