"""Benchmarks with `<e1>…</e1>` and `<e2>…</e2>` in the text: SemEval-2010 Task 8, KBP37, Biographical."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject, parse_rows, place_pair
from spacy_slmre.corpus.sources import check_columns, hub_split_of, read_lines, read_rows
from spacy_slmre.instances import Mention
from spacy_slmre.study.benchmarks.card import load_card

_TAG = re.compile(r"</?e[12]>")
_SENTENCE = re.compile(r"(\d+)\t(.*)")


def read_marked_file(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read blocks: a number and a marked sentence in quotes, then the label, then optionally a comment."""
    unlabeled: tuple[int, str, str] | None = None
    for line, content in read_lines(source):
        content = content.strip()
        if match := _SENTENCE.fullmatch(content):
            if unlabeled:
                yield _without_label(unlabeled)
            unlabeled = (line, f"{split}-{match[1]}", match[2])
        elif unlabeled and content:
            start, name, sentence = unlabeled
            unlabeled = None
            try:
                text, head, tail = parse_marked(_unquote(sentence))
                yield Record(name, start, text, (Pair(head, tail, content),))
            except Malformed as error:
                yield Reject(start, name, "malformed record", str(error))
        elif content and not content.startswith("Comment"):
            yield Reject(line, split, "unexpected line", f"{content[:80]!r} belongs to no sentence")
    if unlabeled:
        yield _without_label(unlabeled)


def parse_marked(sentence: str) -> tuple[str, Mention, Mention]:
    """Return a sentence without its marks, and the mentions `e1` and `e2`.

    Raises:
        Malformed: A mark is missing or occurs more than once.
    """
    text = ""
    edges: dict[str, int] = {}
    position = 0
    for match in _TAG.finditer(sentence):
        text += sentence[position : match.start()]
        if match[0] in edges:
            raise Malformed(f"the mark {match[0]} occurs more than once")
        edges[match[0]] = len(text)
        position = match.end()
    text += sentence[position:]
    if missing := {"<e1>", "</e1>", "<e2>", "</e2>"} - edges.keys():
        raise Malformed(f"the mark {min(missing)} is missing")
    head = Mention(edges["<e1>"], edges["</e1>"], UNTYPED)
    tail = Mention(edges["<e2>"], edges["</e2>"], UNTYPED)
    return text, head, tail


def _unquote(sentence: str) -> str:
    sentence = sentence.strip()
    if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
        return sentence[1:-1]
    return sentence


def _without_label(sentence: tuple[int, str, str]) -> Reject:
    return Reject(sentence[0], sentence[1], "no label", "no label follows the sentence")


def read_biographical(source: str | Path, split: str, *, hub_split: str = "") -> Iterator[Record | Reject]:
    """Read a table with the columns `relation` and `sentence` (or `text`).

    Either the sentence marks its entities with `<e1>…</e1>` and `<e2>…</e2>`, or the columns `entity1` and `entity2`
    have them, optionally with `entity1Type` and `entity2Type`.

    Args:
        source: A .tsv, .csv, .json, .jsonl or .parquet file, or a hub id.
        split: Name of the split, which becomes part of each record's identifier.
        hub_split: Name of the split on the hub; the default is "validation" for dev, otherwise the split.
    """
    rows = read_rows(source, ("relation",), hub_split or hub_split_of(split))
    return parse_rows(rows_with_text(rows, ("sentence", "text"), source), _parse_biographical, split)


def rows_with_text(
    rows: Iterator[tuple[int, dict[str, Any]]], columns: tuple[str, ...], source: str | Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows with their text in the first of several possible columns."""
    for line, row in rows:
        column = next((name for name in columns if name in row), columns[0])
        check_columns(row, (column,), f"{source}:{line}")
        yield line, {**row, columns[0]: row[column]}


def _parse_biographical(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record]:
    text = row["sentence"]
    if row.get("entity1") and row.get("entity2"):
        types = (row.get("entity1Type") or UNTYPED, row.get("entity2Type") or UNTYPED)
        head, tail = place_pair(text, row["entity1"], row["entity2"], types, ignore_case=True)
    else:
        text, head, tail = parse_marked(text)
    yield Record(id, line, text, (Pair(head, tail, row["relation"]),))


SEMEVAL = load_card("semeval2010_task8", read_marked_file)
KBP37 = load_card("kbp37", read_marked_file)
BIOGRAPHICAL = load_card("biographical", read_biographical)
