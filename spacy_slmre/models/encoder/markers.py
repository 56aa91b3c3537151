"""Markers around head and tail of an instance.

A context is tokenized once for all of its pairs, and markers are inserted between its tokens. New marker tokens have
ids beyond the vocabulary and their own embeddings in the network, so the tokenizer is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerFast

from spacy_slmre.instances import Context, Mention, RelationInstance

STYLES = ("typed", "plain", "punctuation")
SIDES = ("head", "tail")
# Words for common entity types; other types are used in lower case.
TYPE_WORDS = {"PER": "person", "ORG": "organization", "LOC": "location", "MISC": "miscellaneous", "NUM": "number"}
MAX_TYPE_TOKENS = 4
"""Longer types are truncated in punctuation markers."""


def words_of(entity_type: str) -> str:
    """Return an entity type in words."""
    return TYPE_WORDS.get(entity_type, entity_type.replace("_", " ").replace("-", " ").lower())


@dataclass(frozen=True)
class MarkedText:
    """The token ids of an instance, including special tokens and markers, and the positions of its opening markers."""

    tokens: list[int]
    head: int
    tail: int


class Markers:
    """Inserts markers around arguments.

    The styles mark "Ann was born in Rome" as

    * "typed": `[head PER] Ann [/head] was born in [tail LOC] Rome [/tail]`, with new tokens; types that are not in
      `types` get plain markers;
    * "plain": `[head] Ann [/head] was born in [tail] Rome [/tail]`, with new tokens;
    * "punctuation": `@ * person * Ann @ was born in # ^ location ^ Rome #` (Zhou & Chen, arXiv 2102.01373).

    Args:
        tokenizer: The encoder's tokenizer.
        vocabulary: Number of rows of the encoder's embeddings.
        style: One of `STYLES`.
        types: The mapped entity types that have typed markers.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, vocabulary: int, style: str, types: Iterable[str] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.style = style
        self.types = tuple(sorted(set(types) - {""})) if style == "typed" else ()
        self.first_new = vocabulary
        names = [] if style == "punctuation" else [f"{sign}{side}" for side in SIDES for sign in ("", "/")]
        names += [f"{side} {words_of(kind)}" for side in SIDES for kind in self.types]
        self.new_tokens = tuple(names)
        """Words for each new token, which is initialized with the mean of their embeddings."""
        self._typed = {
            (side, kind): n for n, (side, kind) in enumerate([(side, kind) for side in SIDES for kind in self.types])
        }
        self._words: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    @cached_property
    def max_added(self) -> int:
        """Maximum number of special tokens and markers."""
        if self.style != "punctuation":
            return 2 + 4
        signs = {sign: len(self._ids(sign)) for sign in "@*#^"}
        return 2 + 2 * sum(signs.values()) + 2 * MAX_TYPE_TOKENS

    def tokenize(self, contexts: Sequence[Context]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return token ids and their character offsets for each context, without special tokens."""
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

    def mark(self, instance: RelationInstance, tokens: Sequence[int], offsets: Sequence[tuple[int, int]]) -> MarkedText:
        """Return the instance with its markers, given the tokens and offsets of its context."""
        events = []  # (token position, order there, side, ids, opens)
        for side, mention in zip(SIDES, (instance.head_mention, instance.tail_mention), strict=True):
            first, last = _token_range(offsets, mention)
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
        ids = self.tokenizer(f" {text}", add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        return list(ids)


def _token_range(offsets: Sequence[tuple[int, int]], mention: Mention) -> tuple[int, int]:
    """Return the tokens of a mention as (first, last + 1)."""
    first, count = 0, len(offsets)
    while first < count and offsets[first][1] <= mention.start:
        first += 1
    last = first
    while last < count and offsets[last][0] < mention.end:
        last += 1
    return first, last
