"""Records with character offsets, and rejects, which the readers of corpus formats yield.

The same rules apply to the arguments of every format:

* An argument given only as a string is placed at its first occurrence as a whole word, otherwise at its first
  occurrence; if possible, it does not overlap the other argument. The format "table" rejects strings that occur more
  than once, unless `ambiguous=first` is set.
* Nested and overlapping arguments are kept. `doc.ents` then has the longest of the overlapping mentions,
  `doc.spans["relation_mentions"]` all of them.
* Leading and trailing whitespace is not part of an argument.
* Arguments are never moved to token boundaries; the token is split instead.
* Discontinuous arguments are rejected.
* Head and tail may be the same mention if they are in the source.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, permutations
from typing import Any, TypeVar

from spacy_slmre.documents import UNTYPED, EntityMention
from spacy_slmre.instances import Mention

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """An annotated pair with its label as spelled in the source."""

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
        mentions: Other entities.
        words: Tokens in the source; joined by single spaces, they make up the text.
        format: Format that defines the labels of the record, if it is not the one being read.
        complete: Whether the pairs are all relations of the text, so that every other pair is negative; otherwise,
            other pairs are unknown.
        sentences: Start and end of each sentence, if the source contains them.
        clusters: Mentions of the same entity.
        inverse_of: The symmetric and inverse labels, if the source contains them.
        iris: The IRIs of the labels that have one.
        predicted_by: The pipeline that predicted the pairs, if they are not annotated.
    """

    id: str
    line: int
    text: str
    pairs: tuple[Pair, ...]
    mentions: tuple[Mention | EntityMention, ...] = ()
    words: tuple[str, ...] | None = None
    format: str | None = None
    complete: bool = False
    sentences: tuple[tuple[int, int], ...] | None = None
    clusters: tuple[tuple[Mention, ...], ...] = ()
    inverse_of: Mapping[str, str] = field(default_factory=dict)
    iris: Mapping[str, str] = field(default_factory=dict)
    predicted_by: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record or pair that cannot be converted.

    Attributes:
        line: Line or row number in the source.
        id: Identifier in the source.
        reason: One of a few short phrases, by which rejects are counted.
        detail: What was found.
        file: The file, if the source is a folder.
    """

    line: int
    id: str
    reason: str
    detail: str
    file: str = ""

    def to_dict(self, source: str) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"file": self.file or source, **{key: value for key, value in asdict(self).items() if key != "file"}}


class Malformed(ValueError):
    """A record has a missing or invalid field and is rejected."""


class Ambiguous(Malformed):
    """An argument is given as a string that occurs several times."""


def parse_rows(
    rows: Iterable[tuple[int, Any]],
    parse: Callable[..., Iterable[Record | Reject]],
    split: str,
    ids: Callable[[Any], Iterable[Any]] = lambda row: (),
    **settings: Any,
) -> Iterator[Record | Reject]:
    """Parse rows one by one; malformed rows become rejects.

    Args:
        rows: Line numbers and rows.
        parse: Yields the content of a row: `parse(row, line=…, id=…, **settings)`.
        split: Used in the identifiers of records without one in the source.
        ids: Returns the possible identifiers of a row, the first of which that is not missing or empty is passed to
            `parse`. The row may be malformed.
        settings: Passed to `parse`.
    """
    for number, (line, row) in enumerate(rows):
        name = next((str(one) for one in ids(row) if one is not None and str(one).strip()), f"{split}-{number}")
        try:
            yield from parse(row, line=line, id=name, **settings)
        except Malformed as error:
            yield Reject(line, name, "malformed record", str(error))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            yield Reject(line, name, "malformed record", f"{type(error).__name__}: {error}")


class Words:
    """Tokens from a source, joined by spaces.

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
        self.starts = [0, *accumulate(len(word) + 1 for word in self.words)]

    def mention(self, start: int, end: int, entity_type: str = UNTYPED) -> Mention:
        """Return the mention of the tokens from `start` to `end` (exclusive).

        Raises:
            Malformed: The span is empty or out of range.
        """
        if not 0 <= start < end <= len(self.words):
            raise Malformed(f"tokens [{start}:{end}] are out of range for {len(self.words)} tokens")
        return Mention(self.starts[start], self.starts[end - 1] + len(self.words[end - 1]), entity_type)


def find_occurrences(text: str, string: str, *, ignore_case: bool = False) -> list[tuple[int, int]]:
    """Return the offsets of a string in a text: first whole words, then parts of words.

    With `ignore_case`, differences in case and whitespace are ignored if there is no exact match.
    """
    string = string.strip()
    if not string:
        return []
    # The lookahead also finds overlapping occurrences.
    spans = [match.span(1) for match in re.finditer(f"(?=({re.escape(string)}))", text)]
    if not spans and ignore_case:
        pattern = r"\s+".join(map(re.escape, string.split()))
        spans = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    return sorted(spans, key=lambda span: not _is_whole_word(text, *span))


def place_pair(
    text: str,
    head: str,
    tail: str,
    types: tuple[str, str] = (UNTYPED, UNTYPED),
    known: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
    *,
    ignore_case: bool = False,
    unique: bool = False,
) -> tuple[Mention, Mention]:
    """Find head and tail, given as strings or, in `known`, as offsets, in a text, by the rules of this module.

    Raises:
        Malformed: One of them is empty or does not occur in the text.
        Ambiguous: With `unique`: one of them could be placed at several positions.
    """
    occurrences = []
    for string, offsets in zip((head, tail), known, strict=True):
        if offsets is not None:
            occurrences.append([offsets])
            continue
        if not str(string or "").strip():
            raise Malformed("an argument is empty")
        if not (spans := find_occurrences(text, str(string), ignore_case=ignore_case)):
            raise Malformed(f"the argument {string!r} does not occur in the text")
        occurrences.append(spans)
    heads, tails = occurrences
    if unique:
        heads, tails = _unique(text, head, heads, tails), _unique(text, tail, tails, heads)
    # Place the longer argument first, so that a shorter one is not placed inside it, and before both a known one.
    is_tail_first = len(tail) > len(head) if known == (None, None) else known[1] is not None
    if is_tail_first:
        last = tails[0]
        first = _first_clear(heads, last)
    else:
        first = heads[0]
        last = _first_clear(tails, first)
    return Mention(*first, types[0]), Mention(*last, types[1])


def _unique(
    text: str, string: str, spans: list[tuple[int, int]], others: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the only possible position of a string: a whole word if there is one, outside of the other argument."""
    spans, others = ([span for span in found if _is_whole_word(text, *span)] or found for found in (spans, others))
    if len(spans) > 1 and len(others) == 1:
        spans = [span for span in spans if span[1] <= others[0][0] or others[0][1] <= span[0]] or spans
    if len(spans) > 1:
        raise Ambiguous(f"the argument {string!r} occurs {len(spans)} times")
    return spans


def _first_clear(spans: list[tuple[int, int]], other: tuple[int, int]) -> tuple[int, int]:
    return next((span for span in spans if span[1] <= other[0] or other[1] <= span[0]), spans[0])


def _is_whole_word(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not after


def sample_negatives(pairs: Sequence[T], positives: int, ratio: float, rng: random.Random) -> list[T]:
    """Sample `ratio` negatives per positive from unannotated pairs, in order; a ratio below 0 returns all pairs."""
    wanted = len(pairs) if ratio < 0 else min(len(pairs), round(ratio * positives))
    return [pairs[position] for position in sorted(rng.sample(range(len(pairs)), wanted))]


def negative_pairs(
    mentions: Iterable[Mention], annotated: Sequence[Pair], label: str, ratio: float, rng: random.Random
) -> list[Pair]:
    """Sample ordered pairs of mentions without annotation, and return them with the negative label."""
    known = {(pair.head, pair.tail) for pair in annotated}
    rest = [pair for pair in permutations(mentions, 2) if pair not in known]
    return [Pair(head, tail, label) for head, tail in sample_negatives(rest, len(annotated), ratio, rng)]
