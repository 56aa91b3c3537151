"""Rows of one pair each, as the study publishes its data: text, two entities as strings, relation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject, place_pair
from spacy_slmre.corpus.sources import CorpusError, read_rows
from spacy_slmre.study.benchmarks.card import Benchmark, get_benchmark

_PLAIN = ("text", "entity1", "entity2", "relation")
_POOLED = ("prompt", "relation", "dataset")
# Names of data sets on the hub and in pooled rows → names of cards.
_DATASETS = {
    "nyt11": "nyt",
    "nyt_11": "nyt",
    "rebel_dataset": "rebel",
    "project_gutenberg_fiction_relations": "pg_fiction",
}
# A pooled row has its text and entities in a prompt only. The last of each counts: demonstrations come first.
_PROMPT_PART = (
    r"(?im)^\W*(?P<text>text|sentence|context|passage)\W*:\s*(?P<text_value>.+?)\s*$"
    r"|^\W*(?P<head>entity\s*1|head(?:\s+entity)?|subject)\W*:\s*(?P<head_value>.+?)\s*$"
    r"|^\W*(?P<tail>entity\s*2|tail(?:\s+entity)?|object)\W*:\s*(?P<tail_value>.+?)\s*$"
)

Row = tuple[int, str | None, str, dict[str, Any]]
"""Line, benchmark, text, and the row itself."""


def read_hub_rows(
    source: str | Path, split: str, *, benchmark: str = "", hub_split: str = "", prompt: str = ""
) -> Iterator[Record | Reject]:
    """Records of a table; neighbouring rows with the same text are one record.

    Plain rows have the columns `text, entity1, entity2, relation` and perhaps `entity1Type, entity2Type`.
    Pooled rows have `prompt, relation, dataset`: text and entities are read out of the prompt, and the card
    follows from the column `dataset`. Other columns are left alone.

    Args:
        source: A .csv, .tsv, .json, .jsonl or .parquet file, or a hub id.
        split: The split, part of each record's identifier.
        benchmark: Name of the card whose labels the rows have; without one, labels are taken as they are.
        hub_split: Name of the split on the hub; if not given, "validation" for dev and else the split's own.
        prompt: For pooled rows, a regular expression with the groups text, head and tail; if not given,
            lines such as "Text: …", "Entity 1: …" and "Entity 2: …" are looked for.
    """
    if benchmark:
        get_benchmark(benchmark)
    rows = read_rows(source, ("relation",), hub_split or {"dev": "validation"}.get(split, split))
    number = 0
    for (name, text), group in groupby(_rows(rows, str(source), benchmark, prompt), key=lambda row: row[1:3]):
        pairs = []
        first = 0
        for line, _, _, row in group:
            number += 1
            first = first or line
            if isinstance(row.get("malformed"), Malformed):
                yield Reject(line, f"{split}-{number}", "malformed record", str(row["malformed"]))
                continue
            types = (str(row.get("entity1Type") or UNTYPED), str(row.get("entity2Type") or UNTYPED))
            try:
                head, tail = place_pair(text, row["entity1"], row["entity2"], types, loose=True)
            except Malformed as error:
                yield Reject(line, f"{split}-{number}", "argument not in the text", str(error))
                continue
            pairs.append(Pair(head, tail, str(row["relation"])))
        if pairs:
            yield Record(f"{split}-{number}", first, text, tuple(pairs), benchmark=name)


def _rows(
    rows: Iterator[tuple[int, dict[str, Any]]], source: str, benchmark: str, prompt: str
) -> Iterator[Row]:
    try:
        pattern = re.compile(prompt or _PROMPT_PART)
    except re.error as error:
        raise CorpusError(f"The setting prompt={prompt} is no regular expression ({error}).") from error
    for line, row in rows:
        if all(column in row for column in _PLAIN):
            yield line, benchmark or None, str(row["text"] or ""), row
        elif all(column in row for column in _POOLED):
            name = _card_name(str(row["dataset"]), f"{source}:{line}")
            try:
                text, head, tail = parse_prompt(str(row["prompt"] or ""), pattern)
            except Malformed as error:
                yield line, name, "", {"malformed": error}
                continue
            yield line, name, text, {**row, "entity1": head, "entity2": tail}
        else:
            raise CorpusError(
                f"{source}:{line}: rows have the columns {', '.join(_PLAIN)}, or {', '.join(_POOLED)}; "
                f"here they are: {', '.join(map(str, row))}."
            )


def parse_prompt(prompt: str, pattern: re.Pattern[str]) -> tuple[str, str, str]:
    """Text, head and tail out of a prompt: what the pattern finds last of each.

    Raises:
        Malformed: One of them is not found.
    """
    found: dict[str, str] = {}
    for match in pattern.finditer(prompt):
        groups = match.groupdict()
        for part in ("text", "head", "tail"):
            if groups.get(part):
                found[part] = groups.get(f"{part}_value") or groups[part]
    if missing := [part for part in ("text", "head", "tail") if part not in found]:
        raise Malformed(
            f"the prompt shows no {', '.join(missing)}; give a regular expression: --set prompt=…"
        )
    return found["text"], found["head"].strip("\"'`"), found["tail"].strip("\"'`")


def _card_name(dataset: str, where: str) -> str:
    name = dataset.rpartition("/")[2].lower().replace("-", "_")
    try:
        return get_benchmark(_DATASETS.get(name, name)).name
    except CorpusError as error:
        raise CorpusError(f'{where}: the data set "{dataset}" is no known benchmark. {error}') from error


CARD = Benchmark(
    name="hub_rows",
    title="Rows of a table",
    domain="general",
    task="Any pairs: a text, two entities as strings, a relation.",
    citation="Christou and Tsoumakas 2026. arXiv:2606.22606 (for the study's own rows)",
    license="that of the data set",
    redistributable=False,
    obtain="Give a file, or a hub id such as Despina/gids, Despina/rebel-dataset:subsampled or "
    "Despina/re_gentune (with --set hub_split=train_0).",
    schema=None,
    direction="Head is entity1.",
    notes=(
        "benchmark=NAME takes the labels of that card, and the documents count as that benchmark's. Without "
        "it every label is taken as it is, and none, other, no_relation, na, nan and null are negative.",
        "The prompts of the pooled sets have not been seen in the making of this converter; check the "
        "rejects, and give prompt=REGEX where the default finds nothing.",
    ),
    read=read_hub_rows,
)
