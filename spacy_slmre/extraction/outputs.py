"""Extraction results: one JSON line per document, or `.spacy` files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from spacy.tokens import Doc, DocBin

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.facts import LEVELS, make_facts
from spacy_slmre.relations import RELATIONS
from spacy_slmre.util.errors import describe
from spacy_slmre.util.io import atomic_write, sync


@dataclass(frozen=True)
class ExtractionResult:
    """A processed document, or the error that occurred."""

    id: str
    doc: Doc | None = None
    error: str | None = None

    def to_document(self, attr: str = RELATIONS) -> RelationDocument:
        """Return the neutral form of the document, with relations from `doc._.<attr>`, or of its error."""
        if self.doc is None:
            return RelationDocument(self.id, "", error=self.error)
        # The id in `doc.user_data` may differ.
        return replace(RelationDocument.from_doc(self.doc, self.id, attr), id=self.id)


def check_suffix(output: Path) -> None:
    """Raise an ExtractionError if an output does not end with `.jsonl` or `.spacy`."""
    if output.suffix not in (".jsonl", ".spacy"):
        raise ExtractionError(f"The output {output} must end with .jsonl or .spacy.")


def write_results(
    results: Iterable[ExtractionResult],
    file: Path,
    attr: str = RELATIONS,
    level: str = LEVELS[0],
    on_result: Callable[[ExtractionResult], None] = lambda result: None,
) -> None:
    """Write results in order, as a stream to a `.jsonl` file or all at once to a `.spacy` file.

    A `.spacy` file cannot contain failed documents. A `.json` file next to it lists the ids of all documents in order,
    with the errors of those that failed. A document that cannot be stored, for example because of its
    `doc.user_data`, counts as failed, too.

    Args:
        results: The results.
        file: The file to write.
        attr: Relations are read from `doc._.<attr>`.
        level: With "facts", JSON lines also contain the facts; in a `.spacy` file, they follow from the relations.
        on_result: Called with each result as it was stored.
    """
    if file.suffix == ".jsonl":
        with file.open("wb") as stream:
            for result in results:
                try:
                    line = _json_line(result, attr, level)
                except Exception as error:
                    result = _not_stored(result, error)
                    line = _json_line(result, attr, level)
                stream.write(line)
                on_result(result)
            sync(stream)
        return
    docs = DocBin(store_user_data=True)
    entries: list[dict[str, str | None]] = []
    for result in results:
        if result.doc is not None:
            try:
                # Try each document on its own first: one that fails would leave part of itself in the file.
                single = DocBin(store_user_data=True, docs=[result.doc])
                getattr(result.doc._, attr)
            except Exception as error:
                result = _not_stored(result, error)
            else:
                docs.merge(single)
        entries.append({"id": result.id, **({"error": result.error} if result.doc is None else {})})
        on_result(result)
    atomic_write(file, docs.to_bytes())
    atomic_write(file.with_suffix(".json"), json.dumps(entries))


def _not_stored(result: ExtractionResult, error: Exception) -> ExtractionResult:
    return ExtractionResult(result.id, error=f"cannot be stored: {describe(error)}")


def _json_line(result: ExtractionResult, attr: str, level: str) -> bytes:
    document = result.to_document(attr)
    data = document.to_dict()
    if level == "facts" and result.doc is not None:
        data["facts"] = [fact.to_dict() for fact in make_facts(document)]
    try:
        return json.dumps(data, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # an unpaired surrogate, which must be escaped
        return json.dumps(data).encode("ascii") + b"\n"
