"""Biographical: facts of lives in Wikipedia sentences, found by guided distant supervision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import UNTYPED, Pair, Record, Reject, place_pair, rejecting
from spacy_slmre.corpus.sources import CorpusError, read_rows
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels
from spacy_slmre.study.benchmarks.marked_text import parse_marked

_SENTENCE = ("sentence", "text")


def read_biographical(source: str | Path, split: str, *, hub_split: str = "") -> Iterator[Record | Reject]:
    """Records of a table with the columns `relation` and `sentence` (or `text`).

    Either the sentence marks its entities with `<e1>…</e1>` and `<e2>…</e2>`, or the columns `entity1` and
    `entity2` name them, and perhaps `entity1Type` and `entity2Type` their types.

    Args:
        source: A .tsv, .csv, .json, .jsonl or .parquet file, or a hub id.
        split: The split, part of each record's identifier.
        hub_split: Name of the split on the hub; if not given, "validation" for dev and else the split's own.
    """
    rows = read_rows(source, ("relation",), hub_split or {"dev": "validation"}.get(split, split))
    return rejecting(_with_sentence(rows, source), _parse, split)


def _with_sentence(
    rows: Iterator[tuple[int, dict[str, Any]]], source: str | Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in rows:
        column = next((name for name in _SENTENCE if name in row), None)
        if column is None:
            raise CorpusError(
                f"{source}:{line}: there is no column sentence; the columns are: {', '.join(row)}."
            )
        yield line, {**row, "sentence": row[column]}


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record]:
    text = row["sentence"]
    if row.get("entity1") and row.get("entity2"):
        types = (row.get("entity1Type") or UNTYPED, row.get("entity2Type") or UNTYPED)
        head, tail = place_pair(text, row["entity1"], row["entity2"], types, loose=True)
    else:
        text, head, tail = parse_marked(text)
    yield Record(id, line, text, (Pair(head, tail, row["relation"]),))


CARD = Benchmark(
    name="biographical",
    title="Biographical",
    domain="literary",
    task="Nine facts of a person's life, or another relation, between two marked entities of a sentence.",
    citation="Plum et al. 2022. Biographical: A Semi-Supervised Relation Extraction Dataset. "
    "arXiv:2205.00806",
    license="see the publishers' page",
    redistributable=False,
    obtain="Fetch the English sets from the hub id plumaj/biographical (en/m2_train.tsv, m2_test.tsv and "
    "their coref and skip variants), or the study's rows from the hub id Despina/biographical:subsampled.",
    files={"train": "m2_train.tsv", "dev": "dev.tsv", "test": "m2_test.tsv"},
    schema=LabelSchema(load_labels("biographical"), "Other"),
    direction="Head is the first marked entity, as a rule the person.",
    notes=(
        "There is no official dev split; one of your own is called dev.tsv.",
        "The study tests on a subsample of 31,492 instances.",
        "Written from public descriptions of the format and tested on sentences of our own: check the "
        "rejects of your first conversion.",
    ),
    aliases={
        "birth date": "birthdate",
        "birth place": "birthplace",
        "death date": "deathdate",
        "death place": "deathplace",
        "child": "hasChild",
        "parent": "ofParent",
        "education": "educatedAt",
        "none": "Other",
    },
    read=read_biographical,
)
