"""Levitated markers: all pairs of a context share its tokens.

A pair adds one marker for its head and one for its tail after the text. Both have the position of the mention that they
mark, and see the text and each other; the text does not see them. So a context is computed once for all of its pairs,
whose scores do not depend on each other (PL-Marker, arXiv 2109.06067; PURE's approximation, arXiv 2010.12812).

Unlike in these papers, a marker's embedding contains those of the words of its mention and of its entity type. So a
small encoder does not have to find the mention by its position, and knows types that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spacy_slmre.instances import Context, Mention, RelationInstance, contexts_of
from spacy_slmre.models.encoder.markers import (
    MAX_TYPE_TOKENS,
    SIDES,
    Inputs,
    Markers,
    TokenizedContext,
    token_range,
    words_of,
)
from spacy_slmre.models.packing import ROUND_TO, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_MENTION_TOKENS = 8
"""Tokens of a mention that its marker's embedding contains."""
NO_MARKER = -1


class LevitatedMarkers(Markers):
    """Packs contexts, each followed by the markers of its pairs, into sequences.

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Maximum number of tokens of a context.
    """

    new_tokens = SIDES

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        self._type_ids: dict[str, list[int]] = {}

    @property
    def max_added(self) -> int:
        """Number of special tokens of a context."""
        return 2

    def batches(self, instances: Sequence[RelationInstance], max_tokens: int) -> Iterator[tuple[list[int], Inputs]]:
        """Yield packed sequences; see `Markers.batches`."""
        contexts = contexts_of(instances)
        tokenized = self.tokenize(contexts)
        numbers = {context: n for n, context in enumerate(contexts)}
        of_pair = [numbers[instance.context] for instance in instances]
        sizes = [len(tokens) + self.max_added for tokens, _ in tokenized]
        # The markers of different pairs have no tokens in common.
        markers = [[row] * len(SIDES) for row in range(len(instances))]
        for groups in pack(sizes, markers, of_pair, max_tokens):
            sequence = PackedBlocks()
            rows: list[int] = []
            places: list[list[int]] = []
            for group in groups:
                block = self._add_text(sequence, tokenized[group.context][0])
                add_pair = _PairMarkers(self, contexts[group.context], tokenized[group.context])
                places += [add_pair(sequence, instances[row], block) for row in group.queries]
                rows += group.queries
            yield rows, (*sequence.arrays(), np.array(places))

    def _add_text(self, sequence: PackedBlocks, tokens: Sequence[int]) -> int:
        """Add a text with special tokens as a block, and return the block's number."""
        ids = [int(self.tokenizer.cls_token_id), *tokens, int(self.tokenizer.sep_token_id)]
        return sequence.add([[token] for token in ids], range(len(ids)))

    def type_ids(self, entity_type: str) -> list[int]:
        """Return the first tokens of an entity type in words."""
        if entity_type not in self._type_ids:
            self._type_ids[entity_type] = self.ids_of(words_of(entity_type))[:MAX_TYPE_TOKENS]
        return self._type_ids[entity_type]


class _PairMarkers:
    """Adds the markers of the pairs of one context."""

    def __init__(self, markers: LevitatedMarkers, context: Context, tokenized: TokenizedContext) -> None:
        self._markers = markers
        self._tokens, self._offsets = tokenized
        self._mentions = [self._describe(mention) for mention in context.mentions]

    def _describe(self, mention: Mention) -> tuple[list[int], int]:
        """Return the tokens in the embedding of a mention's marker, and its position after the first special token."""
        first, last = token_range(self._offsets, mention)
        own = self._tokens[first : min(last, first + MAX_MENTION_TOKENS)]
        return [*own, *self._markers.type_ids(mention.type)], first + 1

    def __call__(self, sequence: PackedBlocks, instance: RelationInstance, text: int) -> list[int]:
        """Add the markers of a pair after its text, and return their places in the sequence."""
        mentions = [self._mentions[index] for index in (instance.head, instance.tail)]
        start = len(sequence)
        sequence.add([words for words, _ in mentions], [position for _, position in mentions], text, range(len(SIDES)))
        return list(range(start, start + len(SIDES)))


class PackedBlocks:
    """A sequence of blocks, in which a token sees its own block and the one that its block comes after."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._starts: list[int] = []  # of each token in `_words`
        self._markers: list[int] = []
        self._positions: list[int] = []
        self._blocks: list[int] = []
        self._seen: list[int] = []  # the other block that a token sees
        self._n_blocks = 0

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._blocks)

    def add(
        self,
        words: Sequence[Sequence[int]],
        positions: Sequence[int],
        seen: int | None = None,
        markers: Sequence[int] | None = None,
    ) -> int:
        """Add a block and return its number.

        Args:
            words: For each token, the ids in the vocabulary whose mean is its embedding.
            positions: Their position ids.
            seen: Number of another block that the tokens see.
            markers: Indices of the new tokens whose embeddings are added.
        """
        for ids in words:
            self._starts.append(len(self._words))
            self._words.extend(ids)
        block = self._n_blocks
        self._n_blocks += 1
        self._positions.extend(positions)
        self._markers.extend([NO_MARKER] * len(words) if markers is None else markers)
        self._blocks.extend([block] * len(words))
        self._seen.extend([block if seen is None else seen] * len(words))
        return block

    def arrays(self) -> Inputs:
        """Return words, the start of each token in them, markers, positions, and the mask, padded to `ROUND_TO`."""
        if padding := -len(self) % ROUND_TO:
            self.add([[0]] * padding, [0] * padding)
        blocks, seen = np.array(self._blocks), np.array(self._seen)
        mask = (blocks[:, None] == blocks) | (seen[:, None] == blocks)
        return (
            np.array(self._words),
            np.array(self._starts),
            np.array(self._markers),
            np.array(self._positions)[None],
            mask,
        )
