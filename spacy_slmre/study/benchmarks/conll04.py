"""CoNLL04: entities and relations in news sentences."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, rejecting, sample_negatives
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.study.benchmarks.card import NO_RELATION, Benchmark, load_labels


def read_conll04(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file in the JSON form of Wang and Lu: token spans whose end stands outside.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
    """
    return rejecting(read_json(source), _parse, split)


def read_all_pairs(
    source: str | Path, split: str, *, negatives: float = -1.0, seed: int = 0
) -> Iterator[Record | Reject]:
    """The same records, with negatives out of the ordered pairs of entities that have no relation.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
        negatives: Negatives for each positive of a sentence; below 0 takes all pairs.
        seed: Seed of the choice.
    """
    return rejecting(read_json(source), _parse, split, negatives=negatives, rng=random.Random(seed))


def _parse(
    row: dict[str, Any], *, line: int, id: str, negatives: float = 0.0, rng: random.Random | None = None
) -> Iterator[Record]:
    words = Words(row["tokens"])
    mentions = {(start, end): words.mention(start, end, kind) for start, end, kind in row["entities"]}
    pairs = [
        Pair(
            mentions.get((head, head_end)) or words.mention(head, head_end),
            mentions.get((tail, tail_end)) or words.mention(tail, tail_end),
            label,
        )
        for head, head_end, tail, tail_end, label in row["relations"]
    ]
    if rng is not None:
        annotated = {(pair.head, pair.tail) for pair in pairs}
        rest = [pair for pair in permutations(mentions.values(), 2) if pair not in annotated]
        chosen = sample_negatives(rest, len(pairs), negatives, rng)
        pairs += [Pair(head, tail, NEGATIVE_LABEL) for head, tail in chosen]
    yield Record(id, line, words.text, tuple(pairs), tuple(mentions.values()), words.words)


CARD = Benchmark(
    name="conll04",
    title="CoNLL04",
    domain="general",
    task="Five relations between typed entities of news sentences; pairs without a relation are left out.",
    citation="Roth and Yih 2004. A Linear Programming Formulation for Global Inference in Natural Language "
    "Tasks. https://aclanthology.org/W04-2401",
    license="none stated",
    redistributable=False,
    obtain="Download the three JSON files from the addresses below.",
    files={"train": "train.CoNLL04.json", "dev": "valid.CoNLL04.json", "test": "test.CoNLL04.json"},
    urls={
        split: "https://raw.githubusercontent.com/LorrinWWW/two-are-better-than-one/HEAD/datasets/unified/"
        f"{name}.CoNLL04.json"
        for split, name in (("train", "train"), ("dev", "valid"), ("test", "test"))
    },
    schema=LabelSchema(load_labels("conll04"), None),
    direction="Head is the first argument.",
    splits={"train": 1283, "dev": 343, "test": 422},
    notes=(
        "Sentences: train 922, dev 231 (the file valid.CoNLL04.json), test 288.",
        "The relation is a function of the ordered pair of entity types, so that with gold types the task is "
        "trivial. The benchmark conll04_pairs adds the pairs without a relation.",
    ),
    read=read_conll04,
)

ALL_PAIRS = replace(
    CARD,
    name="conll04_pairs",
    folder="conll04",
    title="CoNLL04, all pairs",
    task="Five relations or none for the ordered pairs of typed entities of news sentences.",
    schema=LabelSchema((*load_labels("conll04"), NO_RELATION)),
    splits={"train": 11998, "dev": 3260, "test": 3822},
    notes=("The relations of conll04, and as negatives all other ordered pairs of entities in a sentence.",),
    read=read_all_pairs,
)
