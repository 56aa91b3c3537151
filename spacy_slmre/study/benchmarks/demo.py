"""The demo corpus of this project, in a format that is easy to write and proofread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

from spacy_slmre.corpus.records import Malformed, Pair, Record, Reject
from spacy_slmre.corpus.sources import read_lines
from spacy_slmre.instances import Mention
from spacy_slmre.schema import NEGATIVE_LABEL
from spacy_slmre.study.benchmarks.card import load_card

SYMMETRIC = ("spouse_of", "sibling_of", "enemy_of")

_ENTITY = re.compile(r"\[([^\]|]+)\|(\w+)\]")
_RELATION = re.compile(r"\s+(\d+)\s+(\S+)\s+(\d+)\s*")


def read_demo(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read sentences with `[words|TYPE]`, each followed by indented lines `head relation tail`.

    Symmetric relations are written once. Every pair that is not listed is negative.
    """
    block: list[tuple[int, str]] = []
    for line, content in read_lines(source):
        if content.startswith("#"):
            continue
        if content.strip() and not (content[0].isspace() and block):
            yield from _parse(block, split)
            block = []
        if content.strip():
            block.append((line, content))
    yield from _parse(block, split)


def _parse(block: list[tuple[int, str]], split: str) -> Iterator[Record | Reject]:
    if not block:
        return
    (line, sentence), *relations = block
    name = f"{split}-{line}"
    text, mentions = parse_brackets(sentence)
    pairs: dict[tuple[Mention, Mention], str] = {}
    for number, content in relations:
        try:
            head, label, tail = _parse_relation(content, mentions)
        except Malformed as error:
            yield Reject(number, name, "malformed relation", str(error))
            continue
        pairs[head, tail] = label
        if label in SYMMETRIC:
            pairs[tail, head] = label
    annotated = [Pair(*pair, pairs.get(pair, NEGATIVE_LABEL)) for pair in permutations(mentions, 2)]
    yield Record(name, line, text, tuple(annotated), tuple(mentions))


def parse_brackets(sentence: str) -> tuple[str, list[Mention]]:
    """Return a sentence without brackets, and the mentions that they mark."""
    text = ""
    mentions = []
    position = 0
    for match in _ENTITY.finditer(sentence):
        text += sentence[position : match.start()]
        mentions.append(Mention(len(text), len(text) + len(match[1]), match[2]))
        text += match[1]
        position = match.end()
    return text + sentence[position:].rstrip(), mentions


def _parse_relation(content: str, mentions: list[Mention]) -> tuple[Mention, str, Mention]:
    match = _RELATION.fullmatch(content)
    if not match:
        raise Malformed(f"{content.strip()!r} does not have the form: head relation tail")
    head, tail = int(match[1]), int(match[3])
    if head == tail or not all(1 <= number <= len(mentions) for number in (head, tail)):
        raise Malformed(f"{content.strip()!r}: the sentence has {len(mentions)} entities")
    return mentions[head - 1], match[2], mentions[tail - 1]


DEMO = load_card("demo", read_demo)
