"""Malformed records do not keep a source from being recognized, and are reported with their line and their own id."""

from __future__ import annotations

import json

import pytest

from spacy_slmre.corpus.conversion import convert, read_annotations
from spacy_slmre.corpus.formats import guess_format
from spacy_slmre.corpus.sources import CorpusError

TEXT = "Ann of Oslo"
SIDES = {"head": {"start": 0, "end": 3}, "tail": {"start": 7, "end": 11}}
TOKENS = [
    {"text": word, "start": start, "end": start + len(word), "id": number}
    for number, (word, start) in enumerate([("Ann", 0), ("of", 4), ("Oslo", 7)])
]
SPANS = [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 11, "label": "LOC"}]
# By format: a record, what is missing in a malformed one, and its id.
RECORDS = {
    "json": (
        {"id": "own", "text": TEXT, "entities": list(SIDES.values()), "relations": [{**SIDES, "label": "in"}]},
        {"relations": None},
        "own",
    ),
    "doccano": (
        {
            "id": 7,
            "text": TEXT,
            "entities": [
                {"id": n, "start_offset": one["start"], "end_offset": one["end"]} for n, one in enumerate(SPANS)
            ],
            "relations": [{"from_id": 0, "to_id": 1, "type": "in"}],
        },
        {"entities": [{"id": 0, "start_offset": 0}]},
        "7",
    ),
    "prodigy": (
        {
            "text": TEXT,
            "meta": {"id": "own"},
            "tokens": TOKENS,
            "spans": SPANS,
            "relations": [{"head": 0, "child": 2, "label": "in"}],
        },
        {"relations": None},
        "own",
    ),
    "label_studio": (
        {
            "id": 7,
            "data": {"id": "own", "text": TEXT},
            "annotations": [{"result": [{"id": "a", "type": "labels", "value": {**SPANS[0], "labels": ["PER"]}}]}],
        },
        {"data": None},
        "7",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_malformed_record_is_rejected(name, place, write, tmp_path):
    record, change, id = RECORDS[name]
    rows = [record, record]
    rows.insert(place, record | change)
    source = write("own.jsonl", "\n".join(map(json.dumps, rows)))
    format = guess_format(source)
    assert format.name == name
    rejects = tmp_path / "rejects.jsonl"
    summary = convert(format, source, tmp_path / "own.spacy", split="train", rejects=rejects)
    assert summary["documents"] == 2 and summary["rejects"] == {"malformed record": 1}
    (listed,) = map(json.loads, rejects.read_text().splitlines())
    assert (listed["file"], listed["line"], listed["id"]) == (str(source), place + 1, id)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_line_that_is_no_object_is_an_error_with_its_number(name, line, write, nlp):
    record = json.dumps(RECORDS[name][0])
    for lines, number in (([line, record], 1), ([record, record, line], 3)):
        source = write("own.jsonl", "\n".join(lines))
        with pytest.raises(CorpusError, match=rf"own\.jsonl:{number}: "):
            list(read_annotations(source, nlp, "train"))


@pytest.mark.parametrize("place", [0, 2])
def test_a_row_without_a_column_is_an_error_with_its_number(place, write, nlp):
    row = {"text": TEXT, "entity1": "Ann", "entity2": "Oslo", "relation": "in"}
    rows = [row, row]
    rows.insert(place, {name: value for name, value in row.items() if name != "entity2"})
    source = write("own.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(CorpusError, match=rf"own\.jsonl:{place + 1}: missing columns: entity2"):
        list(read_annotations(source, nlp, "train"))


def test_a_source_is_in_the_format_of_most_records(write):
    row = {"text": TEXT, "relations": []}
    # Records without entities could be of either form.
    entities = [[{"id": 0, "start_offset": 0, "end_offset": 3}], [], []]
    source = write("own.jsonl", "\n".join(json.dumps(row | {"entities": one}) for one in entities))
    assert guess_format(source).name == "doccano"
    source = write("own.jsonl", json.dumps({"id": "a", "error": "too long"}))
    assert guess_format(source).name == "json"
