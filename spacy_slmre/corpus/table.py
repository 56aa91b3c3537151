"""The format "table": rows with a text, two entities (as strings) and their relation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat, get_format
from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject, place_pair
from spacy_slmre.corpus.sources import read_rows

COLUMNS = ("text", "entity1", "entity2", "relation")


def read_table_rows(
    source: str | Path, split: str, *, labels_of: str = "", hub_split: str = ""
) -> Iterator[Record | Reject]:
    """Read a table with the columns text, entity1, entity2, relation and, optionally, entity1Type and entity2Type.

    Consecutive rows with the same text become one record. Other columns are ignored. Any label is accepted; "none",
    "other", "no_relation", "na", "nan" and "null" are negative.

    Args:
        source: A .csv, .tsv, .json, .jsonl or .parquet file, or a hub id.
        split: The split, used in the identifiers of records.
        labels_of: Format whose labels the rows use; the documents then belong to that format.
        hub_split: Name of the split on the hub; by default, "validation" for dev, otherwise the split.
    """
    if labels_of:
        get_format(labels_of)
    rows = read_rows(source, COLUMNS, hub_split or {"dev": "validation"}.get(split, split))
    return group_rows(((line, labels_of or None, row) for line, row in rows), split)


def group_rows(
    rows: Iterable[tuple[int, str | None, dict[str, Any] | Malformed]], split: str
) -> Iterator[Record | Reject]:
    """Merge consecutive rows with the same text and format into records.

    Args:
        rows: Line, format (or None), and the values of each row or the reason why it is malformed.
        split: The split, used in the identifiers of records.
    """

    def text_and_format(row: tuple[int, str | None, dict[str, Any] | Malformed]) -> tuple[str, str | None]:
        return ("" if isinstance(row[2], Malformed) else str(row[2]["text"] or "")), row[1]

    number = 0
    for (text, format), group in groupby(rows, key=text_and_format):
        pairs, first = [], 0
        for line, _, row in group:
            number += 1
            first = first or line
            if isinstance(row, Malformed):
                yield Reject(line, f"{split}-{number}", "malformed record", str(row))
                continue
            types = (str(row.get("entity1Type") or UNTYPED), str(row.get("entity2Type") or UNTYPED))
            try:
                head, tail = place_pair(text, row["entity1"], row["entity2"], types, ignore_case=True)
            except Malformed as error:
                yield Reject(line, f"{split}-{number}", "argument not in the text", str(error))
                continue
            pairs.append(Pair(head, tail, str(row["relation"])))
        if pairs:
            yield Record(f"{split}-{number}", first, text, tuple(pairs), format=format)


TABLE = CorpusFormat(name="table", title="Table", read=read_table_rows, columns=COLUMNS)
