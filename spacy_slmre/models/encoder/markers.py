"""Markers of head and tail, and the inputs of the network that they make.

A context is tokenized once for all of its pairs. New marker tokens have their own embeddings in the network, so the
tokenizer is unchanged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from spacy_slmre.instances import Context, Mention, RelationInstance, contexts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STYLES = ("typed", "plain", "punctuation")
"""Styles of markers that are inserted into the text."""
SIDES = ("head", "tail")
ROUND_TO = 8
"""Batches are padded to multiples of this length: few different shapes need few cached kernels."""
Inputs = tuple[np.ndarray, ...]
"""The arguments of the network's `pair_vectors` for a batch."""
TokenizedContext = tuple[list[int], list[tuple[int, int]]]
"""Token ids and their character offsets, without special tokens."""
# Words for common entity types; other types are used in lower case.
TYPE_WORDS = {"PER": "person", "ORG": "organization", "LOC": "location", "MISC": "miscellaneous", "NUM": "number"}
MAX_TYPE_TOKENS = 4
"""Longer types are truncated in punctuation markers."""


def words_of(entity_type: str) -> str:
    """Return an entity type in words."""
    return TYPE_WORDS.get(entity_type, entity_type.replace("_", " ").replace("-", " ").lower())


class Markers(ABC):
    """Turns instances into inputs of the network.

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Maximum number of tokens that the encoder reads.
    """

    new_tokens: tuple[str, ...]
    """Words for each new token, whose embedding starts as the mean of theirs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    @property
    @abstractmethod
    def max_added(self) -> int:
        """Maximum number of special tokens and markers that are read together with a context."""

    @abstractmethod
    def batches(self, instances: Sequence[RelationInstance], max_tokens: int) -> Iterator[tuple[list[int], Inputs]]:
        """Yield batches of at most `max_tokens` tokens, including padding: the rows of their instances, and inputs."""

    def tokenize(self, contexts: Sequence[Context]) -> list[TokenizedContext]:
        """Tokenize contexts."""
        if not contexts:
            return []
        encoded = self.tokenizer(
            [context.text for context in contexts],
            add_special_tokens=False,
            split_special_tokens=True,  # "[SEP]" in a text is an ordinary string
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning about long texts
        )
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def ids_of(self, text: str) -> list[int]:
        """Return the token ids of a text without special tokens."""
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )


@dataclass(frozen=True)
class MarkedText:
    """The token ids of an instance, including special tokens and markers, and the positions of its opening markers."""

    tokens: list[int]
    head: int
    tail: int


class SolidMarkers(Markers):
    """Inserts markers into the text, so that each pair is a text of its own.

    The styles mark "Ann was born in Rome" as

    * "typed": `[head PER] Ann [/head] was born in [tail LOC] Rome [/tail]`, with new tokens; types that are not in
      `types` get plain markers;
    * "plain": `[head] Ann [/head] was born in [tail] Rome [/tail]`, with new tokens;
    * "punctuation": `@ * person * Ann @ was born in # ^ location ^ Rome #` (Zhou & Chen, arXiv 2102.01373).

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Maximum number of tokens that the encoder reads.
        vocabulary: Number of rows of the encoder's embeddings. New tokens have ids beyond it.
        style: One of `STYLES`.
        types: The mapped entity types that have typed markers.
        indexed_types: The mapped entity types with an embedding of their own, whose indices are then added to inputs.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
        vocabulary: int,
        style: str,
        types: Iterable[str] = (),
        indexed_types: Sequence[str] = (),
    ) -> None:
        super().__init__(tokenizer, max_length)
        self.style = style
        self.types = tuple(sorted(set(types) - {""})) if style == "typed" else ()
        # 0 is for types that did not occur in training.
        self._type_index = {kind: n for n, kind in enumerate(indexed_types, 1)}
        self.first_new = vocabulary
        names = [] if style == "punctuation" else [f"{sign}{side}" for side in SIDES for sign in ("", "/")]
        names += [f"{side} {words_of(kind)}" for side in SIDES for kind in self.types]
        self.new_tokens = tuple(names)
        self._typed = {
            (side, kind): n for n, (side, kind) in enumerate([(side, kind) for side in SIDES for kind in self.types])
        }
        self._words: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    @cached_property
    def max_added(self) -> int:
        """Maximum number of special tokens and markers that are read together with a context."""
        if self.style != "punctuation":
            return 2 + 4
        signs = {sign: len(self._ids(sign)) for sign in "@*#^"}
        return 2 + 2 * sum(signs.values()) + 2 * MAX_TYPE_TOKENS

    def batches(self, instances: Sequence[RelationInstance], max_tokens: int) -> Iterator[tuple[list[int], Inputs]]:
        """Yield batches of marked texts of similar length; see `Markers.batches`."""
        contexts = contexts_of(instances)
        tokenized = dict(zip(contexts, self.tokenize(contexts), strict=True))
        marked = [self.mark(instance, *tokenized[instance.context]) for instance in instances]
        rows: list[int] = []
        for row in sorted(range(len(marked)), key=lambda row: len(marked[row].tokens)):
            if rows and (len(rows) + 1) * _rounded(len(marked[row].tokens)) > max_tokens:
                yield rows, self._inputs(rows, marked, instances)
                rows = []
            rows.append(row)
        if rows:
            yield rows, self._inputs(rows, marked, instances)

    def _inputs(
        self, rows: Sequence[int], marked: Sequence[MarkedText], instances: Sequence[RelationInstance]
    ) -> Inputs:
        longest = max(len(marked[row].tokens) for row in rows)
        length = max(longest, min(_rounded(longest), self.max_length))
        tokens = np.full((len(rows), length), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for n, row in enumerate(rows):
            ids = marked[row].tokens
            tokens[n, : len(ids)] = ids
            mask[n, : len(ids)] = 1
        positions = np.array([[marked[row].head, marked[row].tail] for row in rows])
        if not self._type_index:
            return tokens, mask, positions
        pairs = [(instances[row].head_mention.type, instances[row].tail_mention.type) for row in rows]
        return tokens, mask, positions, np.array([[self._type_index.get(kind, 0) for kind in pair] for pair in pairs])

    def mark(self, instance: RelationInstance, tokens: Sequence[int], offsets: Sequence[tuple[int, int]]) -> MarkedText:
        """Return the instance with its markers, given the tokens and offsets of its context."""
        events = []  # (token position, order there, side, ids, opens)
        for side, mention in zip(SIDES, (instance.head_mention, instance.tail_mention), strict=True):
            first, last = token_range(offsets, mention)
            opening, closing = self._markers(side, mention.type)
            # At the same position, markers first close (inner before outer), then come arguments without tokens, and
            # then markers open (outer before inner).
            empty = first == last
            events.append((first, (1, 0) if empty else (2, -last), side, opening, True))
            events.append((last, (1, 1) if empty else (0, -first), side, closing, False))
        events.sort(key=lambda event: event[:2])
        marked = [int(self.tokenizer.cls_token_id)]
        at: dict[str, int] = {}
        done = 0
        for position, _, side, ids, opens in events:
            marked += tokens[done:position]
            done = position
            if opens:
                at[side] = len(marked)
            marked += ids
        marked += tokens[done:]
        marked.append(int(self.tokenizer.sep_token_id))
        return MarkedText(marked, at["head"], at["tail"])

    def _markers(self, side: str, kind: str) -> tuple[list[int], list[int]]:
        if self.style == "punctuation":
            if (side, kind) not in self._words:
                outer, inner = ("@", "*") if side == "head" else ("#", "^")
                word = self._ids(words_of(kind))[:MAX_TYPE_TOKENS] if kind else []
                inside = [*self._ids(inner), *word, *self._ids(inner)] if kind else []
                self._words[side, kind] = ([*self._ids(outer), *inside], self._ids(outer))
            return self._words[side, kind]
        plain = self.first_new + 2 * SIDES.index(side)
        typed = self._typed.get((side, kind))
        return [plain if typed is None else self.first_new + 4 + typed], [plain + 1]

    def _ids(self, text: str) -> list[int]:
        # With a leading space, because some tokenizers treat the first word of a text differently.
        return self.ids_of(f" {text}")


def token_range(offsets: Sequence[tuple[int, int]], mention: Mention) -> tuple[int, int]:
    """Return the tokens of a mention as (first, last + 1)."""
    first, count = 0, len(offsets)
    while first < count and offsets[first][1] <= mention.start:
        first += 1
    last = first
    while last < count and offsets[last][0] < mention.end:
        last += 1
    return first, last


def _rounded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO
