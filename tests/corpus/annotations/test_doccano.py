from __future__ import annotations

import json

import pytest

from spacy_slmre.corpus.sources import CorpusError
from tests.corpus.annotations.conftest import entities

ROW = {
    "id": 12,
    "text": "😀 Ann lives in Oslo.",
    "entities": [
        {"id": 70, "label": "PER", "start_offset": 2, "end_offset": 5},
        {"id": 71, "label": "LOC", "start_offset": 15, "end_offset": 19},
    ],
    "relations": [{"id": 5, "from_id": 70, "to_id": 71, "type": "lives in"}],
    "Comments": [],
}
EMPTY = {"id": 13, "text": "Nothing here.", "entities": [], "relations": [], "Comments": []}


@pytest.fixture
def export(write, converted):
    return lambda *rows: converted(write("admin.jsonl", "\n".join(map(json.dumps, rows))))


def test_entities_and_relations_are_read(export):
    found = export(EMPTY, ROW)
    assert found.format == "doccano" and not found.rejects
    assert [doc.user_data["slmre.id"] for doc in found.docs] == ["13", "12"]
    assert entities(found.docs[1]) == [("Ann", "PER"), ("Oslo", "LOC")]
    assert found.relations(1) == [("Ann", "lives in", "Oslo")]


def test_whatever_is_dropped_is_counted_by_reason(export):
    more = [
        {"id": 72, "label": "LOC", "start_offset": 15, "end_offset": 99},
        {"id": 74, "label": "LOC", "start_offset": 0, "end_offset": 1},
        {"id": 74, "label": "LOC", "start_offset": 6, "end_offset": 11},
        {"id": 73, "label": "X", "start_offset": 5, "end_offset": 6},
        {"id": 75, "label": ["X"], "start_offset": 6, "end_offset": 11},
    ]
    ends = [(70, 72, "x"), (70, 71, None), (70, 74, "x")]
    relations = [{"from_id": head, "to_id": tail, "type": label} for head, tail, label in ends]
    row = ROW | {"entities": ROW["entities"] + more, "relations": ROW["relations"] + relations}
    found = export(row, {**ROW, "text": None})
    assert found.rejects == {
        "invalid entity": 3,
        "repeated id": 1,
        "relation of a rejected entity": 2,
        "relation without a label": 1,
        "malformed record": 1,
    }
    assert found.relations() == [("Ann", "lives in", "Oslo")]


def test_labels_that_mean_no_relation_are_counted(export):
    relation = {"id": 5, "from_id": 70, "to_id": 71, "type": "no_relation"}
    found = export(ROW | {"relations": [relation]})
    assert found.relations() == [] and found.rejects == {"label that means no relation": 1}


def test_a_malformed_record_is_an_error_with_its_line_if_there_is_no_other(export):
    relation = {"id": 5, "to_id": 71, "type": "lives in"}
    with pytest.raises(CorpusError, match=r"admin\.jsonl:1: malformed record: KeyError: 'from_id'"):
        export(ROW | {"relations": [relation]})
