"""Relations as rows: JSONL, CSV and Parquet, written as a stream and read back.

A row of a single annotation has flat columns; a row of merged relations has what was joined, and the places
in `sources`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_slmre.documents import EntityMention
from spacy_slmre.export.edges import Edge, ExportError, Node, Source, joined_key, mention_node

if TYPE_CHECKING:
    import pyarrow as pa

SINGLE = {
    "head": str,
    "head_type": str,
    "head_id": str,
    "head_start": int,
    "head_end": int,
    "relation": str,
    "tail": str,
    "tail_type": str,
    "tail_id": str,
    "tail_start": int,
    "tail_end": int,
    "score": float,
    "document": str,
    "sentence": str,
    "sentence_start": int,
    "sentence_end": int,
    "model": str,
}
"""Columns of a row that stands for one annotation."""
MERGED = {
    "head": str,
    "head_type": str,
    "head_id": str,
    "head_key": str,
    "relation": str,
    "tail": str,
    "tail_type": str,
    "tail_id": str,
    "tail_key": str,
    "score": float,
    "count": int,
    "sources": list,
}
"""Columns of a row that joins the annotations of many documents."""

# What a spreadsheet takes for a formula, full-width forms included; the apostrophe says "text" to it, and
# apostrophes before are doubled, so that reading back is exact.
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
_BATCH = 10_000
_ARGUMENT = [field.name for field in fields(EntityMention)]
_SOURCE = [field.name for field in fields(Source)]


def to_row(edge: Edge, *, merged: bool) -> dict[str, Any]:
    """An edge as a row with the columns of `SINGLE` or `MERGED`."""
    row: dict[str, Any] = {
        "head": edge.head.text,
        "head_type": edge.head.type,
        "head_id": edge.head.kb_id,
        "relation": edge.label,
        "tail": edge.tail.text,
        "tail_type": edge.tail.type,
        "tail_id": edge.tail.kb_id,
        "score": edge.score,
    }
    if merged:
        row["head_key"], row["tail_key"] = edge.head.key, edge.tail.key
        row["count"] = edge.count
        row["sources"] = [source_entry(source) for source in edge.sources]
        return {name: row[name] for name in MERGED}
    (source,) = edge.sources
    row |= {
        "head_start": source.head.start,
        "head_end": source.head.end,
        "tail_start": source.tail.start,
        "tail_end": source.tail.end,
        "document": source.document,
        "sentence": source.sentence,
        "sentence_start": source.start,
        "sentence_end": source.end,
        "model": source.model,
    }
    return {name: row[name] for name in SINGLE}


def from_row(row: dict[str, Any], number: int) -> Edge:
    """The edge of a row; `number` counts the rows from 1 and gives a single annotation its key."""
    if "sources" in row:
        return Edge(
            joined_key(row["head_key"], row["relation"], row["tail_key"]),
            Node(row["head_key"], row["head"], row["head_type"], row["head_id"]),
            Node(row["tail_key"], row["tail"], row["tail_type"], row["tail_id"]),
            row["relation"],
            float(row["score"]),
            tuple(source_from(entry) for entry in row["sources"]),
        )
    head, tail = (
        EntityMention(
            int(row[f"{side}_start"]),
            int(row[f"{side}_end"]),
            row[side],
            row[f"{side}_type"],
            row[f"{side}_id"],
        )
        for side in ("head", "tail")
    )
    document, score = row["document"], float(row["score"])
    source = Source(
        document,
        int(row["sentence_start"]),
        int(row["sentence_end"]),
        row["sentence"],
        head,
        tail,
        score,
        row["model"],
    )
    nodes = mention_node(document, head), mention_node(document, tail)
    return Edge(f"{document}#{number}", *nodes, row["relation"], score, (source,))


def write_jsonl(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """One JSON object a row."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for edge in edges:
            stream.write(json.dumps(to_row(edge, merged=merged), ensure_ascii=False) + "\n")


def write_csv(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """A table for spreadsheets: what one of them would take for a formula gets an apostrophe before it."""
    columns = MERGED if merged else SINGLE
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for edge in edges:
            row = to_row(edge, merged=merged)
            if merged:
                row["sources"] = json.dumps(row["sources"], ensure_ascii=False)
            writer.writerow({name: as_cell(value) for name, value in row.items()})


def write_parquet(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """A Parquet file, in groups of some thousand rows; `sources` is a list of structs."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(merged)
    with parquet.ParquetWriter(path, schema) as writer:
        rows = (to_row(edge, merged=merged) for edge in edges)
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_triples(path: str | Path) -> Iterator[Edge]:
    """The edges of a `.jsonl`, `.csv` or `.parquet` file that was exported.

    Raises:
        ExportError: The file is absent, has another ending or other columns.
    """
    path = Path(path)
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ExportError(f"{path}: triples are read from {', '.join(readers)} files.")
    if not path.is_file():
        raise ExportError(f"The file {path} does not exist.")
    for number, row in enumerate(readers[path.suffix](path), 1):
        missing = (MERGED if "sources" in row else SINGLE).keys() - row.keys()
        if missing:
            raise ExportError(f"{path}, row {number}: no column {', '.join(sorted(missing))}.")
        yield from_row(row, number)


def as_cell(value: Any) -> Any:
    """A value as it stands in a CSV file that a spreadsheet may open."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(value: str) -> str:
    """The text that `as_cell` wrote."""
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield json.loads(line)


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    # A sentence may be longer than the 128 KB at which Python's reader stops.
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8", newline="") as stream:
        for cells in csv.DictReader(stream):
            row: dict[str, Any] = {name: from_cell(value) for name, value in cells.items()}
            if "sources" in row:
                row["sources"] = json.loads(row["sources"])
            yield row


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def source_entry(source: Source) -> dict[str, Any]:
    """A source as plain data, in the order of its fields."""
    # `dataclasses.asdict` copies every string, which takes most of the time of a large export.
    head, tail = ({name: getattr(side, name) for name in _ARGUMENT} for side in (source.head, source.tail))
    return {**{name: getattr(source, name) for name in _SOURCE}, "head": head, "tail": tail}


def source_from(entry: dict[str, Any]) -> Source:
    """A source of the plain data that `source_entry` made of it."""
    return Source(**{**entry, "head": EntityMention(**entry["head"]), "tail": EntityMention(**entry["tail"])})


def _schema(merged: bool) -> pa.Schema:
    import pyarrow as pa

    argument = pa.struct(
        {
            "start": pa.int64(),
            "end": pa.int64(),
            "text": pa.string(),
            "type": pa.string(),
            "kb_id": pa.string(),
        }
    )
    source = pa.struct(
        {
            "document": pa.string(),
            "start": pa.int64(),
            "end": pa.int64(),
            "sentence": pa.string(),
            "head": argument,
            "tail": argument,
            "score": pa.float64(),
            "model": pa.string(),
        }
    )
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), list: pa.list_(source)}
    return pa.schema({name: types[type_] for name, type_ in (MERGED if merged else SINGLE).items()})
