"""The format "prodigy": JSON lines of Prodigy's relation recipes, as written by `prodigy db-out`.

    {"text": "Ann of Oslo", "tokens": [{"text": "Ann", "start": 0, "end": 3, "id": 0, "ws": true}, …],
     "spans": [{"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER"}, …],
     "relations": [{"head": 0, "child": 2, "label": "lives in", "head_span": {…}, "child_span": {…}}],
     "answer": "accept"}

`token_end` is the last token of a span, not the one after it. `head` and `child` are tokens, usually the last ones of
their spans.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Malformed, Record, Reject, parse_rows
from spacy_slmre.corpus.sources import read_json

_SKIPPED = {"reject": "rejected by the annotator", "ignore": "ignored by the annotator"}


def read_prodigy(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read accepted examples; rejected and ignored ones are counted.

    Args:
        source: The .jsonl file.
        split: The split, used in the identifiers of examples without one.
    """
    return parse_rows(read_json(source), _parse, split, _ids)


def _ids(row: dict[str, Any]) -> list[Any]:
    meta = row.get("meta")
    return [meta.get("id")] if isinstance(meta, Mapping) else []


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    answer = row.get("answer", "accept")
    if answer != "accept":
        yield Reject(line, id, _SKIPPED.get(answer, "unknown answer"), f"answer: {answer}")
        return
    builder = RecordBuilder(row["text"], line=line, id=id)
    tokens = row.get("tokens") or []
    for token in tokens:
        if row["text"][token["start"] : token["end"]] != token["text"]:
            raise Malformed(f"the token {token['text']!r} is not at [{token['start']}:{token['end']}] of the text")
    spans = row.get("spans") or []
    for number, span in enumerate(spans):
        builder.add_entity(number, span["start"], span["end"], span.get("label"), covered=span.get("text"))
    for relation in row["relations"]:
        head, tail = (_argument(builder, relation, side, tokens, spans) for side in ("head", "child"))
        if head is None or tail is None:
            builder.reject_relation(
                "ambiguous or missing argument", f"{relation.get('label')!r}: see the tokens and spans"
            )
            continue
        builder.add_relation(head, tail, relation.get("label"))
    yield from builder.build()


def _argument(
    builder: RecordBuilder,
    relation: Mapping[str, Any],
    side: str,
    tokens: Sequence[Mapping[str, Any]],
    spans: Sequence[Mapping[str, Any]],
) -> Hashable:
    """Return the key of the entity at one side of a relation, None if it cannot be determined."""
    token, span = relation[side], relation.get(f"{side}_span") or {}
    if "start" in span and "end" in span:
        return builder.key_at(span["start"], span["end"], span.get("label"))
    if not isinstance(token, int) or not 0 <= token < len(tokens):
        return None
    start, end = tokens[token]["start"], tokens[token]["end"]
    containing = [number for number, one in enumerate(spans) if one["start"] <= start and end <= one["end"]]
    ending = [number for number in containing if spans[number]["end"] == end]
    if not containing:
        return builder.key_at(start, end)
    if len(containing) == 1 or len(ending) == 1:
        return (containing if len(containing) == 1 else ending)[0]
    return None


def _is_example(row: dict[str, Any]) -> bool:
    return (
        isinstance(row.get("text"), str)
        and isinstance(row.get("relations"), list)
        and all(isinstance(one, dict) and "child" in one for one in row["relations"])
        and "entities" not in row
        and ("tokens" in row or "spans" in row)
    )


PRODIGY = CorpusFormat(
    name="prodigy", title="Prodigy", read=read_prodigy, recognize=lambda sample: sample.share(_is_example)
)
