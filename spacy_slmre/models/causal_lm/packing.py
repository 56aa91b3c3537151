"""Prompt trees in one sequence: blocks of tokens that see their ancestors only.

Packing puts many contexts behind one prefix and many queries behind one context; what the queries of a
context begin with in common, such as their head, stands there once. Positions restart behind the parent, and
the attention mask lets a token see the blocks above its own, and its own up to itself, or all of it where the
block is read two ways: to the model every path from the root reads like a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

ROUND_TO = 32
"""Lengths are padded to multiples of this: few shapes mean few kernels prepared and little memory held."""


@dataclass(frozen=True)
class PackedInput:
    """What one forward pass reads.

    Attributes:
        tokens: Token ids, (n_tokens,).
        positions: Position of each on its path, (n_tokens,).
        mask: Which tokens each may see, computed ones first: bool (n_tokens, n_computed + n_tokens).
    """

    tokens: np.ndarray
    positions: np.ndarray
    mask: np.ndarray


class TokenTree:
    """A tree of token blocks, computed in as many forward passes as one likes.

    Blocks are numbered in the order they are added; a parent comes before its children. An empty block is
    a name for its parent's end.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._ends: list[int] = []  # position behind the last token, on the path
        self._last: list[int] = []  # index of the block's last token in the whole sequence
        self._ancestors: list[list[int]] = []  # a block's path from the root, itself included
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._blocks: list[int] = []  # block of every token; -1 is padding
        self._two_way: list[bool] = []  # whether a block's tokens see those behind them
        self.computed = 0
        """How many tokens of the sequence have been through `take_input`."""

    def add(self, tokens: Sequence[int], parent: int = -1, *, two_way: bool = False) -> int:
        """Add a block behind another (-1: a root); returns its number.

        Args:
            tokens: Its tokens.
            parent: The block behind which it stands.
            two_way: Its tokens see those of the block that come later, too.
        """
        block = len(self._parents)
        start = self._ends[parent] if parent >= 0 else 0
        self._parents.append(parent)
        self._ancestors.append([*(self._ancestors[parent] if parent >= 0 else ()), block])
        self._tokens.extend(tokens)
        self._positions.extend(range(start, start + len(tokens)))
        self._blocks.extend([block] * len(tokens))
        self._two_way.append(two_way)
        self._ends.append(start + len(tokens))
        if tokens:
            self._last.append(len(self._tokens) - 1)
        else:
            self._last.append(self._last[parent] if parent >= 0 else -1)
        return block

    def add_paths(self, paths: Sequence[list[int]], parent: int) -> list[int]:
        """Add several sequences of tokens behind a block, what they begin with in common only once.

        Returns:
            The block that each of them ends with.
        """
        ends = [parent] * len(paths)

        def add(rows: Sequence[int], start: int, parent: int) -> None:
            # `rows`, in order of their tokens, share the `start` tokens down to `parent`.
            for _, same in groupby(rows, key=lambda row: paths[row][start : start + 1]):
                members = list(same)
                first, last = paths[members[0]], paths[members[-1]]
                end = shared_length(first, last)
                block = self.add(first[start:end], parent) if end > start else parent
                for row in members:
                    ends[row] = block
                longer = [row for row in members if len(paths[row]) > end]
                if longer:
                    add(longer, end, block)

        add(sorted(range(len(paths)), key=lambda row: paths[row]), 0, parent)
        return ends

    def last_token(self, block: int) -> int:
        """Index in the whole sequence of the last token on the path to the end of a block."""
        return self._last[block]

    def __len__(self) -> int:
        """Number of tokens in the sequence, padding included."""
        return len(self._tokens)

    def take_input(self, pad_token: int = 0, round_to: int = 1) -> PackedInput:
        """The blocks added since the last call, as the input of one forward pass.

        Args:
            pad_token: Token id for padding.
            round_to: Pad the number of new tokens to a multiple of this.
        """
        start = self.computed
        padding = -(len(self._tokens) - start) % round_to
        self._tokens.extend([pad_token] * padding)
        self._positions.extend([0] * padding)
        self._blocks.extend([-1] * padding)
        self.computed = len(self._tokens)

        blocks = np.asarray(self._blocks, dtype=np.int64)
        sees = np.zeros((len(self._parents) + 1, len(self._parents) + 1), dtype=bool)
        for block, path in enumerate(self._ancestors):
            sees[block, path] = True
        # The last row and column, reached by -1, are padding: seen by nothing but itself.
        sees[-1, -1] = True
        mask = sees[blocks[start:]][:, blocks]
        index = np.arange(self.computed)
        earlier = index[None, :] <= index[start:, None]
        if any(self._two_way):
            same = blocks[None, :] == blocks[start:, None]
            earlier |= same & np.asarray([*self._two_way, False])[blocks[start:], None]
        mask &= earlier
        return PackedInput(
            np.asarray(self._tokens[start:], dtype=np.int64),
            np.asarray(self._positions[start:], dtype=np.int64),
            mask,
        )


@dataclass(frozen=True)
class Piece:
    """A context and some of the queries behind it, to stand in one sequence.

    Attributes:
        context: Position of the context.
        queries: Positions of the queries.
        size: Number of tokens.
    """

    context: int
    queries: tuple[int, ...]
    size: int


def plan(
    context_sizes: Sequence[int],
    queries: Sequence[list[int]],
    context_of: Sequence[int],
    budget: int,
    behind: Sequence[int] | None = None,
) -> list[list[Piece]]:
    """Distribute queries over sequences of at most `budget` tokens.

    The queries of one context stay together while they fit; a context with more of them is repeated. Behind
    a long context, half the budget goes to queries on top of it, so that repeating it stays worth while;
    such a sequence is longer than the budget, and so is one whose single query does not fit.

    Args:
        context_sizes: Tokens of each context, (n_contexts,).
        queries: Each query's tokens; what those of a piece begin with in common counts once.
        context_of: The context of each query, (n_queries,).
        budget: Tokens a sequence.
        behind: Tokens that stand behind each query, (n_queries,); none by default.

    Returns:
        The pieces of every sequence; each query stands in exactly one.
    """
    queries_of: dict[int, list[int]] = {}
    for query, context in enumerate(context_of):
        queries_of.setdefault(context, []).append(query)
    pieces: list[Piece] = []
    for context, members in queries_of.items():
        chosen: list[int] = []
        size = context_sizes[context]
        room_here = max(budget, size + budget // 2)
        # In order of tokens, each shares most with the one before it.
        for query in sorted(members, key=lambda query: queries[query]):
            own = len(queries[query]) + (behind[query] if behind else 0)
            shared = shared_length(queries[chosen[-1]], queries[query]) if chosen else 0
            if chosen and size + own - shared > room_here:
                pieces.append(Piece(context, tuple(chosen), size))
                chosen, size, shared = [], context_sizes[context], 0
            chosen.append(query)
            size += own - shared
        pieces.append(Piece(context, tuple(chosen), size))
    # First fit, longest first.
    sequences: list[list[Piece]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=lambda piece: -piece.size):
        place = next((n for n, left in enumerate(room) if left >= piece.size), None)
        if place is None:
            sequences.append([piece])
            room.append(budget - piece.size)
        else:
            sequences[place].append(piece)
            room[place] -= piece.size
    return sequences


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
