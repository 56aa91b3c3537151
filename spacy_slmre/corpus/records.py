"""What a converter yields: records of a source, with arguments placed in their text, and rejects.

Rules for arguments, the same for every benchmark:

* Repeated: an argument that is given as a string only stands at its first occurrence as a whole word, or
  else at its first occurrence at all, and clear of the other argument where that is possible.
* Nested or overlapping: both arguments are kept as they are. `doc.ents` holds the longest of overlapping
  mentions; where some overlap, `doc.spans["relation_mentions"]` holds all of them.
* White space at the edges is no part of an argument.
* Ending inside a token: the token is cut there. No argument ever moves to a token's boundary.
* Not contiguous: an argument is one stretch of text; what is not is rejected, never stretched.
* Head and tail the same words: kept where the source says so.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spacy_slmre.documents import UNTYPED
from spacy_slmre.instances import Mention


@dataclass(frozen=True, slots=True)
class Pair:
    """An annotated pair; the label stands as the source spells it, until the conversion resolves it."""

    head: Mention
    tail: Mention
    label: str


@dataclass(frozen=True, slots=True)
class Record:
    """One text of a source with its annotation.

    Attributes:
        id: Identifier in the source.
        line: Line in the source's file, or number of the row.
        text: The text.
        pairs: The annotated pairs, negatives included.
        mentions: Further entities that the source marks.
        words: The source's own tokens, where it has some; joined by spaces they are the text.
        benchmark: The benchmark that the record belongs to, where a file pools several.
    """

    id: str
    line: int
    text: str
    pairs: tuple[Pair, ...]
    mentions: tuple[Mention, ...] = ()
    words: tuple[str, ...] | None = None
    benchmark: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that could not be converted.

    Attributes:
        line: Line in the source's file, or number of the row.
        id: Identifier in the source.
        reason: One of few short phrases, to be counted.
        detail: What exactly was found.
    """

    line: int
    id: str
    reason: str
    detail: str

    def to_dict(self, file: str) -> dict[str, Any]:
        """Plain data for a line of JSON."""
        return {"file": file, **asdict(self)}


class Malformed(ValueError):
    """A record lacks a field, or a field has the wrong form; the converter rejects the record."""


def rejecting(
    rows: Iterable[tuple[int, Any]],
    parse: Callable[..., Iterable[Record | Reject]],
    split: str,
    **settings: Any,
) -> Iterator[Record | Reject]:
    """Parse rows one by one; a row that is malformed becomes a reject.

    Args:
        rows: Line numbers and rows.
        parse: Yields what a row holds: `parse(row, line=…, id=…, **settings)`.
        split: Names the records that the source leaves without an identifier.
        settings: Passed on to `parse`.
    """
    for number, (line, row) in enumerate(rows):
        name = f"{split}-{number}"
        try:
            yield from parse(row, line=line, id=name, **settings)
        except Malformed as error:
            yield Reject(line, name, "malformed record", str(error))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            yield Reject(line, name, "malformed record", f"{type(error).__name__}: {error}")


# -- token offsets -------------------------------------------------------------------------------------


class Words:
    """The tokens of a source, joined by spaces.

    Raises:
        Malformed: There are none, or one is empty.
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
        """The mention of tokens `start` to `end`, which stands outside.

        Raises:
            Malformed: It is empty or lies outside the text.
        """
        if not 0 <= start < end <= len(self.words):
            raise Malformed(f"tokens [{start}:{end}] are none of the {len(self.words)} tokens")
        return Mention(self.starts[start], self.starts[end - 1] + len(self.words[end - 1]), entity_type)


# -- arguments given as strings ------------------------------------------------------------------------


def occurrences(text: str, string: str, *, loose: bool = False) -> list[tuple[int, int]]:
    """Where a string stands in a text, whole words first, each in text order.

    Args:
        text: The text.
        string: The string.
        loose: Where it does not occur as it is, ignore case and the kind of white space.
    """
    string = string.strip()
    if not string:
        return []
    found = []
    position = text.find(string)
    while position >= 0:
        found.append((position, position + len(string)))
        position = text.find(string, position + 1)
    if not found and loose:
        pattern = r"\s+".join(map(re.escape, string.split()))
        found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    return sorted(found, key=lambda span: not _is_whole(text, *span))


def place_pair(
    text: str,
    head: str,
    tail: str,
    types: tuple[str, str] = (UNTYPED, UNTYPED),
    *,
    loose: bool = False,
) -> tuple[Mention, Mention]:
    """Head and tail in a text that gives them as strings; see the rules of this module.

    Raises:
        Malformed: One of them is empty or does not stand in the text.
    """
    found = []
    for string in (head, tail):
        if not str(string or "").strip():
            raise Malformed("an argument is empty")
        if not (spans := occurrences(text, str(string), loose=loose)):
            raise Malformed(f"the argument {string!r} does not stand in the text")
        found.append(spans)
    heads, tails = found
    # The longer argument first: a shorter one that also stands within it has to look elsewhere.
    if len(tail) > len(head):
        last = tails[0]
        first = _clear_of(last, heads)
    else:
        first = heads[0]
        last = _clear_of(first, tails)
    return Mention(*first, types[0]), Mention(*last, types[1])


def _clear_of(other: tuple[int, int], spans: list[tuple[int, int]]) -> tuple[int, int]:
    clear = (span for span in spans if span[1] <= other[0] or other[1] <= span[0])
    return next(clear, spans[0])


def _is_whole(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not after


# -- negatives -----------------------------------------------------------------------------------------


def sample_negatives(
    pairs: Sequence[tuple[Any, Any]], positives: int, ratio: float, rng: random.Random
) -> list[tuple[Any, Any]]:
    """Some of the unannotated pairs, in their order.

    Args:
        pairs: The unannotated pairs.
        positives: Number of annotated pairs that they stand beside.
        ratio: Negatives wanted for each positive; below 0 takes all pairs.
        rng: Source of randomness.
    """
    wanted = len(pairs) if ratio < 0 else min(len(pairs), round(ratio * positives))
    return [pairs[position] for position in sorted(rng.sample(range(len(pairs)), wanted))]
