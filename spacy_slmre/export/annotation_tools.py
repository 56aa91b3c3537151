"""Pre-annotations for annotation tools: Label Studio, Prodigy and doccano, in the forms that `slmre convert` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc, Span

from spacy_slmre.corpus.annotations.doccano import DOCUMENT
from spacy_slmre.documents import UNTYPED, RelationDocument
from spacy_slmre.export.spacy_projects import RejectWriter, without_overlaps


def write_label_studio(path: Path, documents: Iterable[RelationDocument]) -> None:
    """Write a JSON list of tasks with predictions.

    The labeling configuration must have a `<Labels name="label" toName="text">` and a `<Text name="text">`. A pair with
    several labels has one arrow.
    """
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        separator = "["
        for document in documents:
            stream.write(separator + "\n" + json.dumps(_task(document), ensure_ascii=False))
            separator = ","
        stream.write("[]\n" if separator == "[" else "\n]\n")


def write_doccano(path: Path, documents: Iterable[RelationDocument]) -> None:
    """Write JSON lines for a project of the type "sequence labeling" with relations."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            numbers = {mention.key: number for number, mention in enumerate(document.mentions)}
            entities = [
                {"id": number, "start_offset": start, "end_offset": end, "label": type or UNTYPED}
                for (start, end, type), number in numbers.items()
            ]
            relations = [
                {
                    "id": number,
                    "from_id": numbers[relation.head.key],
                    "to_id": numbers[relation.tail.key],
                    "type": relation.label,
                }
                for number, relation in enumerate(document.relations)
            ]
            row = {"text": document.text, DOCUMENT: document.id, "entities": entities, "relations": relations}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_prodigy(path: Path, documents: Iterable[RelationDocument], lang: str, reject: RejectWriter) -> None:
    """Write JSON lines for `prodigy rel.manual` or `prodigy mark --view-id relations`.

    Texts are tokenized in the language `lang`, with tokens split at entity boundaries. Entities that overlap longer
    ones, and their relations, are rejected.
    """
    nlp = spacy.blank(lang)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            doc = document.to_doc(nlp)
            row = {
                "text": doc.text,
                "meta": {"id": document.id},
                "tokens": [_token(doc, number) for number in range(len(doc))],
                "spans": [_span(ent) for ent in doc.ents],
                "relations": [
                    {
                        "head": relation.head.end - 1,
                        "child": relation.tail.end - 1,
                        "head_span": _span(relation.head),
                        "child_span": _span(relation.tail),
                        "label": relation.label,
                    }
                    for relation in without_overlaps(document, doc, reject)
                ],
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _task(document: RelationDocument) -> dict[str, Any]:
    ids = {mention.key: f"entity-{number}" for number, mention in enumerate(document.mentions)}
    results: list[dict[str, Any]] = []
    for (start, end, type), id in ids.items():
        value = {"start": start, "end": end, "text": document.text[start:end], "labels": [type or UNTYPED]}
        results.append({"id": id, "from_name": "label", "to_name": "text", "type": "labels", "value": value})
    arrows: dict[tuple[str, str], list[str]] = {}
    for relation in document.relations:
        labels = arrows.setdefault((ids[relation.head.key], ids[relation.tail.key]), [])
        if relation.label not in labels:
            labels.append(relation.label)
    results += [
        {"type": "relation", "from_id": head, "to_id": tail, "direction": "right", "labels": labels}
        for (head, tail), labels in arrows.items()
    ]
    prediction = {"model_version": document.model or "spacy-slmre", "result": results}
    return {"data": {"id": document.id, "text": document.text}, "predictions": [prediction]}


def _token(doc: Doc, number: int) -> dict[str, Any]:
    token = doc[number]
    end = token.idx + len(token)
    return {"text": token.text, "start": token.idx, "end": end, "id": number, "ws": bool(token.whitespace_)}


def _span(span: Span) -> dict[str, Any]:
    return {
        "start": span.start_char,
        "end": span.end_char,
        "token_start": span.start,
        "token_end": span.end - 1,  # the last token
        "label": span.label_,
    }
