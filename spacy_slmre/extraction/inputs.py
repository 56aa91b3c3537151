"""Documents from text files, JSONL, Parquet, `.spacy` files and standard input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_slmre.util.run_folder import partial_dir

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

FORMATS = ("txt", "lines", "jsonl", "parquet", "spacy")
_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".parquet": "parquet", ".spacy": "spacy"}
# Number of table rows in memory at a time.
_ROWS = 256


class ExtractionError(ValueError):
    """An input, output or setting of an extraction cannot be used."""


@dataclass(frozen=True)
class InputDocument:
    """A document to process: its id, and its content or an error."""

    id: str
    content: str | Doc | None = None
    error: str | None = None


@dataclass(frozen=True)
class Position:
    """A position in the inputs at which reading can start.

    Attributes:
        input: Index of the input.
        items: Number of lines, rows or documents of this input to skip.
        offset: Byte offset of the next line, for line-based formats.
    """

    input: int = 0
    items: int = 0
    offset: int = 0


def find_inputs(
    paths: Sequence[str], format: str | None = None, output: Path | None = None, text_field: str = "text"
) -> list[tuple[str, str]]:
    """Return the input files with their formats; folders are searched recursively, in alphabetical order.

    Args:
        paths: Files, folders, or "-" for standard input.
        format: "txt" (one document per file), "lines" (one per line), "jsonl", "parquet" (one per row) or "spacy".
            By default, it is inferred from the suffix; standard input is JSONL.
        output: Output of the run, which is skipped if it is in one of the folders, as are hidden files.
        text_field: Text column that every table must have.

    Raises:
        ExtractionError: A path does not exist, a folder contains no inputs, a format is unknown, or a table is
            damaged or has no such column.
    """
    if format is not None and format not in FORMATS:
        raise ExtractionError(f'Unknown input format "{format}". Use one of {", ".join(FORMATS)}.')
    inputs: list[tuple[str, str]] = []
    for path in paths:
        if path == "-":
            if format == "parquet":
                raise ExtractionError("Parquet cannot be read from standard input. Use a file.")
            inputs.append(("-", format or "jsonl"))
        elif Path(path).is_dir():
            files = [file for file in sorted(Path(path).rglob("*")) if _is_input(file, Path(path), output)]
            if not files:
                raise ExtractionError(f"The folder {path} contains no {', '.join(_SUFFIXES)} files.")
            inputs += [(str(file), format or _SUFFIXES[file.suffix]) for file in files]
        elif not Path(path).is_file():
            raise ExtractionError(f"The input {path} does not exist.")
        elif file_format := format or _SUFFIXES.get(Path(path).suffix):
            inputs.append((path, file_format))
        else:
            raise ExtractionError(f"{path}: unknown suffix. Set the format to one of {', '.join(FORMATS)}.")
    for path, file_format in inputs:
        if file_format == "parquet":
            open_table(path, text_field).close()
    return inputs


def _is_input(file: Path, folder: Path, output: Path | None) -> bool:
    if file.suffix not in _SUFFIXES or not file.is_file():
        return False
    if any(part.startswith(".") for part in file.relative_to(folder).parts):
        return False
    own = [] if output is None else [output.resolve(), partial_dir(output).resolve()]
    return not any(file.resolve().is_relative_to(path) for path in own)


def read_inputs(
    inputs: Sequence[tuple[str, str]],
    vocab: Vocab,
    stdin: BinaryIO,
    text_field: str = "text",
    id_field: str = "id",
    start: Position = Position(),
) -> Iterator[InputDocument]:
    """Read the documents of all inputs in order; unreadable documents are yielded with an error.

    Args:
        inputs: Files with their formats, from `find_inputs`.
        vocab: Vocabulary for the documents of `.spacy` files.
        stdin: Stream for the path "-".
        text_field: Field or column of the text.
        id_field: Field or column of the id; documents without one are named after their position.
        start: Position of the first document.

    Raises:
        ExtractionError: A file cannot be opened, or a `.spacy` or `.parquet` file is damaged.
    """
    for path, format in inputs[start.input :]:
        if format == "spacy":
            yield from _read_docs(path, vocab, start.items)
        elif format == "parquet":
            yield from _read_table(path, text_field, id_field, start.items)
        else:
            with open_input(path, stdin) as stream:
                if format == "txt":
                    yield _decode(path, stream.read())
                else:
                    if start.offset:
                        stream.seek(start.offset)
                    yield from _read_lines(path, stream, format, text_field, id_field, start.items)
        start = Position()


@contextmanager
def open_input(path: str, stdin: BinaryIO | None = None) -> Iterator[BinaryIO]:
    """Open a file, or return standard input for "-".

    Raises:
        ExtractionError: The file cannot be opened.
    """
    if path == "-" and stdin is not None:
        yield stdin
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ExtractionError(f"The input {path} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def _read_lines(
    path: str, stream: BinaryIO, format: str, text_field: str, id_field: str, skipped: int
) -> Iterator[InputDocument]:
    for number, line in enumerate(stream, skipped + 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        document = _decode(place, line.rstrip(b"\r\n"))
        if format == "jsonl" and isinstance(document.content, str):
            document = _parse_record(place, document.content, text_field, id_field)
        yield document


def _decode(id: str, data: bytes) -> InputDocument:
    try:
        return InputDocument(id, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return InputDocument(id, error=f"not UTF-8 (byte {error.start}: {error.reason})")


def _parse_record(place: str, line: str, text_field: str, id_field: str) -> InputDocument:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputDocument(place, error=f"invalid JSON ({error})")
    if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
        return InputDocument(place, error=f'no text in the field "{text_field}"')
    id, text = str(record.get(id_field, place)), record[text_field]
    try:
        f"{id}{text}".encode()
    except UnicodeEncodeError:
        return InputDocument(place, error="unpaired surrogate, which is not a valid character")
    return InputDocument(id, text)


def open_docbin(path: str) -> DocBin:
    """Load a `.spacy` file without creating its documents.

    Raises:
        ExtractionError: The file is damaged.
    """
    try:
        return DocBin().from_disk(path)
    except Exception as error:  # zlib, msgpack or key errors, depending on where the file is damaged
        raise ExtractionError(f"{path} is not a readable .spacy file ({error}).") from error


def _read_docs(path: str, vocab: Vocab, skipped: int) -> Iterator[InputDocument]:
    docs = open_docbin(path)
    # Creating documents is expensive, so skipped ones are removed from the packed data.
    for column in (docs.tokens, docs.spaces, docs.cats, docs.span_groups, docs.flags, docs.user_data):
        del column[:skipped]
    for number, doc in enumerate(docs.get_docs(vocab), skipped + 1):
        yield InputDocument(f"{path}#{number}", doc)


def open_table(path: str, text_field: str) -> ParquetFile:
    """Open a Parquet file.

    Raises:
        ExtractionError: The file is damaged, or has no text column with this name.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with _parquet_errors(path):
        table = parquet.ParquetFile(path)
    schema = table.schema_arrow
    problem = None
    if text_field not in schema.names:
        columns = ", ".join(f'"{name}"' for name in schema.names)
        problem = f'{path} has no column "{text_field}". Set the text field to one of {columns}.'
    elif repeated := [name for name in schema.names if schema.names.count(name) > 1]:
        problem = f'{path}: more than one column is named "{repeated[0]}". Rename all but one.'
    else:
        type_ = schema.field(text_field).type
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(check(type_) for check in is_text):
            problem = f'{path}: the column "{text_field}" has type {type_}, expected strings.'
    if problem is not None:
        table.close()
        raise ExtractionError(problem)
    return table


@contextmanager
def _parquet_errors(path: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:  # depending on where the file is damaged
        raise ExtractionError(f"{path} is not a readable .parquet file ({error}).") from error


def _read_table(path: str, text_field: str, id_field: str, skipped: int) -> Iterator[InputDocument]:
    import pyarrow as pa

    with open_table(path, text_field) as table:
        columns = {text_field, id_field} & set(table.schema_arrow.names)
        groups = list(range(table.num_row_groups))
        number = 0
        while groups and number + (rows := table.metadata.row_group(groups[0]).num_rows) <= skipped:
            number += rows
            del groups[0]
        batches = table.iter_batches(batch_size=_ROWS, row_groups=groups, columns=list(columns))
        while True:
            with _parquet_errors(path):
                batch = next(batches, None)
            if batch is None:
                return
            # As bytes, because Arrow does not check that strings are UTF-8.
            texts = batch.column(text_field).cast(pa.large_binary())
            ids = batch.column(id_field) if id_field in columns else [None] * len(batch)
            for row in range(max(skipped - number, 0), len(batch)):
                yield _parse_row(f"{path}#{number + row + 1}", texts[row], ids[row], text_field, id_field)
            number += len(batch)


def _parse_row(place: str, text: Any, id: Any, text_field: str, id_field: str) -> InputDocument:
    try:
        id = None if id is None else id.as_py()
    except UnicodeDecodeError:
        return InputDocument(place, error=f'not UTF-8 in the field "{id_field}"')
    if text.as_py() is None:
        return InputDocument(place, error=f'no text in the field "{text_field}"')
    return _decode(place if id is None else str(id), text.as_py())
