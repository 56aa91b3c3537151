"""Documents from text files, JSONL, `.spacy` files and standard input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spacy.language import Language
from spacy.tokens import Doc, DocBin

FORMATS = ("txt", "lines", "jsonl", "spacy")


class ExtractionError(ValueError):
    """Input or output cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A document to be read: its id, and its content or what is wrong with it."""

    id: str
    content: str | Doc | None = None
    error: str | None = None


def find_inputs(
    paths: Sequence[str], format: str | None = None, output: Path | None = None
) -> list[tuple[str, str]]:
    """The input files with their formats; folders give the files in them, by name.

    Args:
        paths: Files, folders, or "-" for standard input.
        format: "txt" (a file is a document), "lines" (a line is one), "jsonl" or "spacy"; None goes by the
            ending, and takes standard input for JSONL.
        output: What is written, which is no input where it lies in one of the folders.

    Raises:
        ExtractionError: A path does not exist, a folder holds nothing to read, or a format is unknown.
    """
    if format is not None and format not in FORMATS:
        raise ExtractionError(f'Unknown input format "{format}": use one of {", ".join(FORMATS)}.')
    inputs: list[tuple[str, str]] = []
    for path in paths:
        if path == "-":
            inputs.append(("-", format or "jsonl"))
        elif Path(path).is_dir():
            files = sorted(
                file
                for file in Path(path).rglob("*")
                if _format_of(file) and file.is_file() and not _is_part_of(file, output)
            )
            if not files:
                raise ExtractionError(f"The folder {path} holds no .txt, .jsonl or .spacy file.")
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
    own = (output.resolve(), output.with_name(output.name + ".part").resolve())
    return any(file.resolve().is_relative_to(path) for path in own)


def _format_of(file: Path) -> str | None:
    return {".txt": "txt", ".jsonl": "jsonl", ".spacy": "spacy"}.get(file.suffix)


def read_sources(
    inputs: Iterable[tuple[str, str]],
    nlp: Language,
    stdin: BinaryIO,
    text_field: str = "text",
    id_field: str = "id",
) -> Iterator[Source]:
    """The documents of all inputs, in order; what cannot be read of them is told in its place.

    Raises:
        ExtractionError: A `.spacy` file is damaged as a whole.
    """
    for path, format in inputs:
        if format == "spacy":
            try:
                docs = DocBin().from_disk(path).get_docs(nlp.vocab)
            except Exception as error:
                raise ExtractionError(f"{path} is no readable .spacy file ({error}).") from error
            yield from (Source(f"{path}#{number}", doc) for number, doc in enumerate(docs, 1))
        elif format == "txt":
            yield _read_text(path, stdin.read() if path == "-" else Path(path).read_bytes())
        elif path == "-":
            yield from _read_lines(path, stdin, format, text_field, id_field)
        else:
            with Path(path).open("rb") as stream:
                yield from _read_lines(path, stream, format, text_field, id_field)


def _read_lines(path: str, stream: BinaryIO, format: str, text_field: str, id_field: str) -> Iterator[Source]:
    for number, line in enumerate(stream, 1):
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
