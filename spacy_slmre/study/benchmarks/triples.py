"""Benchmarks that list relations of a text as triples: NYT, GIDS, REBEL and PG-Fiction."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import (
    UNTYPED,
    Malformed,
    Pair,
    Record,
    Reject,
    find_occurrences,
    parse_rows,
    place_pair,
)
from spacy_slmre.corpus.sources import CorpusError, open_text, read_json, read_lines, read_rows
from spacy_slmre.instances import Mention
from spacy_slmre.study.benchmarks.card import load_card, load_labels, read_label_file
from spacy_slmre.study.benchmarks.marked_text import rows_with_text

# Types by how REBEL found a mention: dates and values have a type, linked pages have none.
_REBEL_TYPES = {"Date_Linker": "DATE", "Value_Linker": "NUM"}
_LOST = "argument not in the text"


def read_nyt(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read `{"text": …, "triple_list": [[head, relation, tail], …]}`."""
    return parse_rows(read_json(source), _parse_nyt, split)


def _parse_nyt(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    text = row["text"]
    pairs = []
    for head, label, tail in row["triple_list"]:
        try:
            pairs.append(Pair(*place_pair(text, head, tail), label))
        except Malformed as error:
            yield Reject(line, id, _LOST, f"({head}, {label}, {tail}): {error}")
    if pairs or not row["triple_list"]:
        yield Record(id, line, text, tuple(pairs))


def read_gids(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read six columns: two Freebase ids, head, tail, relation, text.

    The file joins the words of an argument with `_`, in its column and in the text, and ends each text with
    `###END###`. Each `_` is read as a space, which keeps all offsets.
    """
    return parse_rows(((line, row) for line, row in read_lines(source) if row), _parse_gids, split)


def _parse_gids(row: str, *, line: int, id: str) -> Iterator[Record | Reject]:
    columns = row.split("\t")
    if len(columns) != 6:
        raise Malformed(f"there are {len(columns)} columns, not 6")
    _, _, head, tail, label, text = columns
    text = text.rstrip().removesuffix("###END###").rstrip()
    try:
        first, last = place_pair(text, head, tail)
    except Malformed as error:
        yield Reject(line, id, _LOST, str(error))
        return
    for argument in (head, tail):
        text = text.replace(argument, argument.replace("_", " "))
    yield Record(id, line, text, (Pair(first, last, label),))


def read_rebel(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read JSON lines with one abstract each and character spans.

    In some abstracts, all spans after a certain point are a few characters off. An argument whose span does not match
    its words is placed at the nearest occurrence of these words.
    """
    return parse_rows(read_json(source), _parse_rebel, split)


def _parse_rebel(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    text, name = row["text"], f"{id}-{row['docid']}"
    pairs = []
    for triple in row["triples"]:
        try:
            head, tail = (_place_nearest(text, triple[side]) for side in ("subject", "object"))
        except Malformed as error:
            yield Reject(line, name, _LOST, str(error))
            continue
        predicate = triple["predicate"]
        pairs.append(Pair(head, tail, predicate["uri"] or predicate["surfaceform"]))
    if pairs or not row["triples"]:
        yield Record(name, line, text, tuple(pairs))


def _place_nearest(text: str, argument: dict[str, Any]) -> Mention:
    string = argument["surfaceform"]
    start, end = argument["boundaries"] or (0, 0)
    if text[start:end] != string or not string.strip():
        spans = find_occurrences(text, string)
        if not spans:
            raise Malformed(f"the argument {string!r} does not occur in the text")
        start, end = min(spans, key=lambda span: abs(span[0] - start))
    return Mention(start, end, _REBEL_TYPES.get(argument.get("annotator", ""), UNTYPED))


def read_pg_fiction(
    source: str | Path, split: str, *, mapping: Path | None = None, hub_split: str = "train"
) -> Iterator[Record | Reject]:
    """Read raw ARF rows: a passage of five sentences and a list of its relations.

    The list is JSON, or a Python literal, in the column `relations`; each relation has `entity1`, `entity2`,
    `entity1Type`, `entity2Type` and `relation`. Entities are strings; if one does not occur exactly in the passage,
    case and whitespace are ignored. Relation strings are normalized to the canonical ones by a mapping; strings that
    it does not contain are rejected.

    Args:
        source: A .parquet, .jsonl, .json or .csv file, or a hub id.
        split: Name of the split, which becomes part of each record's identifier.
        mapping: A JSON object from relation strings to canonical ones, which extends or overrides the package's
            `labels/pg_fiction_mapping.json`.
        hub_split: Name of the split on the hub.
    """
    rows = rows_with_text(read_rows(source, ("relations",), hub_split), ("chunk", "text_chunk", "text"), source)
    return parse_rows(rows, _parse_pg_fiction, split, mapping=_read_mapping(mapping))


def _parse_pg_fiction(
    row: dict[str, Any], *, line: int, id: str, mapping: Mapping[str, str]
) -> Iterator[Record | Reject]:
    text = row["chunk"] or ""
    if "book_id" in row and "chunk_id" in row:
        id = f"{row['book_id']}-{row['chunk_id']}"
    pairs = []
    for relation in _parse_relations(row["relations"]):
        try:
            types = (relation.get("entity1Type") or UNTYPED, relation.get("entity2Type") or UNTYPED)
            head, tail = place_pair(text, relation["entity1"], relation["entity2"], types, ignore_case=True)
        except Malformed as error:
            yield Reject(line, id, _LOST, str(error))
            continue
        except (KeyError, TypeError, AttributeError) as error:
            yield Reject(line, id, "malformed relation", f"{relation!r} ({type(error).__name__})")
            continue
        label = str(relation.get("relation", "")).strip()
        pairs.append(Pair(head, tail, mapping.get(_normalize(label), label)))
    if pairs:
        yield Record(id, line, text, tuple(pairs))


def _parse_relations(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError) as error:
                raise Malformed("the column relations is neither JSON nor a Python literal") from error
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"the column relations has a {type(value).__name__}, not a list")
    return value


def _read_mapping(path: Path | None) -> dict[str, str]:
    mapping: dict[str, str] = read_label_file("pg_fiction_mapping")
    if path is not None:
        with open_text(path) as file:
            try:
                mapping |= json.load(file)
            except (ValueError, TypeError) as error:
                raise CorpusError(f"{path}: the mapping is not a JSON object ({error}).") from error
    names = {label.name for label in load_labels("pg_fiction")}
    if unknown := sorted({str(label) for label in mapping.values()} - names):
        raise CorpusError(f"{path}: the mapping leads to unknown canonical relations: {', '.join(unknown)}.")
    return {_normalize(string): label for string, label in mapping.items()}


def _normalize(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


NYT = load_card("nyt", read_nyt)
GIDS = load_card("gids", read_gids)
REBEL = load_card("rebel", read_rebel)
PG_FICTION = load_card("pg_fiction", read_pg_fiction)
