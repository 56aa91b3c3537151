"""NYT11 and NYT24: Freebase relations in New York Times sentences, distantly supervised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Malformed, Pair, Record, Reject, place_pair, rejecting
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels


def read_triples(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file of `{"text": …, "triple_list": [[head, relation, tail], …]}`.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
    """
    return rejecting(read_json(source), _parse, split)


def _parse(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record | Reject]:
    text = row["text"]
    pairs = []
    for head, label, tail in row["triple_list"]:
        try:
            pairs.append(Pair(*place_pair(text, head, tail), label))
        except Malformed as error:
            yield Reject(line, id, "argument not in the text", f"({head}, {label}, {tail}): {error}")
    if pairs or not row["triple_list"]:
        yield Record(id, line, text, tuple(pairs))


CARD = Benchmark(
    name="nyt",
    title="NYT11 / NYT24",
    domain="general",
    task="24 Freebase relations between entities of news sentences, found by distant supervision; pairs "
    "without a relation are left out.",
    citation="Riedel et al. 2010. Modeling Relations and Their Mentions without Labeled Text. "
    "Zeng et al. 2018. Extracting Relational Facts by an End-to-End Neural Model with Copy Mechanism. "
    "https://aclanthology.org/P18-1047",
    license="none stated (the text is the New York Times Annotated Corpus, LDC2008T19)",
    redistributable=False,
    obtain="Download train_triples.json, val_triples.json and test_triples.json of the data set NYT* from "
    "github.com/hy-struggle/PRGC.",
    folder="nyt24",
    files={"train": "train_triples.json", "dev": "val_triples.json", "test": "test_triples.json"},
    schema=LabelSchema(load_labels("nyt"), None),
    direction="Head is the subject of the Freebase property.",
    splits={"train": 94222, "dev": 8489, "test": 8616},
    notes=(
        "Sentences: train 56,195, dev 5,000 (the file val_triples.json), test 5,000.",
        "Triples whose words do not stand in the text, for want of an accent, are rejected: 47 in dev, "
        "44 in test; with them go 17 and 21 sentences that have no other.",
        "A triple that the source repeats is repeated here.",
        "In test, the 8,616 triples are 6,775 distinct pairs, and 1,017 pairs have several labels: with one "
        "answer a pair micro-F1 cannot pass 0.786.",
        "38 sentences of dev stand in test too.",
        "The test split of the study's NYT11 is this one.",
        "Entities have no types here: all are ENTITY.",
    ),
    read=read_triples,
)
