from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.language import Language

from spacy_slmre.extraction.sources import ExtractionError, Source, check_inputs, find_inputs, read_sources


def read(path: Path, nlp: Language, **fields: str) -> list[Source]:
    return list(read_sources(find_inputs([str(path)]), nlp, io.BytesIO(), **fields))


def test_rows_of_a_table_are_documents(tmp_path: Path, blank: Callable[[], Language]) -> None:
    file = tmp_path / "in.parquet"
    texts = pa.array([b"a", b"\xff", None, "Zoë 🦊".encode()]).view(pa.string())
    columns = {"body": texts, "key": [1, 2, 3, None], "other": [[1]] * 4}
    parquet.write_table(pa.table(columns), file, row_group_size=3)
    found = read(file, blank(), text_field="body", id_field="key")
    assert [one.id for one in found] == ["1", "2", f"{file}#3", f"{file}#4"]
    assert [one.content for one in found] == ["a", None, None, "Zoë 🦊"]
    assert found[1].error == "not UTF-8 (byte 0: invalid start byte)"
    assert found[2].error == 'no text in the field "body"'
    assert [one.id for one in read(file, blank(), text_field="body")] == [f"{file}#{n}" for n in range(1, 5)]


@pytest.mark.parametrize(
    "type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_all_strings_of_tables_are_texts(
    tmp_path: Path, blank: Callable[[], Language], type_: object
) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"text": pa.array(["a", "b", "a"]).cast(type_)}), file)
    assert [one.content for one in read(file, blank())] == ["a", "b", "a"]


def test_tables_without_a_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"body": ["a"], "number": [1]}), file)
    with pytest.raises(
        ExtractionError, match='no column "text": give one of "body", "number" by --text-field'
    ):
        check_inputs([(str(file), "parquet")], "text", "id")
    with pytest.raises(ExtractionError, match='"number" holds int64, but a text is a string'):
        check_inputs([(str(file), "parquet")], "number", "id")
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(ExtractionError, match=r"no readable \.parquet file"):
        check_inputs([(str(file), "parquet")], "text", "id")
    with pytest.raises(ExtractionError, match="cannot be read from standard input"):
        find_inputs(["-"], "parquet")


def test_damaged_rows_are_told(tmp_path: Path, blank: Callable[[], Language]) -> None:
    file = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"text": [str(n) for n in range(5000)]}), file)
    data = bytearray(file.read_bytes())
    data[4:3000] = bytes(2996)
    file.write_bytes(data)
    with pytest.raises(ExtractionError, match=r"no readable \.parquet file"):
        read(file, blank())
