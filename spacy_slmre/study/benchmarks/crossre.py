"""CrossRE: relations in six domains; its literature part is the further literary set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, rejecting, sample_negatives
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels


def read_crossre(
    source: str | Path, split: str, *, negatives: float = 0.0, seed: int = 0
) -> Iterator[Record | Reject]:
    """Records of a file of JSON lines with inclusive token spans.

    Args:
        source: The file of a domain and split.
        split: The split, part of each record's identifier.
        negatives: Negatives, out of the other ordered pairs of entities, for each positive of a sentence;
            below 0 takes all pairs.
        seed: Seed of the choice.
    """
    return rejecting(read_json(source), _parse, split, negatives=negatives, rng=random.Random(seed))


def _parse(
    row: dict[str, Any], *, line: int, id: str, negatives: float, rng: random.Random
) -> Iterator[Record]:
    words = Words(row["sentence"])
    mentions = {(start, end): words.mention(start, end + 1, kind) for start, end, kind in row["ner"]}
    pairs = [
        Pair(
            mentions.get((head, head_end)) or words.mention(head, head_end + 1),
            mentions.get((tail, tail_end)) or words.mention(tail, tail_end + 1),
            label,
        )
        for head, head_end, tail, tail_end, label, *_ in row["relations"]
    ]
    annotated = {(pair.head, pair.tail) for pair in pairs}
    rest = [pair for pair in permutations(mentions.values(), 2) if pair not in annotated]
    chosen = sample_negatives(rest, len(pairs), negatives, rng)
    pairs += [Pair(head, tail, NEGATIVE_LABEL) for head, tail in chosen]
    yield Record(
        row.get("doc_key", id), line, words.text, tuple(pairs), tuple(mentions.values()), words.words
    )


CARD = Benchmark(
    name="crossre",
    substitute_for="pg_fiction",
    title="CrossRE, literature",
    domain="literary",
    task="17 broad relations between typed entities of encyclopaedic sentences about literature.",
    citation="Bassignana and Plank 2022. CrossRE: A Cross-Domain Dataset for Relation Extraction. "
    "https://aclanthology.org/2022.findings-emnlp.263",
    license="GPL-3.0 (of the repository)",
    redistributable=True,
    obtain="Download the files literature-train.json, -dev.json and -test.json from the addresses below; "
    "the other five domains have the same form.",
    folder="crossre_literature",
    files={"train": "literature-train.json", "dev": "literature-dev.json", "test": "literature-test.json"},
    urls={
        split: f"https://raw.githubusercontent.com/mainlp/CrossRE/HEAD/crossre_data/literature-{split}.json"
        for split in ("train", "dev", "test")
    },
    schema=LabelSchema(load_labels("crossre")),
    direction="Head is the first argument.",
    splits={"train": 400, "dev": 1570, "test": 1623},
    notes=(
        "Sentences: train 100, dev 400, test 416; sizes are those of the literature part, without negatives.",
        "A pair may have several labels, and in dev and test one entity each is related to itself.",
    ),
    read=read_crossre,
)
