"""The study's data on the hub: rows of the format "table", or rows with text and entities inside a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import get_format
from spacy_slmre.corpus.records import Malformed, Record, Reject
from spacy_slmre.corpus.sources import CorpusError, check_columns, hub_split_of, read_rows
from spacy_slmre.corpus.table import COLUMNS, group_rows
from spacy_slmre.study.benchmarks.card import get_benchmark, load_card

# Names of datasets on the hub and in pooled rows → names of cards.
_DATASETS = {
    "nyt11": "nyt",
    "nyt_11": "nyt",
    "rebel_dataset": "rebel",
    "project_gutenberg_fiction_relations": "pg_fiction",
}
# The last match of each part counts, since few-shot examples come first.
_PROMPT_PART = (
    r"(?im)^\W*(?P<text>text|sentence|context|passage)\W*:\s*(?P<text_value>.+?)\s*$"
    r"|^\W*(?P<head>entity\s*1|head(?:\s+entity)?|subject)\W*:\s*(?P<head_value>.+?)\s*$"
    r"|^\W*(?P<tail>entity\s*2|tail(?:\s+entity)?|object)\W*:\s*(?P<tail_value>.+?)\s*$"
)


def read_hub_rows(
    source: str | Path, split: str, *, labels_of: str = "", hub_split: str = "", prompt: str = ""
) -> Iterator[Record | Reject]:
    """Read plain or pooled rows; consecutive rows with the same text become one record.

    Plain rows are those of the format "table". Pooled rows have the columns `prompt`, `relation` and `dataset`: text
    and entities are extracted from the prompt, and the dataset determines the labels.

    Args:
        source: A .csv, .tsv, .json, .jsonl or .parquet file, or a hub id.
        split: Name of the split, which becomes part of each record's identifier.
        labels_of: For plain rows, the format that defines their labels; by default, any label is accepted.
        hub_split: Name of the split on the hub; the default is "validation" for dev, otherwise the split.
        prompt: For pooled rows, a regular expression with the groups text, head and tail; the default finds lines such
            as "Text: …", "Entity 1: …" and "Entity 2: …".
    """
    if labels_of:
        get_format(labels_of)
    try:
        pattern = re.compile(prompt or _PROMPT_PART)
    except re.error as error:
        raise CorpusError(f"prompt = {prompt} is not a regular expression ({error}).") from error
    rows = read_rows(source, ("relation",), hub_split or hub_split_of(split))

    def plain_rows() -> Iterator[tuple[int, str | None, dict[str, Any] | Malformed]]:
        for line, row in rows:
            if "prompt" not in row or "dataset" not in row or all(column in row for column in COLUMNS):
                check_columns(row, COLUMNS, f"{source}:{line}")
                yield line, labels_of or None, row
                continue
            name = _benchmark_name(str(row["dataset"]), f"{source}:{line}")
            try:
                text, head, tail = parse_prompt(str(row["prompt"] or ""), pattern)
                yield line, name, {**row, "text": text, "entity1": head, "entity2": tail}
            except Malformed as error:
                yield line, name, error

    return group_rows(plain_rows(), split)


def parse_prompt(prompt: str, pattern: re.Pattern[str]) -> tuple[str, str, str]:
    """Extract text, head and tail from a prompt; the last match of each counts.

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
        raise Malformed(f"the prompt has no {', '.join(missing)}; set prompt to a regular expression")
    return found["text"], found["head"].strip("\"'`"), found["tail"].strip("\"'`")


def _benchmark_name(dataset: str, where: str) -> str:
    name = dataset.rpartition("/")[2].lower().replace("-", "_")
    try:
        return get_benchmark(_DATASETS.get(name, name)).name
    except CorpusError as error:
        raise CorpusError(f'{where}: the dataset "{dataset}" is not a known benchmark. {error}') from error


HUB_ROWS = load_card("hub_rows", read_hub_rows)
