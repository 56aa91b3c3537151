"""What a corpus format's reader yields: records with character offsets, and rejects.

The same rules apply to the arguments of every format:

* An argument given only as a string is placed at its first occurrence as a whole word, otherwise at its first
  occurrence; if possible it does not overlap the other argument.
* Nested and overlapping arguments are kept. `doc.ents` then has the longest of the overlapping mentions,
  `doc.spans["relation_mentions"]` all of them.
* Whitespace at the edges is not part of an argument.
* Arguments are never moved to token boundaries; the token is split instead.
* A discontinuous argument is rejected.
* Head and tail may be the same mention if the source says so.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any, TypeVar

from spacy_slmre.documents import UNTYPED
from spacy_slmre.instances import Mention

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """An annotated pair, with the label as the source spells it."""

    head: Mention
    tail: Mention
    label: str


@dataclass(frozen=True, slots=True)
class Record:
    """A text with its annotation.

    Attributes:
        id: Identifier in the source.
        line: Line or row number in the source.
        text: The text.
        pairs: All annotated pairs, including negative ones.
        mentions: Further entities.
        words: The source's own tokens; joined by single spaces they make up the text.
        format: Format whose labels the record uses, if it is not the one being read.
    """

    id: str
    line: int
    text: str
    pairs: tuple[Pair, ...]
    mentions: tuple[Mention, ...] = ()
    words: tuple[str, ...] | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that could not be converted.

    Attributes:
        line: Line or row number in the source.
        id: Identifier in the source.
        reason: One of a few short phrases, for counting.
        detail: What was found.
    """

    line: int
    id: str
    reason: str
    detail: str

    def to_dict(self, file: str) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"file": file, **asdict(self)}


class Malformed(ValueError):
    """A record lacks a field or has a value of the wrong form, so it is rejected."""


def parse_rows(
    rows: Iterable[tuple[int, Any]], parse: Callable[..., Iterable[Record | Reject]], split: str, **settings: Any
) -> Iterator[Record | Reject]:
    """Parse rows one by one; malformed rows become rejects.

    Args:
        rows: Line numbers and rows.
        parse: Yields the content of a row: `parse(row, line=…, id=…, **settings)`.
        split: Used in the identifiers of records that have none in the source.
        settings: Passed to `parse`.
    """
    for number, (line, row) in enumerate(rows):
        name = f"{split}-{number}"
        try:
            yield from parse(row, line=line, id=name, **settings)
        except Malformed as error:
            yield Reject(line, name, "malformed record", str(error))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            yield Reject(line, name, "malformed record", f"{type(error).__name__}: {error}")


class Words:
    """The tokens of a source, joined by spaces.

    Raises:
        Malformed: There are no tokens, or one is empty.
    """

    def __init__(self, words: Sequence[str]) -> None:
        if not isinstance(words, list | tuple) or not words:
            raise Malformed("there are no tokens")
        self.words = tuple(map(str, words))
        if "" in self.words:
            raise Malformed("a token is empty")
        self.text = " ".join(self.words)
        self.starts: list[int] = []
        position = 0
        for word in self.words:
            self.starts.append(position)
            position += len(word) + 1

    def mention(self, start: int, end: int, entity_type: str = UNTYPED) -> Mention:
        """Return the mention of the tokens from `start` to `end` (exclusive).

        Raises:
            Malformed: The span is empty or out of range.
        """
        if not 0 <= start < end <= len(self.words):
            raise Malformed(f"tokens [{start}:{end}] are out of range for {len(self.words)} tokens")
        return Mention(self.starts[start], self.starts[end - 1] + len(self.words[end - 1]), entity_type)


def find_occurrences(text: str, string: str, *, ignore_case: bool = False) -> list[tuple[int, int]]:
    """Return where a string occurs in a text: first whole words, then parts of words.

    Args:
        text: The text.
        string: The string.
        ignore_case: If there is no exact match, ignore case and the kind of whitespace.
    """
    string = string.strip()
    if not string:
        return []
    found = []
    position = text.find(string)
    while position >= 0:
        found.append((position, position + len(string)))
        position = text.find(string, position + 1)
    if not found and ignore_case:
        pattern = r"\s+".join(map(re.escape, string.split()))
        found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    return sorted(found, key=lambda span: not _is_whole_word(text, *span))


def place_pair(
    text: str, head: str, tail: str, types: tuple[str, str] = (UNTYPED, UNTYPED), *, ignore_case: bool = False
) -> tuple[Mention, Mention]:
    """Find head and tail in a text that gives them as strings, by the rules of this module.

    Raises:
        Malformed: One of them is empty or does not occur in the text.
    """
    found = []
    for string in (head, tail):
        if not str(string or "").strip():
            raise Malformed("an argument is empty")
        if not (spans := find_occurrences(text, str(string), ignore_case=ignore_case)):
            raise Malformed(f"the argument {string!r} does not occur in the text")
        found.append(spans)
    heads, tails = found
    # Place the longer argument first, so that a shorter one inside it is looked for elsewhere.
    if len(tail) > len(head):
        last = tails[0]
        first = _first_clear(heads, last)
    else:
        first = heads[0]
        last = _first_clear(tails, first)
    return Mention(*first, types[0]), Mention(*last, types[1])


def _first_clear(spans: list[tuple[int, int]], other: tuple[int, int]) -> tuple[int, int]:
    return next((span for span in spans if span[1] <= other[0] or other[1] <= span[0]), spans[0])


def _is_whole_word(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not after


def sample_negatives(pairs: Sequence[T], positives: int, ratio: float, rng: random.Random) -> list[T]:
    """Sample unannotated pairs, in their order.

    Args:
        pairs: The unannotated pairs.
        positives: Number of annotated pairs.
        ratio: Number of negatives per positive; below 0 takes all pairs.
        rng: Random number generator.
    """
    wanted = len(pairs) if ratio < 0 else min(len(pairs), round(ratio * positives))
    return [pairs[position] for position in sorted(rng.sample(range(len(pairs)), wanted))]


def negative_pairs(
    mentions: Iterable[Mention], annotated: Sequence[Pair], label: str, ratio: float, rng: random.Random
) -> list[Pair]:
    """Sample ordered pairs of mentions that have no annotation, as pairs with the negative label."""
    known = {(pair.head, pair.tail) for pair in annotated}
    rest = [pair for pair in permutations(mentions, 2) if pair not in known]
    return [Pair(head, tail, label) for head, tail in sample_negatives(rest, len(annotated), ratio, rng)]
