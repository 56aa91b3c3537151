"""Extraction results: one JSON line per document, or `.spacy` files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spacy.tokens import Doc, DocBin

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.facts import LEVELS, make_facts
from spacy_slmre.relations import RELATIONS


@dataclass(frozen=True)
class ExtractionResult:
    """A processed document, or the error that occurred."""

    id: str
    doc: Doc | None = None
    error: str | None = None


def check_suffix(output: Path) -> None:
    """Raise an ExtractionError if an output does not end with `.jsonl` or `.spacy`."""
    if output.suffix not in (".jsonl", ".spacy"):
        raise ExtractionError(f"The output {output} must end with .jsonl or .spacy.")


def write_results(
    results: Iterable[ExtractionResult], file: Path, attr: str = RELATIONS, level: str = LEVELS[0]
) -> None:
    """Write results in order, as a stream to a `.jsonl` file or all at once to a `.spacy` file.

    A `.spacy` file cannot contain failed documents. A `.json` file next to it lists the ids of all documents in order,
    with the errors of those that failed. Relations are read from `doc._.<attr>`. With the level "facts", JSON lines
    also contain the facts; those of a `.spacy` file follow from its relations.
    """
    if file.suffix == ".jsonl":
        with file.open("wb") as stream:
            for result in results:
                stream.write(_json_line(result, attr, level))
            stream.flush()
            os.fsync(stream.fileno())
        return
    docs = DocBin(store_user_data=True)
    entries: list[dict[str, str | None]] = []
    for result in results:
        if result.doc is not None:
            docs.add(result.doc)
            entries.append({"id": result.id})
        else:
            entries.append({"id": result.id, "error": result.error})
    docs.to_disk(file)
    file.with_suffix(".json").write_text(json.dumps(entries), encoding="utf-8")


def _json_line(result: ExtractionResult, attr: str, level: str) -> bytes:
    if result.doc is None:
        document = RelationDocument(result.id, "", error=result.error)
    else:
        document = RelationDocument.from_doc(result.doc, result.id, attr)
    data = {**document.to_dict(), "id": result.id}  # the id in `doc.user_data` may differ
    if level == "facts" and result.doc is not None:
        data["facts"] = [fact.to_dict() for fact in make_facts(document)]
    try:
        return json.dumps(data, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # an unpaired surrogate, which must be escaped
        return json.dumps(data).encode("ascii") + b"\n"
