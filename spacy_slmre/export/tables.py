"""Relations as rows of JSON lines, CSV or Parquet, written as a stream.

Without merging, a row is an annotation; with merging, it is a relation with all its occurrences in `sources`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_slmre.export.edges import Edge

if TYPE_CHECKING:
    import pyarrow as pa

# Columns, and the attribute of an edge that each contains.
COLUMNS = {
    "head": "head.text",
    "head_type": "head.type",
    "head_id": "head.kb_id",
    "head_start": "source.head.start",
    "head_end": "source.head.end",
    "relation": "label",
    "inverse": "inverse",
    "tail": "tail.text",
    "tail_type": "tail.type",
    "tail_id": "tail.kb_id",
    "tail_start": "source.tail.start",
    "tail_end": "source.tail.end",
    "score": "score",
    "document": "source.document",
    "sentence": "source.sentence",
    "sentence_start": "source.start",
    "sentence_end": "source.end",
    "model": "source.model",
}
MERGED_COLUMNS = {
    "head": "head.text",
    "head_type": "head.type",
    "head_id": "head.kb_id",
    "head_key": "head.key",
    "relation": "label",
    "inverse": "inverse",
    "tail": "tail.text",
    "tail_type": "tail.type",
    "tail_id": "tail.kb_id",
    "tail_key": "tail.key",
    "score": "score",
    "count": "count",
    "sources": "source_dicts",
}
_NOT_TEXT = {"score": "double", "count": "int64"} | {
    f"{name}_{edge}": "int64" for name in ("head", "tail", "sentence") for edge in ("start", "end")
}

# Text that a spreadsheet would interpret as a formula, including full-width forms. An apostrophe marks a cell as text;
# it is also added before existing apostrophes, so that the text can be restored exactly.
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
_BATCH_SIZE = 10_000


def columns(*, merged: bool) -> dict[str, str]:
    """Return the columns, and the attribute of an edge that each contains."""
    return MERGED_COLUMNS if merged else COLUMNS


def write_jsonl(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write one JSON object per row."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in _rows(edges, merged=merged):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write a table for spreadsheets; cells that look like a formula are escaped."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns(merged=merged))
        writer.writeheader()
        for row in _rows(edges, merged=merged):
            if merged:
                row["sources"] = json.dumps(row["sources"], ensure_ascii=False)
            writer.writerow({name: escape_formula(value) for name, value in row.items()})


def write_parquet(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write a Parquet file in row groups of 10,000; `sources` is a list of structs."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(merged=merged)
    rows = _rows(edges, merged=merged)
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, _BATCH_SIZE)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def escape_formula(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would interpret as a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _rows(edges: Iterable[Edge], *, merged: bool) -> Any:
    getters = {name: attrgetter(path) for name, path in columns(merged=merged).items()}
    return ({name: get(edge) for name, get in getters.items()} for edge in edges)


def _schema(*, merged: bool) -> pa.Schema:
    import pyarrow as pa

    def fields(**types: Any) -> list[tuple[str, Any]]:
        return list(types.items())

    text, integer = pa.string(), pa.int64()
    mention = pa.struct(fields(start=integer, end=integer, text=text, type=text, kb_id=text))
    place = fields(document=text, start=integer, end=integer, sentence=text)
    source = pa.struct(place + fields(head=mention, tail=mention, score=pa.float64(), model=text))
    types = {name: pa.type_for_alias(_NOT_TEXT.get(name, "string")) for name in columns(merged=merged)}
    return pa.schema(types | ({"sources": pa.list_(source)} if merged else {}))
