from __future__ import annotations

import json

import pytest

from spacy_slmre.corpus import sources
from spacy_slmre.corpus.sources import CorpusError, Sample, read_json, read_lines, read_rows, read_table


def test_a_list_and_lines_give_objects_with_their_lines(write):
    objects = [{"a": 1}, {"a": [2, {"b": "],\n"}]}, {"a": 3}]
    listed = write("list.json", json.dumps(objects, indent=1))
    assert [value for _, value in read_json(listed)] == objects
    assert [line for line, _ in read_json(listed)] == [2, 5, 13]
    lines = write("lines.jsonl", "\n".join(map(json.dumps, objects)) + "\n\n")
    assert list(read_json(lines)) == list(enumerate(objects, start=1))
    assert list(read_json(write("none.json", " [ ]\n"))) == []


def test_a_list_is_read_in_chunks(write, monkeypatch):
    monkeypatch.setattr(sources, "_CHUNK", 16)
    monkeypatch.setattr(sources, "_LONGEST_RECORD", 1024)
    objects = [{"text": "word " * n, "n": n} for n in range(30)]
    path = write("list.json", json.dumps(objects, indent=2))
    assert [value for _, value in read_json(path)] == objects


@pytest.mark.parametrize("chunk", [16, 1 << 20])
def test_truncated_json_names_the_line_of_the_broken_record(write, monkeypatch, chunk):
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    path = write("cut.json", '[\n{"a": 1},\n{"a": "two", "b')
    with pytest.raises(CorpusError, match=r"cut\.json:3: incomplete or invalid JSON object"):
        list(read_json(path))
    with pytest.raises(CorpusError, match=r"lines\.jsonl:2: the line is not a JSON object"):
        list(read_json(write("lines.jsonl", '{"a": 1}\n{"a": ')))
    with pytest.raises(CorpusError, match=r"open\.json:2"):
        list(read_json(write("open.json", '[\n{"a": 1}, ')))


def test_mixed_formats_are_errors(write):
    with pytest.raises(CorpusError, match=r"mixed\.jsonl:2: the line is not a JSON object"):
        list(read_json(write("mixed.jsonl", '{"a": 1}\nsome text\n')))
    with pytest.raises(CorpusError, match="unexpected text after the end of the JSON list"):
        list(read_json(write("mixed.json", '[{"a": 1}]\n{"a": 2}\n')))
    with pytest.raises(CorpusError, match=r"mixed2\.json:1: expected a JSON object, found int"):
        list(read_json(write("mixed2.json", '[3, {"a": 2}]')))
    with pytest.raises(CorpusError, match="neither a JSON list nor JSON lines"):
        list(read_json(write("text.json", "Once upon a time")))
    with pytest.raises(CorpusError, match="neither a JSON list nor JSON lines"):
        list(read_json(write("empty.json", "")))


def test_an_encoding_error_names_line_and_byte(write):
    path = write("latin.txt", "plain\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"latin\.txt:2: byte 0xe9 is not UTF-8"):
        list(read_lines(path))
    path = write("latin.json", '{"a": 1}\n{"a": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(CorpusError, match=r"latin\.json:2: byte 0xe9"):
        list(read_json(path))


def test_byte_order_marks_and_windows_line_ends_are_read(write):
    assert list(read_lines(write("bom.txt", b"\xef\xbb\xbfone\r\ntwo\r\n"))) == [(1, "one"), (2, "two")]
    assert [row for _, row in read_json(write("bom.json", b'\xef\xbb\xbf[{"a":\r\n 1}]'))] == [{"a": 1}]
    table = read_table(write("bom.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n"), ("a", "b"))
    assert list(table) == [(2, {"a": "1", "b": "2"})]


def test_a_folder_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(CorpusError, match=r"is a folder\. Specify a file"):
        list(read_lines(tmp_path))
    with pytest.raises(CorpusError, match=r"gone\.json cannot be read"):
        list(read_json(tmp_path / "gone.json"))


def test_a_missing_column_error_lists_the_columns(write):
    with pytest.raises(CorpusError, match=r"t\.csv:1: missing columns: relation\. Available columns: text, label"):
        list(read_table(write("t.csv", "text,label\na,b\n"), ("text", "relation")))
    with pytest.raises(CorpusError, match=r"t2\.csv:2: the row has more fields"):
        list(read_table(write("t2.csv", "text,relation\na,b,c\n"), ("text", "relation")))
    with pytest.raises(CorpusError, match=r"t\.jsonl:2: missing columns: relation"):
        list(read_rows(write("t.jsonl", '{"relation": "x"}\n{"label": "y"}\n'), ("relation",)))


def test_rows_of_every_file_type(write, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": "a\tb", "relation": "x"}, {"text": "c, d", "relation": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    assert [row for _, row in read_rows(tmp_path / "r.parquet", ("relation",))] == rows
    csv = write("r.csv", 'text,relation\na\tb,x\n"c, d",y\n')
    assert [row for _, row in read_rows(csv, ("relation",))] == rows
    assert Sample(csv).columns == Sample(tmp_path / "r.parquet").columns == ["text", "relation"]
    tsv = write("r.tsv", 'text\trelation\n"a\tb"\tx\nc, d\ty\n')
    assert [row for _, row in read_rows(tsv, ("relation",))] == rows


@pytest.mark.parametrize("text", ['"Ann" met Bobby', 'He said "Ann met', '"Ann met Bobby', '"Ann met"'])
def test_quotes_in_a_tsv_file_without_quoted_cells_are_text(write, text):
    path = write("r.tsv", f'text\trelation\n{text}\tmet\n"Cy" saw Di\tsaw\n')
    assert [row["text"] for _, row in read_rows(path, ("relation",))] == [text, '"Cy" saw Di']


def test_quoted_cells_in_a_tsv_file_are_read(write):
    path = write("r.tsv", 'text\trelation\n"""Ann"" met\nBo"\tmet\nHe said "no\tx\n')
    assert [row["text"] for _, row in read_rows(path, ("relation",))] == ['"Ann" met\nBo', 'He said "no']


@pytest.mark.parametrize("rows", ['"Ann met,x\nCy saw,y\n', '"Ann" met,x\nCy saw,y\n'])
def test_stray_quotes_in_a_csv_file_are_an_error(write, rows):
    with pytest.raises(CorpusError, match=r"r\.csv:\d: the row cannot be read .*Quotes must enclose whole cells"):
        list(read_rows(write("r.csv", f"text,relation\n{rows}"), ("relation",)))


def test_long_cells_are_read(write):
    ((_, row),) = read_rows(write("r.csv", f'text,relation\n"{"x" * 200_000}",y\n'), ("relation",))
    assert len(row["text"]) == 200_000


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5_000])
def test_json_that_python_cannot_read_is_an_error_with_its_line(write, value):
    for name, text in (("r.jsonl", f'{{"a": 1}}\n{{"a": {value}'), ("r.json", f'[{{"a": 1}},\n{{"a": {value}')):
        with pytest.raises(CorpusError, match=rf"{name}:2: "):
            list(read_json(write(name, text)))


def test_unreadable_tables_are_errors(write, tmp_path):
    with pytest.raises(CorpusError, match="is not a table"):
        list(read_rows(write("r.txt", "text"), ("relation",)))
    with pytest.raises(CorpusError, match=r"cut\.parquet cannot be read .*Is the file complete"):
        list(read_rows(write("cut.parquet", b"PAR1 and no more"), ("relation",)))
    with pytest.raises(CorpusError, match=r"There is no file .*gone\.parquet"):
        list(read_rows(tmp_path / "gone.parquet", ("relation",)))
