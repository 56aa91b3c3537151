"""Streaming readers of source files: lines, JSON and tables.

Each item is yielded with its line number, for error messages. Byte order marks and Windows line endings are accepted.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from spacy_slmre.util.io import list_files

_CHUNK = 1 << 20
_LONGEST_RECORD = 64 * _CHUNK
# What a format is recognized by: the first bytes of a file and the first rows of a table.
_SAMPLE_BYTES = 4096
_SAMPLE_ROWS = 50
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:\w+)?")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TABLES = (*_DELIMITERS, ".json", ".jsonl", ".parquet")


class CorpusError(ValueError):
    """A source file or corpus cannot be read."""


@contextmanager
def open_text(path: str | Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file for reading; `newline` as for `open`.

    Raises:
        CorpusError: The file cannot be opened, or (while reading) is not valid UTF-8.
    """
    path = Path(path)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder. Specify a file; splits are converted one at a time.")
    try:
        file = path.open(encoding="utf-8-sig", newline=newline)
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path}:{_undecodable(path)}. Convert the file to UTF-8 first.") from error


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file without line endings, numbered from 1."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\n")


def read_json(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON list or JSON lines, with the line that each begins on.

    Raises:
        CorpusError: The file cannot be read, is truncated, or has another format.
    """
    with open_text(path) as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        file.seek(0)
        if first not in ("[", "{"):
            raise CorpusError(f"{path}:1: neither a JSON list nor JSON lines. Is this the right file?")
        yield from (_read_json_list if first == "[" else _read_json_lines)(file, path)


def read_table(
    path: str | Path, columns: Collection[str], *, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV or TSV file with a header, with the line that each ends on.

    In CSV, quotes enclose cells, and quotes inside of them are doubled. A TSV file is read in the same way if all of
    its quotes follow these rules. Otherwise they are text: the cell `"Ann" met Bo` keeps them.

    Raises:
        CorpusError: The file cannot be read, a column is missing, or a row has too many fields.
    """
    csv.field_size_limit(_LONGEST_RECORD)
    is_plain = delimiter == "\t" and not _has_quoted_cells(path)
    # Line breaks inside of cells count in offsets, so they must not be translated.
    with open_text(path, newline="") as file:
        quoting: Literal[0, 3] = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
        rows = csv.DictReader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            _check_distinct(rows.fieldnames or (), f"{path}:1")
            check_columns(rows.fieldnames or (), columns, f"{path}:1")
            for row in rows:
                if None in row:
                    raise CorpusError(f"{path}:{rows.line_num}: the row has more fields than the header.")
                yield rows.line_num, row
        except csv.Error as error:
            raise CorpusError(
                f"{path}:{rows.line_num}: the row cannot be read ({error}). Quotes must enclose whole cells, and those "
                "inside of a cell must be doubled."
            ) from error


def read_rows(
    source: str | Path, columns: Collection[str], hub_split: str = "train"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table, with their lines (for Parquet and the hub, row numbers from 1).

    Args:
        source: A .csv, .tsv, .json, .jsonl or .parquet file, or a hub id `owner/name`, followed by `:config` if the
            dataset has several.
        columns: Required columns.
        hub_split: Name of the split on the hub.

    Raises:
        CorpusError: The source cannot be read as a table, or a column is missing.
    """
    kind = Path(source).suffix.lower()
    if kind in _DELIMITERS:
        yield from read_table(source, columns, delimiter=_DELIMITERS[kind])
        return
    if kind in (".json", ".jsonl"):
        rows: Iterator[tuple[int, dict[str, Any]]] = read_json(source)
    elif kind == ".parquet":
        rows = enumerate(_read_parquet(Path(source)), start=1)
    elif not Path(source).exists() and _HUB_ID.fullmatch(str(source)):
        rows = enumerate(_read_hub(str(source), hub_split), start=1)
    else:
        with open_text(source):
            raise CorpusError(
                f"{source} is not a table. Use a .csv, .tsv, .json, .jsonl or .parquet file, or a hub id."
            )
    for line, row in rows:
        check_columns(row, columns, f"{source}:{line}")
        yield line, row


def hub_split_of(split: str) -> str:
    """Return the usual name on the hub of one of our splits."""
    return "validation" if split == "dev" else split


class Sample:
    """The beginning of a source, by which formats recognize it.

    Attributes:
        path: The file or folder.
        error: Why the rows of the source cannot be read, if that is so.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.error: CorpusError | None = None

    def file(self, suffix: str) -> Path | None:
        """Return the source if it has this suffix, or the first such file in it if it is a folder."""
        return next(iter(source_files(self.path, suffix)), None)

    def starts_with(self, suffix: str, pattern: str) -> bool:
        """Return whether the first file with this suffix begins with a pattern."""
        if (file := self.file(suffix)) is None:
            return False
        with file.open("rb") as stream:
            return re.match(pattern, stream.read(_SAMPLE_BYTES).decode("utf-8-sig", errors="replace")) is not None

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The first rows of a table or JSON objects of a file; none for other sources."""
        rows: list[dict[str, Any]] = []
        if self.path.is_file() and self.path.suffix.lower() in _TABLES:
            try:
                rows.extend(row for _, row in islice(read_rows(self.path, ()), _SAMPLE_ROWS))
            except CorpusError as error:
                self.error = error
        return rows

    @property
    def is_empty(self) -> bool:
        """Whether the source is a file without content, or a table or JSON file without rows."""
        if not self.path.is_file():
            return False
        is_blank = self.path.stat().st_size < _SAMPLE_BYTES and not self.path.read_bytes().strip()
        return is_blank or (self.path.suffix.lower() in _TABLES and not self.rows and self.error is None)

    @property
    def columns(self) -> list[str]:
        """The columns of a table, or the keys of at least half of the first JSON objects."""
        counts = Counter(name for row in self.rows for name in row)
        return [name for name, count in counts.items() if 2 * count >= len(self.rows)]

    def share(self, is_record: Callable[[dict[str, Any]], bool]) -> float:
        """Return the share of the rows that are records of a format; 0 without rows."""
        return sum(map(is_record, self.rows)) / len(self.rows) if self.rows else 0.0


def source_files(path: str | Path, suffix: str = "") -> list[Path]:
    """Return the file itself, or all files in a folder that are not hidden, in order; only those with a suffix."""
    path = Path(path)
    files = list_files(path) if path.is_dir() else [path]
    return [file for file in files if file.name.lower().endswith(suffix)]


def _has_quoted_cells(path: str | Path) -> bool:
    """Return whether all quotes in a TSV file are as `csv` writes them."""
    with open_text(path, newline="") as file:
        try:
            return all(True for _ in csv.reader(file, delimiter="\t", strict=True))
        except csv.Error:
            return False


def check_columns(available: Collection[str], required: Collection[str], where: str) -> None:
    """Raise a CorpusError if required columns are missing."""
    if missing := [column for column in required if column not in available]:
        known = ", ".join(map(str, available)) or "none"
        raise CorpusError(f"{where}: missing columns: {', '.join(missing)}. Available columns: {known}.")


def _check_distinct(names: Sequence[str], where: str) -> None:
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise CorpusError(
            f"{where}: more than one column is named {', '.join(map(repr, repeated))}. Rename all but one."
        )


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise CorpusError(f"There is no file {path}.")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_distinct(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{path} cannot be read ({error}). Is the file complete?") from error


def _read_hub(source: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    name, _, config = source.partition(":")
    try:
        yield from datasets.load_dataset(name, config or None, split=split, streaming=True)
    except Exception as error:  # raised by pyarrow, the hub client or the network
        raise CorpusError(
            f"{source} cannot be read from the hub ({type(error).__name__}: {error}). Check the id and the network."
        ) from error


def _read_json_lines(file: TextIO, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, _as_object(json.loads(line), path, number)
            except json.JSONDecodeError as error:
                raise CorpusError(
                    f"{path}:{number}: the line is not a JSON object ({error.msg}). Is the file complete?"
                ) from error
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{path}:{number}: the JSON object cannot be read ({error}).") from error


def _read_json_list(file: TextIO, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    buffer = file.read(_CHUNK)
    position = buffer.index("[") + 1
    line = 1 + buffer.count("\n", 0, position)
    while True:
        # Skip separators before the next object; the buffer may end among them.
        start = position
        while True:
            while position < len(buffer) and buffer[position] in ", \t\r\n":
                position += 1
            if position < len(buffer) or not (more := file.read(_CHUNK)):
                break
            buffer += more
        line += buffer.count("\n", start, position)
        if buffer[position : position + 1] == "]":
            if (buffer[position + 1 :] + file.read(_CHUNK)).strip():
                raise CorpusError(f"{path}:{line}: unexpected text after the end of the JSON list.")
            return
        try:
            value, end = decoder.raw_decode(buffer, position)
        except json.JSONDecodeError as error:
            more = file.read(_CHUNK) if len(buffer) < _LONGEST_RECORD else ""
            if not more:
                raise CorpusError(
                    f"{path}:{line}: incomplete or invalid JSON object ({error.msg}). Is the file complete?"
                ) from error
            buffer, position = buffer[position:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{path}:{line}: the JSON object cannot be read ({error}).") from error
        yield line, _as_object(value, path, line)
        line += buffer.count("\n", position, end)
        buffer, position = (buffer[end:], 0) if end > _CHUNK // 2 else (buffer, end)


def _as_object(value: Any, path: str | Path, line: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorpusError(f"{path}:{line}: expected a JSON object, found {type(value).__name__}.")
    return value


def _undecodable(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{number}: byte 0x{line[error.start]:02x} is not UTF-8"
    return "1: the file is not UTF-8"
