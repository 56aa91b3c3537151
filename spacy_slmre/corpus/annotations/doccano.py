"""The format "doccano": JSON lines of a project with relations.

{"id": 1, "text": "Ann of Oslo", "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3}, …],
 "relations": [{"id": 2, "from_id": 7, "to_id": 8, "type": "lives in"}], "Comments": []}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Record, Reject, parse_rows
from spacy_slmre.corpus.sources import Sample, read_json

DOCUMENT = "document"
"""Column with our id of a document, which doccano keeps; its own id is a number."""


def read_doccano(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read an export with relations.

    Args:
        source: The .jsonl file.
        split: The split, used in the identifiers of texts without one.
    """
    return parse_rows(read_json(source), _parse, split, lambda row: (row.get(DOCUMENT), row.get("id")))


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    builder = RecordBuilder(row["text"], line=line, id=id)
    for entity in row["entities"]:
        builder.add_entity(entity["id"], entity["start_offset"], entity["end_offset"], entity.get("label"))
    for relation in row["relations"]:
        builder.add_relation(relation["from_id"], relation["to_id"], relation.get("type"))
    yield from builder.build()


def _recognize(sample: Sample) -> float:
    # Texts without entities could be of our own JSON form.
    is_certain = any(_is_example(row) and (row["entities"] or "Comments" in row) for row in sample.rows)
    return sample.share(_is_example) if is_certain else 0.0


def _is_example(row: dict[str, Any]) -> bool:
    return (
        {"text", "entities", "relations"} <= row.keys()
        and isinstance(row["entities"], list)
        and all(isinstance(one, dict) and {"start_offset", "end_offset"} <= one.keys() for one in row["entities"])
    )


DOCCANO = CorpusFormat(name="doccano", title="doccano", read=read_doccano, recognize=_recognize)
