"""Packing of prompt trees into sequences of token blocks that only attend to their ancestors.

A prefix is followed by many contexts, and a context by many queries; tokens that its queries have in common at the
beginning, such as the head, are computed once. Position ids continue from the parent block, and the attention mask lets
a token attend to the blocks above its own, and to its own block up to itself. To the model, every path from the root
looks like a separate prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

ROUND_TO = 32
"""Lengths are padded to multiples of this: few different shapes need few cached kernels."""


@dataclass(frozen=True)
class PackedInput:
    """The input of one forward pass.

    Attributes:
        tokens: Token ids, (n_tokens,).
        positions: Position ids, (n_tokens,).
        mask: Which tokens each token may attend to, computed ones first: bool (n_tokens, n_computed + n_tokens).
    """

    tokens: np.ndarray
    positions: np.ndarray
    mask: np.ndarray


class TokenTree:
    """A tree of token blocks that can be computed in several forward passes.

    Blocks are numbered in the order of addition. An empty block is equivalent to the end of its parent.
    """

    def __init__(self) -> None:
        # For each block: blocks from the root to itself, position after its last token, index of its last token.
        self._paths: list[list[int]] = []
        self._ends: list[int] = []
        self._last: list[int] = []
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._blocks: list[int] = []  # block of each token; -1 for padding
        self.n_computed = 0
        """Number of tokens returned by `take_input` so far."""

    def add(self, tokens: Sequence[int], parent: int = -1) -> int:
        """Add a block after its parent (-1 for a root) and return its number."""
        block = len(self._paths)
        start = self._ends[parent] if parent >= 0 else 0
        self._paths.append([*(self._paths[parent] if parent >= 0 else ()), block])
        self._tokens.extend(tokens)
        self._positions.extend(range(start, start + len(tokens)))
        self._blocks.extend([block] * len(tokens))
        self._ends.append(start + len(tokens))
        inherited = self._last[parent] if parent >= 0 else -1
        self._last.append(len(self._tokens) - 1 if tokens else inherited)
        return block

    def add_paths(self, paths: Sequence[list[int]], parent: int) -> list[int]:
        """Add token sequences after a block, sharing common beginnings; return the block in which each ends."""
        ends = [parent] * len(paths)

        def add(rows: Sequence[int], start: int, parent: int) -> None:
            # `rows` are sorted by their tokens and share the first `start` tokens, which end in `parent`.
            for _, same in groupby(rows, key=lambda row: paths[row][start : start + 1]):
                members = list(same)
                first, last = paths[members[0]], paths[members[-1]]
                end = shared_length(first, last)
                block = self.add(first[start:end], parent) if end > start else parent
                for row in members:
                    ends[row] = block
                if longer := [row for row in members if len(paths[row]) > end]:
                    add(longer, end, block)

        add(sorted(range(len(paths)), key=lambda row: paths[row]), 0, parent)
        return ends

    def last_token(self, block: int) -> int:
        """Return the index of a block's last token in the sequence, or that of its ancestors if it is empty."""
        return self._last[block]

    def __len__(self) -> int:
        """Return the number of tokens, padding included."""
        return len(self._tokens)

    def take_input(self, pad_token: int = 0, round_to: int = 1) -> PackedInput:
        """Return the blocks added since the last call as the input of one forward pass.

        The number of new tokens is padded to a multiple of `round_to`.
        """
        start = self.n_computed
        padding = -(len(self._tokens) - start) % round_to
        self._tokens.extend([pad_token] * padding)
        self._positions.extend([0] * padding)
        self._blocks.extend([-1] * padding)
        self.n_computed = len(self._tokens)

        blocks = np.asarray(self._blocks, dtype=np.int64)
        visible = np.zeros((len(self._paths) + 1, len(self._paths) + 1), dtype=bool)
        for block, path in enumerate(self._paths):
            visible[block, path] = True
        # The last row and column (index -1) are padding, which only attends to itself.
        visible[-1, -1] = True
        mask = visible[blocks[start:]][:, blocks]
        index = np.arange(self.n_computed)
        mask &= index[None, :] <= index[start:, None]
        return PackedInput(
            np.asarray(self._tokens[start:], dtype=np.int64), np.asarray(self._positions[start:], dtype=np.int64), mask
        )


@dataclass(frozen=True)
class ContextGroup:
    """A context with some of its queries, to be placed in one sequence."""

    context: int  # index
    queries: tuple[int, ...]  # indices
    size: int  # number of tokens


def pack(
    context_sizes: Sequence[int],
    queries: Sequence[list[int]],
    context_of: Sequence[int],
    budget: int,
    answer_sizes: Sequence[int] | None = None,
) -> list[list[ContextGroup]]:
    """Distribute queries over sequences of at most `budget` tokens.

    The queries of a context stay together if they fit; otherwise the context is repeated. After a long context, queries
    get at least half the budget, so that repeating it is worthwhile. Such a sequence exceeds the budget, and so does a
    sequence with a single query that does not fit.

    Args:
        context_sizes: Tokens of each context, (n_contexts,).
        queries: Tokens of each query; a common beginning within a group counts once.
        context_of: Context of each query, (n_queries,).
        budget: Tokens of a sequence.
        answer_sizes: Tokens after each query, (n_queries,); none by default.

    Returns:
        The groups of each sequence; each query is in exactly one group.
    """
    queries_of: dict[int, list[int]] = {}
    for query, context in enumerate(context_of):
        queries_of.setdefault(context, []).append(query)
    groups: list[ContextGroup] = []
    for context, members in queries_of.items():
        chosen: list[int] = []
        size = context_sizes[context]
        room = max(budget, size + budget // 2)
        # In sorted order, each query has most tokens in common with its predecessor.
        for query in sorted(members, key=lambda query: queries[query]):
            own = len(queries[query]) + (answer_sizes[query] if answer_sizes else 0)
            shared = shared_length(queries[chosen[-1]], queries[query]) if chosen else 0
            if chosen and size + own - shared > room:
                groups.append(ContextGroup(context, tuple(chosen), size))
                chosen, size, shared = [], context_sizes[context], 0
            chosen.append(query)
            size += own - shared
        groups.append(ContextGroup(context, tuple(chosen), size))
    # First-fit decreasing bin packing.
    sequences: list[list[ContextGroup]] = []
    free: list[int] = []
    for group in sorted(groups, key=lambda group: -group.size):
        place = next((n for n, left in enumerate(free) if left >= group.size), None)
        if place is None:
            sequences.append([group])
            free.append(budget - group.size)
        else:
            sequences[place].append(group)
            free[place] -= group.size
    return sequences


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
