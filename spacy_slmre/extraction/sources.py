"""Documents from text files, JSONL, Parquet, `.spacy` files and standard input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spacy.language import Language
from spacy.tokens import Doc, DocBin

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

FORMATS = ("txt", "lines", "jsonl", "parquet", "spacy")
# Rows of a table that are held at a time.
_ROWS = 256
_ENDINGS = {".txt": "txt", ".jsonl": "jsonl", ".parquet": "parquet", ".spacy": "spacy"}


class ExtractionError(ValueError):
    """Input or output cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A document to be read: its id, and its content or what is wrong with it."""

    id: str
    content: str | Doc | None = None
    error: str | None = None


@dataclass(frozen=True)
class Position:
    """A place between two documents of the inputs, from which reading can begin.

    Attributes:
        input: Number of the input, from 0.
        items: How many of its lines, rows or documents lie before.
        offset: In files of lines, the byte at which the next line begins.
    """

    input: int = 0
    items: int = 0
    offset: int = 0


def find_inputs(
    paths: Sequence[str], format: str | None = None, output: Path | None = None
) -> list[tuple[str, str]]:
    """The input files with their formats; folders give the files in them, by name.

    Args:
        paths: Files, folders, or "-" for standard input.
        format: "txt" (a file is a document), "lines" (a line is one), "jsonl", "parquet" (a row is one) or
            "spacy"; None goes by the ending, and takes standard input for JSONL.
        output: What is written, which is no input where it lies in one of the folders.

    Raises:
        ExtractionError: A path does not exist, a folder holds nothing to read, or a format is unknown.
    """
    if format is not None and format not in FORMATS:
        raise ExtractionError(f'Unknown input format "{format}": use one of {", ".join(FORMATS)}.')
    inputs: list[tuple[str, str]] = []
    for path in paths:
        if path == "-":
            if format == "parquet":
                raise ExtractionError("Parquet has to be a file: it cannot be read from standard input.")
            inputs.append(("-", format or "jsonl"))
        elif Path(path).is_dir():
            files = sorted(
                file
                for file in Path(path).rglob("*")
                if _format_of(file) and file.is_file() and not _is_part_of(file, output)
            )
            if not files:
                raise ExtractionError(f"The folder {path} holds no .txt, .jsonl, .parquet or .spacy file.")
            inputs += [(str(file), format or _format_of(file) or "") for file in files]
        elif Path(path).is_file():
            found = format or _format_of(Path(path))
            if found is None:
                raise ExtractionError(
                    f"{path}: the ending tells no format; give --format, one of {', '.join(FORMATS)}."
                )
            inputs.append((path, found))
        else:
            raise ExtractionError(f"The input {path} does not exist.")
    return inputs


def _is_part_of(file: Path, output: Path | None) -> bool:
    if output is None:
        return False
    own = [output.with_name(output.name + rest).resolve() for rest in ("", ".part", ".shards")]
    return any(file.resolve().is_relative_to(path) for path in own)


def _format_of(file: Path) -> str | None:
    return _ENDINGS.get(file.suffix)


def check_inputs(inputs: Sequence[tuple[str, str]], text_field: str, id_field: str) -> None:
    """Look at what can be seen of the inputs without reading them: the columns of tables.

    Raises:
        ExtractionError: A `.parquet` file is damaged, or has no such text column.
    """
    for path, format in inputs:
        if format == "parquet":
            open_table(path, text_field, id_field)[0].close()


def read_sources(
    inputs: Sequence[tuple[str, str]],
    nlp: Language,
    stdin: BinaryIO,
    text_field: str = "text",
    id_field: str = "id",
    start: Position = Position(),
) -> Iterator[Source]:
    """The documents of all inputs, in order; what cannot be read of them is told in its place.

    Args:
        inputs: Files with their formats, as `find_inputs` gives them.
        nlp: Its vocabulary makes the documents of `.spacy` files.
        stdin: Read where a path is "-".
        text_field: Field or column of the text.
        id_field: Field or column of the id.
        start: Where to begin.

    Raises:
        ExtractionError: A `.spacy` or `.parquet` file is damaged as a whole.
    """
    for path, format in inputs[start.input :]:
        if format == "spacy":
            yield from _read_docs(path, nlp, start.items)
        elif format == "parquet":
            yield from _read_rows(path, text_field, id_field, start.items)
        elif format == "txt":
            yield _read_text(path, stdin.read() if path == "-" else Path(path).read_bytes())
        elif path == "-":
            yield from _read_lines(path, stdin, format, text_field, id_field)
        else:
            with Path(path).open("rb") as stream:
                stream.seek(start.offset)
                yield from _read_lines(path, stream, format, text_field, id_field, start.items)
        start = Position()


def open_docs(path: str) -> DocBin:
    """The documents of a `.spacy` file, packed.

    Raises:
        ExtractionError: The file is damaged.
    """
    try:
        return DocBin().from_disk(path)
    except Exception as error:
        raise ExtractionError(f"{path} is no readable .spacy file ({error}).") from error


def _read_docs(path: str, nlp: Language, skipped: int) -> Iterator[Source]:
    bin_ = open_docs(path)
    # Making documents is what takes time: those before are dropped while they are packed.
    for parts in (bin_.tokens, bin_.spaces, bin_.cats, bin_.span_groups, bin_.flags, bin_.user_data):
        del parts[:skipped]
    for number, doc in enumerate(bin_.get_docs(nlp.vocab), skipped + 1):
        yield Source(f"{path}#{number}", doc)


def open_table(path: str, text_field: str, id_field: str) -> tuple[ParquetFile, list[str]]:
    """A table and those of its columns that are read.

    Raises:
        ExtractionError: The file is damaged, or has no such text column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ExtractionError(f"{path} is no readable .parquet file ({error}).") from error
    schema = table.schema_arrow
    if text_field not in schema.names:
        names = ", ".join(f'"{name}"' for name in schema.names)
        table.close()
        raise ExtractionError(f'{path} has no column "{text_field}": give one of {names} by --text-field.')
    type_ = schema.field(text_field).type
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    if not (pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)):
        table.close()
        raise ExtractionError(f'{path}: the column "{text_field}" holds {type_}, but a text is a string.')
    return table, [text_field, *([id_field] if id_field in schema.names and id_field != text_field else [])]


def _read_rows(path: str, text_field: str, id_field: str, skipped: int) -> Iterator[Source]:
    """The rows of a table, some hundreds in memory at a time."""
    table, columns = open_table(path, text_field, id_field)
    with table:
        groups = list(range(table.num_row_groups))
        number = 0
        while groups and number + (rows := table.metadata.row_group(groups[0]).num_rows) <= skipped:
            number += rows
            del groups[0]
        batches = table.iter_batches(batch_size=_ROWS, row_groups=groups, columns=columns)
        while (batch := _next_batch(path, batches)) is not None:
            before = min(max(skipped - number, 0), len(batch))
            number += before
            yield from _read_batch(path, batch.slice(before), text_field, id_field, number + 1)
            number += len(batch) - before


def _next_batch(path: str, batches: Iterator[Any]) -> Any:
    try:
        return next(batches, None)
    except (ValueError, OSError) as error:  # of Arrow, by what is damaged
        raise ExtractionError(f"{path} is no readable .parquet file ({error}).") from error


def _read_batch(path: str, batch: Any, text_field: str, id_field: str, first: int) -> Iterator[Source]:
    import pyarrow as pa

    # As bytes: Arrow does not look whether its strings are UTF-8.
    texts = batch.column(text_field).cast(pa.large_binary())
    ids = batch.column(id_field) if id_field in batch.schema.names else None
    for row in range(len(batch)):
        place, id = f"{path}#{first + row}", None
        try:
            id = ids[row].as_py() if ids is not None else None
        except UnicodeDecodeError:
            yield Source(place, error=f'no UTF-8 in the field "{id_field}"')
            continue
        text = texts[row].as_py()
        if text is None:
            yield Source(place, error=f'no text in the field "{text_field}"')
        else:
            yield _read_text(place if id is None else str(id), text)


def _read_lines(
    path: str, stream: BinaryIO, format: str, text_field: str, id_field: str, skipped: int = 0
) -> Iterator[Source]:
    for number, line in enumerate(stream, skipped + 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        source = _read_text(place, line.rstrip(b"\r\n"))
        if format == "jsonl" and isinstance(source.content, str):
            source = _read_record(place, source.content, text_field, id_field)
        yield source


def _read_text(id: str, data: bytes) -> Source:
    try:
        return Source(id, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Source(id, error=f"not UTF-8 (byte {error.start}: {error.reason})")


def _read_record(place: str, line: str, text_field: str, id_field: str) -> Source:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Source(place, error=f"no JSON ({error})")
    if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
        return Source(place, error=f'no text in the field "{text_field}"')
    id, text = str(record.get(id_field, place)), record[text_field]
    try:
        f"{id}{text}".encode()
    except UnicodeEncodeError:
        return Source(place, error="half of a surrogate pair, which is no character")
    return Source(id, text)
