"""WebNLG: DBpedia triples and the sentences that put them into words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, rejecting
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels


def read_webnlg(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file with `tokens` and `spo_details`: token spans whose end stands outside.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
    """
    return rejecting(read_json(source), _parse, split)


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record]:
    words = Words(row["tokens"])
    pairs = tuple(
        Pair(words.mention(head, head_end), words.mention(tail, tail_end), label)
        for head, head_end, _, label, tail, tail_end, _ in row["spo_details"]
    )
    yield Record(id, line, words.text, pairs, (), words.words)


CARD = Benchmark(
    name="webnlg",
    title="WebNLG",
    domain="general",
    task="216 DBpedia properties between entities of sentences that were written for given triples.",
    citation="Gardent et al. 2017. Creating Training Corpora for NLG Micro-Planners. "
    "https://aclanthology.org/P17-1017",
    license="none stated (WebNLG itself: CC BY-NC-SA 4.0)",
    redistributable=False,
    obtain="Download the three JSON files from the addresses below.",
    files={"train": "train.json", "dev": "dev.json", "test": "test.json"},
    urls={
        split: f"https://raw.githubusercontent.com/yubowen-ph/JointER/HEAD/dataset/WebNLG/data/{split}.json"
        for split in ("train", "dev", "test")
    },
    schema=LabelSchema(load_labels("webnlg"), None),
    direction="Head is the subject of the triple.",
    splits={"train": 11313, "dev": 1224, "test": 1607},
    notes=(
        "Sentences: train 5,019, dev 500, test 703.",
        "One triple in train and one in dev is there twice, and so it is here.",
        "An argument that stands several times in a sentence has the place that the source gives it, the "
        "first; it may lie within the other argument.",
        "Entities have no types here: all are ENTITY.",
    ),
    read=read_webnlg,
)
