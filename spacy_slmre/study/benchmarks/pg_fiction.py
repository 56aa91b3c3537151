"""PG-Fiction: the rows of ARF, relations in passages of Project Gutenberg fiction."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject, place_pair, rejecting
from spacy_slmre.corpus.sources import CorpusError, open_text, read_rows
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels

_TEXT = ("chunk", "text_chunk", "text")


def read_pg_fiction(
    source: str | Path, split: str, *, mapping: Path | None = None, hub_split: str = "train"
) -> Iterator[Record | Reject]:
    """Records of raw ARF rows: a passage of five sentences and a list of relations in it.

    The list is JSON, or a Python literal, in the column `relations`; each relation has `entity1`,
    `entity2`, `entity1Type`, `entity2Type` and `relation`. Entities are strings: one that does not stand in
    the passage to the letter is looked for in any case and spacing. The relation strings are normalised to
    the canonical ones by a mapping file; those that it does not know are rejected.

    Args:
        source: A .parquet, .jsonl, .json or .csv file, or a hub id.
        split: The split, part of each record's identifier.
        mapping: A JSON object, relation string → canonical one, that adds to or overrides the file
            `labels/pg_fiction_mapping.json` of the package.
        hub_split: Name of the split on the hub.
    """
    table = _read_mapping(mapping)
    return rejecting(
        _with_text(read_rows(source, ("relations",), hub_split), source), _parse, split, table=table
    )


def _with_text(
    rows: Iterator[tuple[int, dict[str, Any]]], source: str | Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in rows:
        column = next((name for name in _TEXT if name in row), None)
        if column is None:
            raise CorpusError(
                f"{source}:{line}: there is no column chunk; the columns are: {', '.join(row)}."
            )
        yield line, {**row, "chunk": row[column]}


def _parse(row: dict[str, Any], *, line: int, id: str, table: Mapping[str, str]) -> Iterator[Record | Reject]:
    text = row["chunk"] or ""
    if "book_id" in row and "chunk_id" in row:
        id = f"{row['book_id']}-{row['chunk_id']}"
    pairs = []
    relations = _read_relations(row["relations"])
    for relation in relations:
        try:
            types = (relation.get("entity1Type") or UNTYPED, relation.get("entity2Type") or UNTYPED)
            head, tail = place_pair(text, relation["entity1"], relation["entity2"], types, loose=True)
        except Malformed as error:
            yield Reject(line, id, "argument not in the text", str(error))
            continue
        except (KeyError, TypeError, AttributeError) as error:
            yield Reject(line, id, "malformed relation", f"{relation!r} ({type(error).__name__})")
            continue
        label = str(relation.get("relation", "")).strip()
        pairs.append(Pair(head, tail, table.get(_fold(label), label)))
    if pairs:
        yield Record(id, line, text, tuple(pairs))


def _read_relations(value: Any) -> list[Any]:
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
        raise Malformed(f"the column relations holds a {type(value).__name__}, not a list")
    return value


def _read_mapping(path: Path | None) -> dict[str, str]:
    own = files("spacy_slmre.study.benchmarks") / "labels" / "pg_fiction_mapping.json"
    mapping: dict[str, str] = json.loads(own.read_text("utf-8"))
    if path is not None:
        with open_text(path) as file:
            try:
                mapping |= json.load(file)
            except (ValueError, TypeError) as error:
                raise CorpusError(f"{path}: the mapping is no JSON object ({error}).") from error
    names = {label.name for label in load_labels("pg_fiction")}
    if lost := sorted({str(label) for label in mapping.values()} - names):
        raise CorpusError(f"{path}: the mapping leads to no canonical relation: {', '.join(lost)}.")
    return {_fold(string): label for string, label in mapping.items()}


def _fold(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


CARD = Benchmark(
    name="pg_fiction",
    title="PG-Fiction (ARF)",
    domain="literary",
    task="47 relations between people, places, things and ideas in passages of fiction, annotated by GPT-4o.",
    citation="Christou and Tsoumakas 2025. Artificial Relationships in Fiction: A Dataset for Advancing NLP "
    "in Literary Domains. LaTeCH-CLfL 2025",
    license="MIT",
    redistributable=True,
    obtain="Fetch the raw rows from the hub id Despina/project_gutenberg:synthetic_relations_in_fiction_books"
    ", or the study's rows from the hub id Despina/project-gutenberg-fiction-relations.",
    files={"train": "train.parquet", "dev": "dev.parquet", "test": "test.parquet"},
    schema=LabelSchema(load_labels("pg_fiction"), None),
    direction="Head is entity1.",
    notes=(
        "The study counts 48 canonical labels and tests on 8,144 instances; public copies of the ontology "
        "list the 47 that are here.",
        "The published raw rows are one split, here train; the study's own splits are its rows on the hub.",
        "Relation strings outside the ontology are mapped by labels/pg_fiction_mapping.json; mapping=FILE "
        "extends it. What stays unknown is rejected.",
    ),
    read=read_pg_fiction,
)
