"""Documents from text files, JSONL, Parquet, `.spacy` files and standard input."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_slmre.util.errors import describe
from spacy_slmre.util.io import list_files, path_text
from spacy_slmre.util.run_folder import partial_dir

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

FORMATS = ("txt", "lines", "jsonl", "parquet", "spacy")
_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".parquet": "parquet", ".spacy": "spacy"}
_TEXT_FORMATS = ("txt", "lines", "jsonl")
# Number of table rows in memory at a time.
_ROWS = 256


class ExtractionError(ValueError):
    """An input, output or setting of an extraction cannot be used."""


@dataclass(frozen=True)
class InputDocument:
    """A document to process: its id, and its content or an error.

    Attributes:
        labels: Labels to predict in a text, if they differ from those of the component.
    """

    id: str
    content: str | Doc | None = None
    error: str | None = None
    labels: Any = None


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
    paths: Sequence[str],
    format: str | None = None,
    output: Path | None = None,
    text_field: str = "text",
    log: Callable[[str], None] = lambda message: None,
) -> list[tuple[str, str]]:
    """Return the input files with their formats; folders are searched recursively, in alphabetical order.

    Text files may be compressed (.txt.gz, .jsonl.gz). A file that is named several times is read once.

    Args:
        paths: Files, folders, or "-" for standard input.
        format: "txt" (one document per file), "lines" (one per line), "jsonl", "parquet" (one per row) or "spacy".
            By default, it is inferred from the suffix; standard input is JSONL. In folders, only files with a suffix of
            this format are read.
        output: Output of the run, which is skipped if it is in one of the folders, as are hidden files.
        text_field: Text column that every table must have.
        log: Reports what is skipped in folders.

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
            inputs += _search(Path(path), format, output, log)
        elif not Path(path).is_file():
            raise ExtractionError(f"The input {path} does not exist.")
        elif file_format := format or _guess_format(Path(path)):
            inputs.append((path, file_format))
        else:
            raise ExtractionError(f"{path}: unknown suffix. Set the format to one of {', '.join(FORMATS)}.")
    distinct: dict[str, tuple[str, str]] = {}
    for path, file_format in inputs:
        distinct.setdefault(path if path == "-" else os.path.abspath(path), (path, file_format))
    if repeated := len(inputs) - len(distinct):
        inputs = list(distinct.values())
        log(f"Files that are named several times, but read only once: {repeated}.")
    for path, file_format in inputs:
        if file_format == "parquet":
            open_table(path, text_field).close()
    return inputs


def _search(folder: Path, format: str | None, output: Path | None, log: Callable[[str], None]) -> list[tuple[str, str]]:
    own = [] if output is None else [output.resolve(), partial_dir(output).resolve()]
    wanted = "txt" if format == "lines" else format
    inputs: list[tuple[str, str]] = []
    skipped: Counter[str] = Counter()
    for file in list_files(folder, skipped):
        if any(file.resolve().is_relative_to(path) for path in own):
            continue
        if (guess := _guess_format(file)) and wanted in (None, guess):
            inputs.append((str(file), format or guess))
        else:
            skipped[f"{file.suffix.lower() or 'other'} file"] += 1
    counts = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in skipped.items())
    if not inputs:
        found = f", but {counts}" if counts else ""
        suffixes = [suffix for suffix, guess in _SUFFIXES.items() if wanted in (None, guess)]
        raise ExtractionError(f"The folder {folder} contains no {', '.join(suffixes)} files{found}.")
    if counts:
        log(f"Skipped in {folder}: {counts}.")
    return inputs


def _guess_format(file: Path) -> str | None:
    name = Path(file.name.lower())
    if name.suffix == ".gz":
        inner = _SUFFIXES.get(Path(name.stem).suffix)
        return inner if inner in _TEXT_FORMATS else None
    return _SUFFIXES.get(name.suffix)


def read_inputs(
    inputs: Sequence[tuple[str, str]],
    vocab: Vocab,
    stdin: BinaryIO | Path,
    text_field: str = "text",
    id_field: str = "id",
    start: Position = Position(),
    counts: Iterable[int] | None = None,
) -> Iterator[InputDocument]:
    """Read the documents of all inputs in order; unreadable documents are yielded with an error.

    Args:
        inputs: Files with their formats, from `find_inputs`.
        vocab: Vocabulary for the documents of `.spacy` files.
        stdin: Stream for the path "-", or a file with a copy of it.
        text_field: Field or column of the text.
        id_field: Field or column of the id; documents without an id are named after their position.
        start: Position of the first document.
        counts: Number of documents of each input from there on, if known. If a file can no longer be read, each of its
            remaining documents is yielded with an error; if their number is unknown, there is one error for the file.

    Raises:
        ExtractionError: A file has fewer documents than given by `counts`.
    """
    for (path, format), count in zip(inputs[start.input :], repeat(None) if counts is None else counts, strict=False):
        read = 0
        try:
            documents = _read_input(path, format, vocab, stdin, text_field, id_field, start)
            for document in islice(documents, count):
                read += 1
                yield document
        except ExtractionError as error:
            name = path_text(path)
            missing = [""] if count is None else [f"#{start.items + n + 1}" for n in range(read, count)]
            yield from (InputDocument(f"{name}{place}", error=str(error)) for place in missing)
        else:
            if count is not None and read < count:
                raise ExtractionError(
                    f"{path} has {count - read} documents fewer than when the run started: the inputs have changed. "
                    "Start over with overwrite."
                )
        start = Position()


def _read_input(
    path: str, format: str, vocab: Vocab, stdin: BinaryIO | Path, text_field: str, id_field: str, start: Position
) -> Iterator[InputDocument]:
    if format == "spacy":
        yield from _read_docs(path, vocab, start.items)
    elif format == "parquet":
        yield from _read_table(path, text_field, id_field, start.items)
    elif format == "txt":
        yield _read_text(path, stdin)
    else:
        with open_input(path, stdin) as stream:
            if start.offset:
                stream.seek(start.offset)
            yield from _read_lines(path, stream, format, text_field, id_field, start.items)


@contextmanager
def open_input(path: str, stdin: BinaryIO | Path | None = None) -> Iterator[BinaryIO]:
    """Open a file, which may be compressed, or return standard input for "-".

    Raises:
        ExtractionError: The file cannot be opened, or (while reading) is damaged.
    """
    if path == "-" and isinstance(stdin, Path):
        path = str(stdin)
    elif path == "-" and stdin is not None:
        yield cast(BinaryIO, stdin)
        return
    try:
        with gzip.open(path) if path.lower().endswith(".gz") else Path(path).open("rb") as file:
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or describe(error)
        raise ExtractionError(f"The input {path} cannot be read: {reason}.") from error


def _read_text(path: str, stdin: BinaryIO | Path) -> InputDocument:
    with open_input(path, stdin) as stream:
        return _decode(path_text(path), stream.read())


def _read_lines(
    path: str, stream: BinaryIO, format: str, text_field: str, id_field: str, skipped: int
) -> Iterator[InputDocument]:
    name = path_text(path)
    for number, line in enumerate(stream, skipped + 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
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
    id, text = record.get(id_field), record[text_field]
    id = place if id is None else str(id)
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
    name, found = path_text(path), docs.get_docs(vocab)
    # At the end of a `Vocab.memory_zone`, strings are removed. If the marker is missing, add them again.
    marker = f"strings of {name}"
    for number in range(skipped + 1, skipped + len(docs) + 1):
        if marker not in vocab.strings:
            for string in (*docs.strings, marker):
                vocab.strings.add(string)
        try:
            doc = next(found)
        except Exception as error:  # any kind, depending on where the file is damaged
            raise ExtractionError(f"{path} is damaged at document {number} ({describe(error)}).") from error
        yield InputDocument(f"{name}#{number}", doc)


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
        name = path_text(path)
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
                yield _parse_row(f"{name}#{number + row + 1}", texts[row], ids[row], text_field, id_field)
            number += len(batch)


def _parse_row(place: str, text: Any, id: Any, text_field: str, id_field: str) -> InputDocument:
    try:
        id = None if id is None else id.as_py()
    except UnicodeDecodeError:
        return InputDocument(place, error=f'not UTF-8 in the field "{id_field}"')
    if text.as_py() is None:
        return InputDocument(place, error=f'no text in the field "{text_field}"')
    return _decode(place if id is None else str(id), text.as_py())
