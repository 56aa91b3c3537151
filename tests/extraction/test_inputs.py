from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.language import Language
from spacy.vocab import Vocab

from spacy_slmre.extraction.inputs import FORMATS, ExtractionError, InputDocument, Position, find_inputs, read_inputs


def read(path: Path, **fields: str) -> list[InputDocument]:
    return list(read_inputs([(str(path), "parquet")], Vocab(), io.BytesIO(), **fields))


def test_a_file_that_is_named_several_times_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("Ann", encoding="utf-8")
    messages: list[str] = []
    found = find_inputs(["b.txt", ".", str(tmp_path / "a.txt")], log=messages.append)
    assert found == [("b.txt", "txt"), ("a.txt", "txt")]
    assert messages == ["Files that are named several times, but read only once: 2."]


def test_each_row_of_a_table_is_a_document(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    texts = pa.array([b"a", b"\xff", None, "Zoë 🦊".encode()]).view(pa.string())
    columns = {"body": texts, "key": [1, 2, 3, None], "other": [[1]] * 4}
    parquet.write_table(pa.table(columns), file, row_group_size=3)
    found = read(file, text_field="body", id_field="key")
    assert [one.id for one in found] == ["1", "2", f"{file}#3", f"{file}#4"]
    assert [one.content for one in found] == ["a", None, None, "Zoë 🦊"]
    assert found[1].error == "not UTF-8 (byte 0: invalid start byte)"
    assert found[2].error == 'no text in the field "body"'
    assert [one.id for one in read(file, text_field="body")] == [f"{file}#{n}" for n in range(1, 5)]


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_all_string_types_of_tables_are_read(tmp_path: Path, type_: object) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"text": pa.array(["a", "b", "a"]).cast(type_)}), file)
    assert [one.content for one in read(file)] == ["a", "b", "a"]


def test_tables_without_a_text_column_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"body": ["a"], "number": [1]}), file)
    with pytest.raises(ExtractionError, match=r'no column "text"\. Set the text field to one of "body", "number"'):
        find_inputs([str(file)])
    with pytest.raises(ExtractionError, match='"number" has type int64, expected strings'):
        find_inputs([str(file)], text_field="number")
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(ExtractionError, match=r"not a readable \.parquet file"):
        find_inputs([str(file)])
    with pytest.raises(ExtractionError, match="cannot be read from standard input"):
        find_inputs(["-"], "parquet")


def test_damaged_rows_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"text": [str(n) for n in range(5000)]}), file)
    data = bytearray(file.read_bytes())
    data[4:3000] = bytes(2996)
    file.write_bytes(data)
    *_, last = read(file)
    assert last.content is None and "not a readable .parquet file" in last.error


def test_folders_are_searched_without_hidden_files_and_the_output(tmp_path: Path) -> None:
    names = ["b/x.txt", "a.jsonl", ".hidden/x.txt", "._a.jsonl", "out.jsonl", "out.jsonl.part/y.jsonl", "z.md"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = find_inputs([str(tmp_path)], output=tmp_path / "out.jsonl")
    assert found == [(str(tmp_path / "a.jsonl"), "jsonl"), (str(tmp_path / "b" / "x.txt"), "txt")]


def test_unreadable_file_is_named(tmp_path: Path, blank: Callable[[], Language]) -> None:
    for format in FORMATS:
        path = str(tmp_path / f"gone.{format}")
        [document] = read_inputs([(path, format)], Vocab(), io.BytesIO())
        assert document.id == path and document.content is None and "No such file" in document.error
        found = read_inputs([(path, format)], Vocab(), io.BytesIO(), start=Position(items=3), counts=[2])
        assert [(one.id, one.error) for one in found] == [(f"{path}#{n}", document.error) for n in (4, 5)]


def test_a_format_selects_files_in_folders(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl"):
        (tmp_path / name).write_text("{}")
    messages: list[str] = []
    assert find_inputs([str(tmp_path)], "lines", log=messages.append) == [(str(tmp_path / "a.txt"), "lines")]
    assert find_inputs([str(tmp_path)], "jsonl") == [(str(tmp_path / "b.jsonl"), "jsonl")]
    assert messages == [f"Skipped in {tmp_path}: 1 .jsonl file."]
    with pytest.raises(ExtractionError, match=r"contains no \.parquet files, but 1 \.txt file"):
        find_inputs([str(tmp_path)], "parquet")


def test_a_line_whose_id_is_null_is_named_after_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": null, "text": "Ann"}\n{"id": 0, "text": "Bo"}\n', encoding="utf-8")
    documents = list(read_inputs([(str(file), "jsonl")], Vocab(), io.BytesIO()))
    assert [document.id for document in documents] == [f"{file}:1", "0"]
