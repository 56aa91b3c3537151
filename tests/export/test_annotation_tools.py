"""Pre-annotations are what the tools expect, and are read back by `slmre convert`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from spacy_slmre.corpus.formats import get_format, guess_format
from spacy_slmre.corpus.records import Record
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.export import export
from tests.relation_documents import documents, make_document

FORMATS = {"label-studio": "label_studio", "prodigy": "prodigy", "doccano": "doccano"}
PAIRS = [(0, 1, "lives in", 0.9), (0, 1, "born in", 0.8), (2, 1, "knows", 0.7)]
DOCUMENT = make_document("a.txt", ["Ann 😀", "Oslo", "Bo"], ["PER", "LOC", "PER"], PAIRS, "model 1")


def rows(path: Path, format: str, docs: object = DOCUMENT) -> list[dict]:
    export(docs, path, format, overwrite=True)  # type: ignore[arg-type]
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if format == "label-studio" else [json.loads(line) for line in text.splitlines()]


def test_label_studio_gets_tasks_with_predictions(tmp_path: Path) -> None:
    (task,) = rows(tmp_path / "tasks.json", "label-studio")
    assert task["data"] == {"id": "a.txt", "text": DOCUMENT.text}
    (prediction,) = task["predictions"]
    regions = [one for one in prediction["result"] if one["type"] == "labels"]
    arrows = [one for one in prediction["result"] if one["type"] == "relation"]
    assert prediction["model_version"] == "model 1"
    assert regions[0] == {
        "id": "entity-0",
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "value": {"start": 5, "end": 10, "text": "Ann 😀", "labels": ["PER"]},
    }
    assert [(one["from_id"], one["to_id"], one["direction"], one["labels"]) for one in arrows] == [
        ("entity-0", "entity-1", "right", ["lives in", "born in"]),
        ("entity-2", "entity-1", "right", ["knows"]),
    ]
    assert rows(tmp_path / "tasks.json", "label-studio", []) == []


def test_prodigy_gets_tokens_spans_and_relations(tmp_path: Path) -> None:
    (row,) = rows(tmp_path / "prodigy.jsonl", "prodigy")
    assert all(row["text"][one["start"] : one["end"]] == one["text"] for one in row["tokens"])
    assert "".join(one["text"] + " " * one["ws"] for one in row["tokens"]) == row["text"] == DOCUMENT.text
    assert [one["id"] for one in row["tokens"]] == list(range(len(row["tokens"])))
    ann = row["spans"][0]
    # The last token of the span, not the one after it.
    assert row["tokens"][ann["token_start"]]["text"] == "Ann" and row["tokens"][ann["token_end"]]["text"] == "😀"
    relation = row["relations"][0]
    assert relation["head"] == ann["token_end"] and relation["head_span"] == ann
    assert row["tokens"][relation["child"]]["text"] == "Oslo" and relation["label"] == "lives in"
    assert row["meta"] == {"id": "a.txt"}


def test_doccano_gets_entities_and_relations(tmp_path: Path) -> None:
    (row,) = rows(tmp_path / "doccano.jsonl", "doccano")
    assert row["text"] == DOCUMENT.text and row["document"] == "a.txt"
    assert row["entities"][1] == {"id": 1, "start_offset": 15, "end_offset": 19, "label": "LOC"}
    assert row["relations"][2] == {"id": 2, "from_id": 2, "to_id": 1, "type": "knows"}


def test_prodigy_cannot_show_relations_of_overlapping_entities(tmp_path: Path) -> None:
    long, short, rome = EntityMention(0, 7, "Ann Lee"), EntityMention(4, 7, "Lee"), EntityMention(11, 15, "Rome")
    relations = (DocumentRelation(long, rome, "in"), DocumentRelation(short, rome, "in"))
    document = RelationDocument("a", "Ann Lee in Rome", (long, short, rome), relations)
    failed = RelationDocument("b", "", error="too long")
    counts = export([document, failed], tmp_path / "out.jsonl", "prodigy", rejects=tmp_path / "rejects.jsonl")
    assert (counts.documents, counts.found, counts.written) == (2, 2, 1)
    listed = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert listed == [
        {"id": "a", "reason": "entity that overlaps another one", "detail": "'Lee' [4:7]"},
        {"id": "a", "reason": "relation of an overlapping entity", "detail": "'Lee' – in – 'Rome'"},
        {"id": "b", "reason": "failed in extraction", "detail": "too long"},
    ]
    assert counts.rejects == {one["reason"]: 1 for one in listed}
    assert not export(document, tmp_path / "doccano.jsonl", "doccano").rejects


def test_prodigy_has_one_entity_at_the_same_offsets(tmp_path: Path) -> None:
    entities = (EntityMention(0, 3, "Ann"), EntityMention(0, 3, "Ann", "PER"), EntityMention(0, 3, "Ann", "ROLE"))
    document = RelationDocument("a", "Ann left.", entities)
    # An entity without a type is the one with a type.
    assert export(document, tmp_path / "out.jsonl", "prodigy").rejects == {"entity that overlaps another one": 1}
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(row["spans"]) == 1


def accept(path: Path, format: str) -> None:
    """Do to a file what the tool does when an annotator accepts everything."""
    if format == "label-studio":
        tasks = json.loads(path.read_text(encoding="utf-8"))
        for number, task in enumerate(tasks):
            task |= {"id": number, "annotations": [{"id": number, "result": task["predictions"][0]["result"]}]}
        path.write_text(json.dumps(tasks), encoding="utf-8")
    else:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        more = {"answer": "accept"} if format == "prodigy" else {"Comments": []}
        path.write_text("\n".join(json.dumps({"id": 1, **line, **more}) for line in lines), encoding="utf-8")


def annotations(items: Sequence[object]) -> list[tuple]:
    found = []
    for record in items:
        assert isinstance(record, Record), record
        pairs = {(one.head.start, one.head.end, one.label, one.tail.start, one.tail.end) for one in record.pairs}
        found.append((record.id, record.text, {(one.start, one.end) for one in record.mentions}, pairs))
    return found


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=15)
@given(docs=documents())
def test_accepted_predictions_are_read_back(
    format: str, docs: list[RelationDocument], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The tools have no entities of white space, and labels without surrounding space.
    docs = [
        replace(one, relations=tuple(replace(rel, label=rel.label.strip() or "x") for rel in one.relations))
        for one in docs
        if all(ent.text.strip() == ent.text for ent in one.entities)
    ]
    path = tmp_path_factory.mktemp("tool") / ("out.json" if format == "label-studio" else "out.jsonl")
    export(docs, path, format)
    accept(path, format)
    if docs:
        assert guess_format(path) is get_format(FORMATS[format])
    items = list(get_format(FORMATS[format]).read(path, "train")) if docs else []
    expected = [
        (
            one.id,
            one.text,
            {(ent.start, ent.end) for ent in one.entities},
            {(rel.head.start, rel.head.end, rel.label, rel.tail.start, rel.tail.end) for rel in one.relations},
        )
        for one in docs
    ]
    assert annotations(items) == expected
