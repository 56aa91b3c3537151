from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spacy_slmre.corpus.formats import get_format, guess_format
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.study.benchmarks.card import get_benchmark

CARD = get_benchmark("hub_rows")
TABLE = get_format("table")
ROWS = [
    {"text": "Ann Lee of Oslo met Bo.", "entity1": "Ann Lee", "entity2": "Oslo", "relation": "place lived"},
    {"text": "Ann Lee of Oslo met Bo.", "entity1": "Ann Lee", "entity2": "Bo", "relation": "None"},
    {"text": "Bo was born in Rome.", "entity1": "Bo", "entity2": "Rome", "relation": "place of birth"},
]
POOLED = [
    {
        "prompt": "Label it.\n\nText: Cy is in Bonn.\nEntity 1: Cy\nEntity 2: Bonn\nRelation: x\n\n"
        f'Text: {row["text"]}\nEntity 1: {row["entity1"]}\nEntity 2: "{row["entity2"]}"\nRelation:',
        "relation": row["relation"],
        "dataset": "nyt_11",
    }
    for row in ROWS
]


def shown(records):
    return [
        (
            record.text,
            [
                (record.text[p.head.start : p.head.end], p.label, record.text[p.tail.start : p.tail.end])
                for p in record.pairs
            ],
        )
        for record in records
    ]


EXPECTED = [
    ("Ann Lee of Oslo met Bo.", [("Ann Lee", "place lived", "Oslo"), ("Ann Lee", "None", "Bo")]),
    ("Bo was born in Rome.", [("Bo", "place of birth", "Rome")]),
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize(
    ("card", "rows"), [(TABLE, ROWS), (CARD, ROWS), (CARD, POOLED)], ids=["table", "plain", "pooled"]
)
def test_rows_of_every_file_type_become_records(tmp_path, kind, card, rows):
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    records = list(card.read(path, "train"))
    assert shown(records) == EXPECTED
    assert guess_format(path) is (TABLE if rows is ROWS else CARD)
    assert {record.format for record in records} == ({"nyt"} if rows is POOLED else {None})


def test_entity_types_are_read_and_other_columns_ignored(write):
    row = {**ROWS[0], "entity1Type": "PER", "entity2Type": None, "prompt_0_shot": "x", "prompt_2_shot": "y"}
    (record,) = CARD.read(write("r.jsonl", json.dumps(row)), "train", labels_of="nyt")
    assert (record.pairs[0].head.type, record.pairs[0].tail.type) == ("PER", "ENTITY")
    assert record.format == "nyt"


def test_an_entity_that_is_not_in_the_text_is_a_reject(write):
    rows = [{**ROWS[0], "entity2": "Rome"}, ROWS[0], {**ROWS[0], "entity1": ""}]
    first, second, third = CARD.read(write("r.jsonl", "\n".join(map(json.dumps, rows))), "train")
    assert isinstance(first, Reject) and "'Rome' does not occur in the text" in first.detail
    assert isinstance(second, Reject) and "empty" in second.detail and second.line == 3
    assert isinstance(third, Record)


def test_prompts_in_another_form_need_a_pattern(write):
    row = {"prompt": "<t>Bo is in Rome.</t><h>Bo</h><l>Rome</l>", "relation": "x", "dataset": "Despina/gids"}
    path = write("r.jsonl", json.dumps(row))
    (reject,) = CARD.read(path, "train")
    assert isinstance(reject, Reject) and "the prompt has no text, head, tail" in reject.detail
    pattern = "<t>(?P<text>.*)</t><h>(?P<head>.*)</h><l>(?P<tail>.*)</l>"
    (record,) = CARD.read(path, "train", prompt=pattern)
    assert shown([record]) == [("Bo is in Rome.", [("Bo", "x", "Rome")])] and record.format == "gids"


def test_errors_name_the_place(write):
    with pytest.raises(CorpusError, match=r"r\.jsonl:1: missing columns: relation"):
        list(CARD.read(write("r.jsonl", '{"text": "a"}'), "train"))
    with pytest.raises(CorpusError, match=r"r\.jsonl:1: missing columns: entity1, entity2"):
        list(CARD.read(write("r.jsonl", '{"text": "a", "relation": "b"}'), "train"))
    with pytest.raises(CorpusError, match='Unknown format "mine"'):
        list(CARD.read(write("r.jsonl", json.dumps(ROWS[0])), "train", labels_of="mine"))
    with pytest.raises(CorpusError, match=r'r\.jsonl:1: the dataset "mine" is not a known benchmark'):
        list(CARD.read(write("r.jsonl", json.dumps({**POOLED[0], "dataset": "mine"})), "train"))
    with pytest.raises(CorpusError, match="is not a regular expression"):
        list(CARD.read(write("r.jsonl", json.dumps(POOLED[0])), "train", prompt="("))
