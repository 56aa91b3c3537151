"""The format "table": rows with a text, two entities and their relation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat, get_format
from spacy_slmre.corpus.records import UNTYPED, Ambiguous, Malformed, Pair, Record, Reject, place_pair
from spacy_slmre.corpus.sources import CorpusError, Sample, check_columns, hub_split_of, read_rows
from spacy_slmre.instances import Mention

COLUMNS = ("text", "entity1", "entity2", "relation")
# Other names of our columns: those of `slmre export`, and common ones.
_NAMES = {
    "text": ("sentence",),
    "relation": ("label",),
    "entity1": ("head",),
    "entity1Type": ("head_type",),
    "entity1Start": ("head_start",),
    "entity1End": ("head_end",),
    "entity2": ("tail",),
    "entity2Type": ("tail_type",),
    "entity2Start": ("tail_start",),
    "entity2End": ("tail_end",),
}
_DOCUMENT = "document"
"""Column with the id of the document that a text is from; `slmre export` writes it."""
_OFFSETS = tuple((f"entity{number}Start", f"entity{number}End") for number in (1, 2))
# Only tables written by `slmre export` have this column. Their offsets refer to the document, their text is a sentence.
_EXPORTED = "sentence_start"
# `slmre export` puts an apostrophe before text that a spreadsheet would take for a formula.
_ESCAPED = re.compile("'+[=+\\-@\t\r\n＝＋－＠]")
_AMBIGUOUS, _ANNOTATES = ("reject", "first"), ("pairs", "relations")

Row = tuple[int, str | None, dict[str, Any] | Malformed]
"""Line, format (or None), and the values of a row or the reason why it is malformed."""


def read_table_rows(
    source: str | Path,
    split: str,
    *,
    labels_of: str = "",
    hub_split: str = "",
    ambiguous: str = "reject",
    annotates: str = "pairs",
) -> Iterator[Record | Reject]:
    """Read a table with the columns text, relation and, for head and tail, entity1 and entity2.

    The columns entity1Start, entity1End, entity2Start and entity2End contain character offsets; with them, the strings
    are only compared. entity1Type and entity2Type contain entity types. The columns that `slmre export` writes
    (sentence, head, head_start, …) are read as well. Other columns are ignored.

    All rows with the same text (and the same id in the column document, if there is one) become one record, so the
    whole table is kept in memory. A list of strings is several labels. Any label is accepted; "none", "other",
    "no_relation", "na", "nan" and "null" are negative.

    Args:
        source: A .csv, .tsv, .json, .jsonl or .parquet file, or a hub id.
        split: The split, used in the identifiers of records.
        labels_of: Format whose labels the rows use; the documents then belong to that format.
        hub_split: Name of the split on the hub; by default, "validation" for dev, otherwise the split.
        ambiguous: What to do with an argument without offsets that occurs several times: "reject" it, or place it at
            its "first" occurrence.
        annotates: "pairs" if pairs that are not listed are unknown, "relations" if they have no relation.
    """
    for name, value, allowed in (("ambiguous", ambiguous, _AMBIGUOUS), ("annotates", annotates, _ANNOTATES)):
        if value not in allowed:
            raise CorpusError(f'{name}="{value}" must be one of: {", ".join(allowed)}.')
    if labels_of:
        get_format(labels_of)
    rows = read_rows(source, (), hub_split or hub_split_of(split))
    restore = _unescape if Path(source).suffix.lower() == ".csv" else str

    def named_rows() -> Iterator[Row]:
        for line, row in rows:
            if _EXPORTED in row:
                row = {name: restore(value) if isinstance(value, str) else value for name, value in row.items()}
            named = _rename(row)
            needed = [name for name in COLUMNS if name not in named]
            for side, offsets in zip(("entity1", "entity2"), _OFFSETS, strict=True):
                if side in needed and named.keys() >= set(offsets):
                    needed.remove(side)
            check_columns(row, needed, f"{source}:{line}")
            yield line, labels_of or None, named

    def rows_by_text() -> Iterator[Row]:
        groups: dict[tuple[str, str, str | None], list[Row]] = {}
        for row in named_rows():
            groups.setdefault(_group_of(row), []).append(row)
        yield from chain.from_iterable(groups.values())

    return group_rows(rows_by_text(), split, unique=ambiguous == "reject", complete=annotates == "relations")


def group_rows(
    rows: Iterable[Row], split: str, *, unique: bool = False, complete: bool = False
) -> Iterator[Record | Reject]:
    """Merge consecutive rows with the same text, document and format into records.

    Args:
        rows: The rows.
        split: The split, used in the identifiers of records without a document.
        unique: Reject arguments without offsets that could be placed at several positions.
        complete: Whether the rows of a text are all of its relations.
    """
    number = 0
    documents: set[str] = set()
    for (text, document, format), group in groupby(rows, key=_group_of):
        pairs, first = [], 0
        for line, _, row in group:
            number += 1
            first = first or line
            name = document or f"{split}-{number}"
            if isinstance(row, Malformed):
                yield Reject(line, name, "malformed record", str(row))
                continue
            name = _cell(row, "id") or name
            labels = row["relation"] if isinstance(row["relation"], list) else [row["relation"]]
            if not labels or any(_is_missing(label) or not str(label).strip() for label in labels):
                yield Reject(line, name, "missing label", "the row does not say which relation it has")
                continue
            # Numbers are labels in CSV files as well.
            if not all(isinstance(label, str | int) and not isinstance(label, bool) for label in labels):
                yield Reject(line, name, "invalid label", f"{row['relation']!r} is not a string")
                continue
            try:
                head, tail = _place(text, row, unique=unique)
            except Malformed as error:
                reason = "ambiguous argument" if isinstance(error, Ambiguous) else "argument not in the text"
                yield Reject(line, name, reason, str(error))
                continue
            pairs += [Pair(head, tail, str(label)) for label in labels]
        if pairs:
            name = document or f"{split}-{number}"
            if name in documents:  # another sentence of it
                name = f"{name}#{number}"
            documents.add(document)
            yield Record(name, first, text, tuple(pairs), format=format, complete=complete)


def _group_of(row: Row) -> tuple[str, str, str | None]:
    """Return text, document (or "") and format of a row."""
    _, format, values = row
    if isinstance(values, Malformed):
        return "", "", format
    return _cell(values, "text"), _cell(values, _DOCUMENT), format


def _cell(row: Mapping[str, Any], column: str) -> str:
    """Return a cell as text; "" if it is missing."""
    return "" if _is_missing(value := row.get(column)) else str(value)


def _rename(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with our names of columns."""
    named = dict(row)
    for name, others in _NAMES.items():
        for other in others:
            if name not in row and other in row:
                named[name] = row[other]
    return named


def _place(text: str, row: Mapping[str, Any], *, unique: bool) -> tuple[Mention, Mention]:
    types = (str(row.get("entity1Type") or UNTYPED), str(row.get("entity2Type") or UNTYPED))
    given = _offsets(text, row, 1), _offsets(text, row, 2)
    if given[0] and given[1]:
        return Mention(*given[0], types[0]), Mention(*given[1], types[1])
    names = [str(row.get(name) or "") for name in ("entity1", "entity2")]
    return place_pair(text, names[0], names[1], types, given, ignore_case=True, unique=unique)


def _offsets(text: str, row: Mapping[str, Any], number: int) -> tuple[int, int] | None:
    """Return the offsets of an argument in a row, if it has any.

    Raises:
        Malformed: They are no offsets in the text, or the text there is not the argument.
    """
    start, end = (row.get(column) for column in _OFFSETS[number - 1])
    if _is_missing(start) or _is_missing(end):
        return None
    try:
        before = _whole(row.get(_EXPORTED) or 0)
        first, last = _whole(start) - before, _whole(end) - before
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"the offsets {start!r} and {end!r} are not whole numbers") from error
    if not 0 <= first < last <= len(text):
        raise Malformed(f"[{first}:{last}] is outside of the text, which has {len(text)} characters")
    string = str(row.get(f"entity{number}") or "")
    if string and text[first:last].split() != string.split():
        raise Malformed(f"[{first}:{last}] of the text is {text[first:last]!r}, not {string!r}")
    return first, last


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or cell != cell  # NaN differs from itself


def _whole(value: Any) -> int:
    """Return a number that must be whole. "2.0" is: pandas writes integers so in a column with missing values."""
    number = float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _unescape(cell: str) -> str:
    return cell[1:] if _ESCAPED.match(cell) else cell


def _recognize(sample: Sample) -> bool:
    # Tables with our column names but without offsets could be of other formats, which `columns` decides.
    columns = _rename(dict.fromkeys(sample.columns)).keys()
    has_offsets = all(columns >= set(offsets) for offsets in _OFFSETS)
    return columns >= {"text", "relation"} and (has_offsets or {"head", "tail"} <= set(sample.columns))


TABLE = CorpusFormat(name="table", title="Table", read=read_table_rows, columns=COLUMNS, recognize=_recognize)
