from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.formats import get_format, guess_format
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.gold import annotates_pairs, gold_pairs

TABLE = get_format("table")
TEXT = "Ann met Bo. Then Ann left Oslo."
BY_STRING = {"text": TEXT, "entity1": "Bo", "entity2": "Oslo", "relation": "left"}
BY_OFFSET = BY_STRING | {
    "entity1": "Ann",
    "entity1Start": 17,
    "entity1End": 20,
    "entity1Type": "PER",
    "entity2Start": 26,
    "entity2End": 30,
}


@pytest.fixture
def read(write):
    def run(*rows, **settings):
        source = write("rows.jsonl", "\n".join(map(json.dumps, rows)))
        assert guess_format(source) is TABLE
        items = list(TABLE.read(source, "train", **settings))
        return [one for one in items if isinstance(one, Record)], [one for one in items if isinstance(one, Reject)]

    return run


def test_offsets_say_which_occurrence_is_meant(read):
    (record,), rejects = read(BY_OFFSET)
    (pair,) = record.pairs
    assert (pair.head.start, pair.head.end, pair.head.type) == (17, 20, "PER") and pair.tail.start == 26
    assert not rejects


def test_offsets_of_one_argument_are_used(read):
    row = {name: value for name, value in BY_OFFSET.items() if not name.startswith("entity2") or name == "entity2"}
    (record,), rejects = read(row | {"entity1Start": "17.0", "entity2Start": None, "entity2End": float("nan")})
    (pair,) = record.pairs
    assert (pair.head.start, pair.tail.start) == (17, 26) and not rejects


def test_an_argument_without_offsets_is_not_placed_on_the_other(read):
    row = {"text": "Ann met Ann Lee. Ann Lee left.", "entity1": "Ann", "entity1Start": 8, "entity1End": 11}
    (record,), _ = read(row | {"entity2": "Ann Lee", "relation": "x"}, ambiguous="first")
    assert record.pairs[0].tail.start == 17


def test_rows_without_a_label_or_an_argument_are_rejected(read):
    rows = [BY_STRING | {"relation": None}, BY_STRING | {"relation": float("nan")}]
    offsets_only = {name: value for name, value in BY_OFFSET.items() if name not in ("entity1", "entity2")}
    (record,), rejects = read(BY_OFFSET, *rows, offsets_only | {"entity1End": ""})
    assert [pair.label for pair in record.pairs] == ["left"]
    assert [(one.line, one.reason) for one in rejects] == [
        (2, "missing label"),
        (3, "missing label"),
        (4, "argument not in the text"),
    ]


def test_a_list_is_several_labels_and_other_values_are_rejected(read):
    rows = [BY_STRING | {"relation": label} for label in (["left", "saw"], 3, False, {"left": 1}, ["left", True], [])]
    (record,), rejects = read(*rows)
    assert [pair.label for pair in record.pairs] == ["left", "saw", "3"]
    assert [one.reason for one in rejects] == ["invalid label"] * 3 + ["missing label"]


def test_line_breaks_in_cells_count(nlp, tmp_path):
    text = "Dear all,\r\nAnn lives\r\nin Oslo."
    source = tmp_path / "own.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "entity1Start", "entity1End", "entity2Start", "entity2End", "relation"])
        writer.writerow([text, 11, 14, text.index("Oslo"), text.index("Oslo") + 4, "lives in"])
    convert(TABLE, source, tmp_path / "own.spacy", split="train")
    (doc,) = read_docs(tmp_path / "own.spacy", nlp.vocab)
    assert doc.text == text and [(one.head.text, one.tail.text) for one in doc._.relations] == [("Ann", "Oslo")]


def test_without_offsets_a_repeated_string_is_rejected(read):
    (record,), (reject,) = read(BY_STRING, BY_STRING | {"entity1": "Ann", "id": "row 2"})
    assert len(record.pairs) == 1 and reject.id == "row 2"
    assert (reject.line, reject.reason, reject.detail) == (2, "ambiguous argument", "the argument 'Ann' occurs 2 times")
    (record,), rejects = read(BY_STRING | {"entity1": "Ann"}, ambiguous="first")
    assert record.pairs[0].head.start == 0 and not rejects


@pytest.mark.parametrize(
    ("text", "head", "tail", "expected"),
    [
        # A part of another word or of the other argument is not meant.
        ("Annie saw Ann in Rome", "Ann", "Rome", (10, 17)),
        ("York University is in York", "York University", "York", (0, 22)),
        ("York is where York University is", "York", "York University", (0, 14)),
        ("Ann saw Ann", "Ann", "Ann", None),
        ("York and York University of York", "York University", "York", None),
    ],
)
def test_a_string_with_one_possible_place_is_not_ambiguous(read, text, head, tail, expected):
    records, rejects = read({"text": text, "entity1": head, "entity2": tail, "relation": "x"})
    if expected is None:
        assert not records and rejects[0].reason == "ambiguous argument"
    else:
        assert (records[0].pairs[0].head.start, records[0].pairs[0].tail.start) == expected and not rejects


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"entity1Start": 16, "entity1End": 19}, "[16:19] of the text is ' An', not 'Ann'"),
        ({"entity1End": 99}, "[17:99] is outside of the text, which has 31 characters"),
        ({"entity1Start": "x"}, "the offsets 'x' and 20 are not whole numbers"),
        ({"entity1Start": 17.5}, "the offsets 17.5 and 20 are not whole numbers"),
        ({"entity1Start": float("inf")}, "the offsets inf and 20 are not whole numbers"),
    ],
)
def test_wrong_offsets_are_rejected(read, change, detail):
    _, (reject,) = read(BY_OFFSET | change)
    assert reject.detail == detail


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_common_names_of_columns_are_understood_in_every_kind_of_file(tmp_path, kind):
    row = {"text": TEXT, "head_start": 17, "head_end": 20, "tail_start": 26, "tail_end": 30, "label": "left"}
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row, delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerow(row)
    assert guess_format(path) is TABLE
    (record,) = TABLE.read(path, "train")
    assert (record.pairs[0].head.start, record.pairs[0].label, record.pairs[0].tail.end) == (17, "left", 30)


def test_rows_annotate_pairs_or_relations(nlp, write, tmp_path):
    source = write("rows.jsonl", json.dumps(BY_OFFSET))
    for annotates in ("pairs", "relations"):
        output = tmp_path / f"{annotates}.spacy"
        convert(TABLE, source, output, split="train", settings={"annotates": annotates})
        (doc,) = read_docs(output, nlp.vocab)
        assert annotates_pairs(doc.user_data) is (annotates == "pairs") and len(doc._.relations) == 1


def test_unrelated_entities_are_kept_where_relations_are_annotated(nlp, write, tmp_path):
    unrelated = {"text": "Cy saw Di.", "entity1": "Cy", "entity2": "Di", "relation": "no_relation"}
    source = write("rows.jsonl", "\n".join(map(json.dumps, (BY_OFFSET, BY_STRING | {"relation": "none"}, unrelated))))
    convert(TABLE, source, tmp_path / "own.spacy", split="train", settings={"annotates": "relations"})
    docs = list(read_docs(tmp_path / "own.spacy", nlp.vocab))
    assert [[ent.text for ent in doc.ents] for doc in docs] == [["Bo", "Ann", "Oslo"], ["Cy", "Di"]]
    assert [len(gold_pairs(doc).known_pairs()) for doc in docs] == [6, 2]


def test_rows_with_the_same_text_are_one_record_wherever_they_are(read):
    other = {"text": "Cy saw Di.", "entity1": "Cy", "entity2": "Di", "relation": "saw"}
    records, _ = read(BY_OFFSET, other, BY_STRING | {"relation": "saw"})
    assert [(one.text, one.line, [pair.label for pair in one.pairs]) for one in records] == [
        (TEXT, 1, ["left", "saw"]),
        ("Cy saw Di.", 2, ["saw"]),
    ]
    assert len({one.id for one in records}) == 2


def test_texts_of_several_documents_are_kept_apart(read):
    other = {"text": "Cy saw Di.", "entity1": "Cy", "entity2": "Di", "relation": "saw"}
    rows = [BY_STRING | {"document": "a"}, BY_OFFSET | {"document": "b"}, other | {"document": "a"}]
    records, rejects = read(*rows, BY_OFFSET | {"document": "a"}, BY_STRING | {"document": "a", "relation": None})
    assert [(one.id, one.text, len(one.pairs)) for one in records] == [
        ("a", TEXT, 2),
        ("b", TEXT, 1),
        ("a#5", "Cy saw Di.", 1),
    ]
    assert [(one.line, one.id) for one in rejects] == [(5, "a")]


def test_missing_columns_and_unknown_settings_are_errors(write):
    source = write("rows.jsonl", json.dumps({"text": TEXT, "entity1": "Ann", "entity2Start": 1, "relation": "x"}))
    with pytest.raises(CorpusError, match=r"rows\.jsonl:1: missing columns: entity2"):
        list(TABLE.read(source, "train"))
    with pytest.raises(CorpusError, match='ambiguous="last" must be one of: reject, first'):
        list(TABLE.read(source, "train", ambiguous="last"))
