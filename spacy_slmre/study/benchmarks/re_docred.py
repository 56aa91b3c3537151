"""Re-DocRED by sentence (the relations whose two entities are mentioned in the same sentence) or by document."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, parse_rows, sample_negatives
from spacy_slmre.corpus.sources import CorpusError, read_json
from spacy_slmre.documents import EntityMention
from spacy_slmre.instances import Mention
from spacy_slmre.schema import NEGATIVE_LABEL
from spacy_slmre.study.benchmarks.card import load_card

Place = tuple[int, int, int]
"""A mention: sentence, first token, end token (exclusive)."""


def read_re_docred(
    source: str | Path, split: str, *, unit: str = "sentence", negatives: float = 1.0, seed: int = 0
) -> Iterator[Record | Reject]:
    """Read documents in the DocRED format, with one record per sentence that has pairs, or one per document.

    Relations hold between entities, which have several mentions. A pair of entities is placed in one sentence that
    mentions both: the first one given as evidence, otherwise the first such sentence. In it, the two closest
    mentions are taken, or the earliest of equally close ones. A relation whose entities share no sentence is rejected.

    A whole document has all relations, each between the closest mentions, in the same sentence if possible. Its
    mentions have the id of their entity, so that its facts are the annotated relations.

    Args:
        source: The JSON file of a split.
        split: Name of the split, which becomes part of each record's identifier.
        unit: "sentence", or "document" for whole documents, in which all other pairs are negative.
        negatives: Negatives per annotated pair of a document, sampled from the unannotated pairs that share a
            sentence; a negative number takes all.
        seed: Seed of the sample.
    """
    if unit not in ("sentence", "document"):
        raise CorpusError(f'unit="{unit}" is unknown. Use one of sentence, document.')
    rows = read_json(source)
    if unit == "document":
        return parse_rows(rows, _parse_document, split)
    return parse_rows(rows, _parse, split, negatives=negatives, rng=random.Random(seed))


def _parse_document(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record]:
    words = Words([word for sentence in row["sents"] for word in sentence])
    starts = [0, *accumulate(map(len, row["sents"]))]
    entities = []
    for number, vertex in enumerate(row["vertexSet"]):
        places = {
            (one["sent_id"], *(starts[one["sent_id"]] + end for end in one["pos"])): one["type"] for one in vertex
        }
        spans = [words.mention(start, end, type_) for (_, start, end), type_ in places.items()]
        texts = [words.text[span.start : span.end] for span in spans]
        entities.append(
            {
                place: EntityMention(span.start, span.end, text, span.type, f"{id}#{number}")
                for place, span, text in zip(places, spans, texts, strict=True)
            }
        )
    pairs = []
    for label in row["labels"]:
        heads, tails = entities[label["h"]], entities[label["t"]]
        shared = _closest(heads, tails, set(label.get("evidence", ())))
        head, tail = shared or min(product(heads, tails), key=lambda pair: (_distance(*pair), pair))
        first, last = (Mention(one.start, one.end, one.type) for one in (heads[head], tails[tail]))
        pairs.append(Pair(first, last, label["r"]))
    bounds = [(words.starts[first], words.starts[end] - 1) for first, end in pairwise(starts) if end > first]
    mentions = tuple(mention for entity in entities for mention in entity.values())
    yield Record(id, line, words.text, tuple(pairs), mentions, words.words, None, True, tuple(bounds))


def _parse(
    row: dict[str, Any], *, line: int, id: str, negatives: float, rng: random.Random
) -> Iterator[Record | Reject]:
    sentences = [Words(sentence) for sentence in row["sents"]]
    entities = [
        {(mention["sent_id"], *mention["pos"]): mention["type"] for mention in vertex} for vertex in row["vertexSet"]
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
        if head != tail and (head, tail) not in labels and _sentences(entities[head]) & _sentences(entities[tail])
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
            Pair(mention(head, first), mention(tail, last), name) for first, last, head, tail, name in pairs[sentence]
        )
        mentions = tuple(
            mention(entity, place) for entity, places in enumerate(entities) for place in places if place[0] == sentence
        )
        yield Record(f"{id}-{sentence}", line, words.text, annotated, mentions, words.words)


def _closest(heads: Mapping[Place, Any], tails: Mapping[Place, Any], evidence: set[int]) -> tuple[Place, Place] | None:
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


def _sentences(places: Mapping[Place, Any]) -> set[int]:
    return {place[0] for place in places}


RE_DOCRED = load_card("re_docred", read_re_docred)
