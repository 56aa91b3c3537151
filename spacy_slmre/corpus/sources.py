"""Reading source files piece by piece, with the line that each piece stands on.

Byte order marks and Windows line ends are accepted everywhere. Nothing here holds a whole file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

_CHUNK = 1 << 20
_LONGEST_RECORD = 64 * _CHUNK


class CorpusError(ValueError):
    """A source file cannot be read as what it should be; the message says where and what to do."""


def open_text(path: str | Path) -> TextIO:
    """Open a text file.

    Raises:
        CorpusError: It is absent, a folder, or may not be read.
    """
    path = Path(path)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder. Give one of the files in it, a split at a time.")
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a file without their ends, and their numbers from 1.

    Raises:
        CorpusError: The file cannot be opened or is not UTF-8.
    """
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise _wrong_encoding(path) from error


def read_json(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list or of JSON lines, and the lines on which they begin.

    Raises:
        CorpusError: The file cannot be opened, is not UTF-8, ends too early, or is no JSON of that form.
    """
    with open_text(path) as file:
        try:
            first = file.read(1)
            while first.isspace():
                first = file.read(1)
            file.seek(0)
            if first == "[":
                yield from _read_json_list(file, path)
            elif first == "{":
                yield from _read_json_lines(file, path)
            else:
                raise CorpusError(
                    f"{path}:1: this is neither a JSON list nor JSON lines. Is it the right file?"
                )
        except UnicodeDecodeError as error:
            raise _wrong_encoding(path) from error


def read_table(
    path: str | Path, columns: Collection[str], *, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header line, and the lines on which they end.

    Raises:
        CorpusError: The file cannot be opened, is not UTF-8, lacks columns, or a row has too many fields.
    """
    with open_text(path) as file:
        try:
            rows = csv.DictReader(file, delimiter=delimiter)
            check_columns(rows.fieldnames or (), columns, f"{path}:1")
            for row in rows:
                if None in row:
                    raise CorpusError(f"{path}:{rows.line_num}: the row has more fields than the header.")
                yield rows.line_num, row
        except csv.Error as error:
            raise CorpusError(f"{path}:{rows.line_num}: the row cannot be read ({error}).") from error
        except UnicodeDecodeError as error:
            raise _wrong_encoding(path) from error


def read_rows(
    source: str | Path, columns: Collection[str], hub_split: str = "train"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table, whatever form it has, and their lines (parquet and hub: numbers from 1).

    Args:
        source: A file that ends in .csv, .tsv, .json, .jsonl or .parquet; or a hub id `owner/name`, with
            `:config` after it where the data set has several.
        columns: The columns that must be there.
        hub_split: Name of the split on the hub.

    Raises:
        CorpusError: The source cannot be read as a table, or lacks columns.
    """
    kind = Path(source).suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from read_table(source, columns, delimiter="\t" if kind == ".tsv" else ",")
    elif kind in (".json", ".jsonl"):
        for line, row in read_json(source):
            check_columns(row, columns, f"{source}:{line}")
            yield line, row
    elif kind == ".parquet" or (
        not Path(source).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+(:\w+)?", str(source))
    ):
        rows = _stream(str(source), hub_split)
        for number, row in enumerate(rows, start=1):
            check_columns(row, columns, f"{source}:{number}")
            yield number, row
    else:
        open_text(source).close()
        raise CorpusError(
            f"{source} is no table: give a .csv, .tsv, .json, .jsonl or .parquet file, or a hub id."
        )


def check_columns(found: Collection[str], wanted: Collection[str], where: str) -> None:
    """Raise a CorpusError that names the columns that are missing and those that are there."""
    if missing := [column for column in wanted if column not in found]:
        there = ", ".join(map(str, found)) or "none"
        raise CorpusError(f"{where}: there is no column {', '.join(missing)}; the columns are: {there}.")


def _stream(source: str, hub_split: str) -> Iterator[dict[str, Any]]:
    import datasets

    local = source.endswith(".parquet")
    if local and not Path(source).is_file():
        raise CorpusError(f"{source} is no file.")
    name, _, config = source.partition(":")
    try:
        if local:
            rows = datasets.load_dataset("parquet", data_files=source, split="train", streaming=True)
        else:
            rows = datasets.load_dataset(name, config or None, split=hub_split, streaming=True)
        yield from rows
    except CorpusError:
        raise
    except Exception as error:  # of pyarrow, the hub's client and the network, by what goes wrong
        step = "Is the file complete?" if local else "Is the id right, and the hub in reach?"
        raise CorpusError(f"{source} cannot be read ({type(error).__name__}: {error}). {step}") from error


def _read_json_lines(file: TextIO, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, _as_object(json.loads(line), path, number)
            except json.JSONDecodeError as error:
                raise CorpusError(
                    f"{path}:{number}: no JSON object stands on this line ({error.msg}). "
                    "Is the file complete, and JSON lines throughout?"
                ) from error


def _read_json_list(file: TextIO, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    buffer = file.read(_CHUNK)
    position = buffer.index("[") + 1
    line = 1 + buffer.count("\n", 0, position)
    while True:
        # Separators before the next object; the end of the buffer may fall among them.
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
                raise CorpusError(f"{path}:{line}: the JSON list ends here, but the file goes on.")
            return
        try:
            value, end = decoder.raw_decode(buffer, position)
        except json.JSONDecodeError as error:
            more = file.read(_CHUNK) if len(buffer) < _LONGEST_RECORD else ""
            if not more:
                raise CorpusError(
                    f"{path}:{line}: no complete JSON object begins on this line ({error.msg}). "
                    "Is the file complete?"
                ) from error
            buffer = buffer[position:] + more
            position = 0
            continue
        yield line, _as_object(value, path, line)
        line += buffer.count("\n", position, end)
        buffer, position = (buffer[end:], 0) if end > _CHUNK // 2 else (buffer, end)


def _as_object(value: Any, path: str | Path, line: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorpusError(f"{path}:{line}: here stands a {type(value).__name__}, not a JSON object.")
    return value


def _wrong_encoding(path: str | Path) -> CorpusError:
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return CorpusError(
                    f"{path}:{number}: byte 0x{byte:02x} is not UTF-8. Convert the file to UTF-8 first."
                )
    return CorpusError(f"{path} is not UTF-8. Convert the file to UTF-8 first.")
