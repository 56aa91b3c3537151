"""Reading documents with relations from Docs, JSONL and `.spacy` files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import spacy
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from spacy_slmre.corpus.docbin import corpus_files, read_docs
from spacy_slmre.documents import DocumentError, RelationDocument
from spacy_slmre.relations import RELATIONS, predicted_attributes, span_as_doc
from spacy_slmre.util.io import list_files
from spacy_slmre.util.run_folder import RUN_FILE


def as_documents(
    docs: Doc | Span | RelationDocument | Iterable[Doc | Span | RelationDocument], attr: str = RELATIONS
) -> Iterator[RelationDocument]:
    """Convert one or several documents; repeated ids get a suffix, as in `read_documents`.

    Raises:
        DocumentError: An item is neither a Doc, a Span nor a RelationDocument.
    """
    if isinstance(docs, Doc | Span | RelationDocument):
        docs = [docs]
    seen: dict[str, int] = {}
    for number, doc in enumerate(docs, 1):
        if isinstance(doc, Span):
            doc = span_as_doc(doc)
        if isinstance(doc, Doc):
            doc = RelationDocument.from_doc(doc, f"doc-{number}", attr)
        if not isinstance(doc, RelationDocument):
            raise DocumentError(f"Expected a Doc, a Span or a RelationDocument, but found {doc!r}.")
        yield _with_unique_id(doc, seen)


def read_documents(paths: Iterable[str], stdin: BinaryIO, *, attr: str = RELATIONS) -> Iterator[RelationDocument]:
    """Read documents from files, with only one document or `.spacy` shard in memory at a time.

    Repeated ids get a suffix (`ID~2`, …), so that they are unique.

    Args:
        paths: JSONL files written by `slmre extract`, `.spacy` files, folders of `.spacy` files, or "-"
            for JSONL from standard input.
        stdin: Standard input.
        attr: In `.spacy` files, relations are read from `doc._.<attr>`.

    Raises:
        DocumentError: A path does not exist, is named twice or has an unknown suffix, a line is malformed, or a
            pipeline wrote its relations to another attribute.
        CorpusError: A `.spacy` file is damaged.
    """
    paths = list(paths)
    for path in paths:
        if path == "-":
            continue
        if not Path(path).exists():
            raise DocumentError(f"The input {path} does not exist.")
        if Path(path).suffix not in (".jsonl", ".spacy") and not Path(path).is_dir():
            raise DocumentError(
                f"{path}: unknown suffix. Relations are read from .jsonl files written by `python -m spacy "
                "slmre extract`, from .spacy files and from folders of .spacy files."
            )
    resolved = [path if path == "-" else str(Path(path).resolve()) for path in paths]
    if repeated := next((path for path, place in zip(paths, resolved, strict=True) if resolved.count(place) > 1), None):
        raise DocumentError(f"The input {repeated} is named more than once, so its relations would be counted twice.")
    seen: dict[str, int] = {}
    for path in paths:
        for document in _read_path(path, stdin, attr):
            yield _with_unique_id(document, seen)


def input_files(paths: Iterable[str]) -> list[str]:
    """Return the files in all inputs that are folders."""
    folders = (path for path in paths if path != "-" and Path(path).is_dir())
    return [str(file) for folder in folders for file in list_files(Path(folder))]


def _read_path(path: str, stdin: BinaryIO, attr: str) -> Iterator[RelationDocument]:
    if path == "-":
        yield from _read_lines("-", stdin)
    elif Path(path).suffix == ".jsonl":
        with Path(path).open("rb") as stream:
            yield from _read_lines(path, stream)
    else:
        vocab = spacy.blank("xx").vocab
        for file in corpus_files(path):
            yield from _read_shard(file, vocab, attr)


def _read_shard(file: Path, vocab: Vocab, attr: str) -> Iterator[RelationDocument]:
    for number, doc in enumerate(read_docs(file, vocab), 1):
        if (predicted := predicted_attributes(doc)) and attr not in predicted:
            raise DocumentError(
                f"{file}: the relations were not written to doc._.{attr}, but to doc._.{', doc._.'.join(predicted)}. "
                f'Set attr to "{predicted[0]}".'
            )
        yield RelationDocument.from_doc(doc, f"{file}#{number}", attr)
    # In its output folder, `slmre extract` lists the documents that failed in a file next to the shard.
    status = file.with_suffix(".json")
    if not status.is_file() or not (file.parent / RUN_FILE).is_file():
        return
    try:
        entries = json.loads(status.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{status}: invalid JSON ({error}).") from error
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("error"), str):
            yield RelationDocument.from_dict(entry, str(status))


def _read_lines(path: str, stream: Iterable[bytes]) -> Iterator[RelationDocument]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            source = f"{path}:{number}"
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DocumentError(f"{source}: invalid JSON ({error}).") from error
            yield RelationDocument.from_dict(entry, source)


def _with_unique_id(document: RelationDocument, seen: dict[str, int]) -> RelationDocument:
    count = seen[document.id] = seen.get(document.id, 0) + 1
    if count == 1:
        return document
    return _with_unique_id(replace(document, id=f"{document.id}~{count}"), seen)
