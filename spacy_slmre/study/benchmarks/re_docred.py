"""Re-DocRED, sentence by sentence: the relations whose two entities a sentence both mentions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, rejecting, sample_negatives
from spacy_slmre.corpus.sources import read_json
from spacy_slmre.instances import Mention
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.study.benchmarks.card import NO_RELATION, Benchmark, load_labels

Place = tuple[int, int, int]
"""A mention: sentence, first token, token after the last."""


def read_re_docred(
    source: str | Path, split: str, *, negatives: float = 1.0, seed: int = 0
) -> Iterator[Record | Reject]:
    """Records of a file of documents in the form of DocRED, one record a sentence that has pairs.

    A relation joins entities, which have several mentions. A pair of entities is placed in one sentence
    that mentions both: the first that the annotation names as evidence, or else the first of all. Within
    it the two mentions that stand closest are taken, the earlier ones among equals. A relation whose
    entities share no sentence is rejected.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
        negatives: Negatives, out of the unannotated pairs that share a sentence, for each annotated pair of
            a document; below 0 takes all.
        seed: Seed of the choice.
    """
    return rejecting(read_json(source), _parse, split, negatives=negatives, rng=random.Random(seed))


def _parse(
    row: dict[str, Any], *, line: int, id: str, negatives: float, rng: random.Random
) -> Iterator[Record | Reject]:
    sentences = [Words(sentence) for sentence in row["sents"]]
    entities = [
        {(mention["sent_id"], *mention["pos"]): mention["type"] for mention in vertex}
        for vertex in row["vertexSet"]
    ]
    labels: dict[tuple[int, int], list[str]] = defaultdict(list)
    evidence: dict[tuple[int, int], set[int]] = defaultdict(set)
    for label in row["labels"]:
        pair = label["h"], label["t"]
        labels[pair].append(label["r"])
        evidence[pair].update(label.get("evidence", ()))

    pairs: dict[int, list[tuple[Place, Place, int, int, str]]] = defaultdict(list)
    for (head, tail), names in labels.items():
        places = _closest(entities[head], entities[tail], evidence[head, tail])
        if places is None:
            for name in names:
                detail = f"({head}, {name}, {tail}) of {row.get('title', id)!r}"
                yield Reject(line, id, "entities share no sentence", detail)
            continue
        for name in names:
            pairs[places[0][0]].append((*places, head, tail, name))
    rest = [
        (head, tail)
        for head in range(len(entities))
        for tail in range(len(entities))
        if head != tail
        and (head, tail) not in labels
        and _sentences(entities[head]) & _sentences(entities[tail])
    ]
    placed = len({(head, tail) for found in pairs.values() for *_, head, tail, _ in found})
    for head, tail in sample_negatives(rest, placed, negatives, rng):
        places = _closest(entities[head], entities[tail], set())
        assert places is not None
        pairs[places[0][0]].append((*places, head, tail, NEGATIVE_LABEL))

    def mention(entity: int, place: Place) -> Mention:
        sentence, start, end = place
        return sentences[sentence].mention(start, end, entities[entity][place])

    for sentence in sorted(pairs):
        words = sentences[sentence]
        annotated = tuple(
            Pair(mention(head, first), mention(tail, last), name)
            for first, last, head, tail, name in pairs[sentence]
        )
        mentions = tuple(
            mention(entity, place)
            for entity, places in enumerate(entities)
            for place in places
            if place[0] == sentence
        )
        yield Record(f"{id}-{sentence}", line, words.text, annotated, mentions, words.words)


def _closest(
    heads: Mapping[Place, str], tails: Mapping[Place, str], evidence: set[int]
) -> tuple[Place, Place] | None:
    shared = _sentences(heads) & _sentences(tails)
    if not shared:
        return None
    sentence = min(shared & evidence or shared)
    candidates: Sequence[tuple[Place, Place]] = [
        (head, tail) for head in heads for tail in tails if head[0] == tail[0] == sentence
    ]
    return min(candidates, key=lambda pair: (_distance(*pair), pair))


def _distance(head: Place, tail: Place) -> int:
    return max(head[1], tail[1]) - min(head[2], tail[2])


def _sentences(places: Mapping[Place, str]) -> set[int]:
    return {place[0] for place in places}


CARD = Benchmark(
    name="re_docred",
    title="Re-DocRED, sentence level",
    domain="general",
    task="96 Wikidata properties, or none, between typed entities that a Wikipedia sentence both mentions.",
    citation="Tan et al. 2022. Revisiting DocRED - Addressing the False Negative Problem in Relation "
    "Extraction. https://aclanthology.org/2022.emnlp-main.580",
    license="MIT",
    redistributable=True,
    obtain="Download the files train_revised.json, dev_revised.json and test_revised.json.",
    files={"train": "train_revised.json", "dev": "dev_revised.json", "test": "test_revised.json"},
    urls={
        split: f"https://raw.githubusercontent.com/tonytan48/Re-DocRED/HEAD/data/{split}_revised.json"
        for split in ("train", "dev", "test")
    },
    schema=LabelSchema((*load_labels("wikidata", only="re_docred_properties"), NO_RELATION)),
    direction="Head is the subject of the property.",
    splits={"train": 85932, "dev": 17284, "test": 17448},
    notes=(
        "Official sizes count whole documents. 7,982 triples of dev and 8,156 of test have both entities in "
        "one sentence; the others are rejected. The study tests on 12,693 instances by a filter that it "
        "does not state.",
        "In test the 8,156 triples are 6,482 distinct pairs: with one answer a pair micro-F1 "
        "cannot pass 0.795.",
        "A negative is a pair that shares a sentence and has no label in the whole document.",
    ),
    read=read_re_docred,
)
