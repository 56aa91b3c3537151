"""REBEL: Wikidata properties in Wikipedia abstracts, aligned by machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject, occurrences, rejecting
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.instances import Mention
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels

_NOT_IN_REBEL = ("P37", "P1198", "P1336", "P1412")
# What made a mention: a linked page has a class of its own kind, dates and values do not.
_TYPES = {"Date_Linker": "DATE", "Value_Linker": "NUM"}


def read_rebel(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file of JSON lines, one abstract each, with character spans.

    In some abstracts all spans after a certain place are a few characters off. An argument whose span does
    not show its words is placed at the occurrence of these words that is nearest to the span.

    Args:
        source: The file.
        split: The split, part of each record's identifier.
    """
    return rejecting(read_json(source), _parse, split)


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    text, name = row["text"], f"{id}-{row['docid']}"
    pairs = []
    for triple in row["triples"]:
        try:
            head, tail = (_place(text, triple[side]) for side in ("subject", "object"))
        except Malformed as error:
            yield Reject(line, name, "argument not in the text", str(error))
            continue
        predicate = triple["predicate"]
        pairs.append(Pair(head, tail, predicate["uri"] or predicate["surfaceform"]))
    if pairs or not row["triples"]:
        yield Record(name, line, text, tuple(pairs))


def _place(text: str, argument: dict[str, Any]) -> Mention:
    string = argument["surfaceform"]
    start, end = argument["boundaries"] or (0, 0)
    kind = _TYPES.get(argument.get("annotator", ""), UNTYPED)
    if text[start:end] != string or not string.strip():
        spans = occurrences(text, string)
        if not spans:
            raise Malformed(f"the argument {string!r} does not stand in the text")
        start, end = min(spans, key=lambda span: abs(span[0] - start))
    return Mention(start, end, kind)


CARD = Benchmark(
    name="rebel",
    title="REBEL",
    domain="general",
    task="Wikidata properties between linked entities, dates and values of Wikipedia abstracts.",
    citation="Huguet Cabot and Navigli 2021. REBEL: Relation Extraction By End-to-end Language generation. "
    "https://aclanthology.org/2021.findings-emnlp.204",
    license="CC BY-NC-SA 4.0",
    redistributable=True,
    obtain="Download rebel_dataset from the hub id Babelscape/rebel-dataset (en_train.jsonl, en_val.jsonl, "
    "en_test.jsonl), or the sample of 1,000 abstracts from the address below.",
    files={
        "sample": "sample.jsonl",
        "train": "en_train.jsonl",
        "dev": "en_val.jsonl",
        "test": "en_test.jsonl",
    },
    urls={"sample": "https://raw.githubusercontent.com/Babelscape/rebel/HEAD/data/rebel/sample.jsonl"},
    schema=LabelSchema(
        tuple(label for label in load_labels("wikidata") if label.name not in _NOT_IN_REBEL), None
    ),
    direction="Head is the subject of the property.",
    splits={"sample": 2868},
    notes=(
        "The sample has 1,000 abstracts. In 636 places its spans are 2 or 4 characters off; all arguments "
        "are found again by their words.",
        "The labels are the 230 properties that the authors count at least 1,000 times, and the rarer ones "
        "of the sample. The study draws a subsample with 219 labels and 7,503 test instances.",
        "A document is a whole abstract. Nine triples of the sample relate an entity to itself.",
    ),
    aliases={
        "material used": "P186",
    },
    read=read_rebel,
)
