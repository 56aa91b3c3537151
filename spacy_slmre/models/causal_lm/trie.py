"""The trie of the labels' tokens, and an exact best-first search for the most probable labels.

A label is a path of tokens. At each node where several tokens can follow, a softmax over these tokens gives their
probabilities; where only one can follow, its probability is 1 and nothing is computed. A label's probability is the
product along its path, so the probabilities of all labels sum to 1.

The probability of a partial path is an upper bound for all labels below it. The search extends the most probable path
of each instance, and stops when no open path can beat the labels that were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEG_INF = -np.inf


@dataclass(frozen=True)
class TrieNode:
    """A node where several tokens can follow.

    Attributes:
        parent: Index of the parent in `LabelTrie.nodes`; -1 for the root.
        prefix_tokens: Tokens between the parent (or the query) and this node.
        tokens: The tokens that can follow.
        children: Where each token leads: the index of a node, or `~column` of a label (negative).
    """

    parent: int
    prefix_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    children: tuple[int, ...]


class LabelTrie:
    """The trie of a label set; in `nodes`, the root is first and parents precede their children.

    Args:
        answers: Token ids of each label. Each ends with the end token, so none is a prefix of another.

    Raises:
        ValueError: Two labels have the same tokens, or one is a prefix of another.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.n_labels = len(answers)
        self.nodes: list[TrieNode] = []
        self._grow(list(range(len(answers))), [tuple(answer) for answer in answers], 0, -1)

    def _grow(self, columns: list[int], answers: list[tuple[int, ...]], start: int, parent: int) -> int:
        """Add the nodes of labels with the same first `start` tokens; return the child index that leads to them."""
        if len(columns) == 1:
            return ~columns[0]
        depth = start
        while True:
            if short := [column for column in columns if len(answers[column]) <= depth]:
                other = next(column for column in columns if column != short[0])
                raise ValueError(
                    f"The tokens of label {short[0]} are the same as those of label {other}, or a prefix of them."
                )
            following = sorted({answers[column][depth] for column in columns})
            if len(following) > 1:
                break
            depth += 1
        index = len(self.nodes)
        prefix_tokens = answers[columns[0]][start:depth]
        self.nodes.append(TrieNode(parent, prefix_tokens, (), ()))
        children = tuple(
            self._grow([c for c in columns if answers[c][depth] == token], answers, depth, index) for token in following
        )
        self.nodes[index] = TrieNode(parent, prefix_tokens, tuple(following), children)
        return index

    @cached_property
    def paths(self) -> list[list[tuple[int, int]]]:
        """The path from the root to each label: (node, index of the chosen token)."""
        paths: list[list[tuple[int, int]]] = [[] for _ in range(self.n_labels)]
        above: dict[int, list[tuple[int, int]]] = {0: []}
        for index, node in enumerate(self.nodes):
            for choice, child in enumerate(node.children):
                path = [*above[index], (index, choice)]
                if child < 0:
                    paths[~child] = path
                else:
                    above[child] = path
        return paths

    @cached_property
    def descendants(self) -> np.ndarray:
        """Which labels are below each node: bool (n_nodes, n_labels)."""
        below = np.zeros((len(self.nodes), self.n_labels), dtype=bool)
        for index in reversed(range(len(self.nodes))):
            for child in self.nodes[index].children:
                if child < 0:
                    below[index, ~child] = True
                else:
                    below[index] |= below[child]
        return below


class TrieSearch:
    """Searches the labels of several instances; call `frontier` and `expand` until the frontier is empty.

    Args:
        trie: The trie.
        n_instances: Number of instances.
        k: Find the k most probable labels of each; None computes all labels.
        allowed: Labels that may be returned, bool (n_instances, n_labels); None allows all. Probabilities remain
            normalized over all labels.
    """

    def __init__(
        self, trie: LabelTrie, n_instances: int, k: int | None = None, allowed: np.ndarray | None = None
    ) -> None:
        self.trie = trie
        self.k = k
        self.allowed = allowed
        self.log_probs = np.full((n_instances, trie.n_labels), NEG_INF)
        """Log-probabilities of the labels found so far, -inf for all others."""
        self._open = np.full((n_instances, len(trie.nodes)), NEG_INF)
        if trie.nodes:
            self._open[:, 0] = 0.0
        else:
            self.log_probs[:, 0] = 0.0  # a single label is certain
        # Paths that lead to no allowed label are not extended.
        self._reachable = None if allowed is None else allowed @ trie.descendants.T

    def frontier(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the nodes to expand next, in the trie's order, with their instances."""
        open_ = self._open if self._reachable is None else np.where(self._reachable, self._open, NEG_INF)
        if not open_.size:
            return
        if self.k is None:
            wanted = open_ > NEG_INF
        else:
            best = open_.argmax(axis=1)
            rows = np.arange(len(open_))
            wanted = np.zeros_like(open_, dtype=bool)
            wanted[rows, best] = open_[rows, best] > self._kth_best()
        for node in np.flatnonzero(wanted.any(axis=0)):
            yield int(node), np.flatnonzero(wanted[:, node])

    def expand(self, node: int, instances: np.ndarray, log_probs: np.ndarray) -> None:
        """Extend the paths of instances at a node, given log-probabilities of its tokens, (n_instances, n_tokens).

        Raises:
            ValueError: A value is NaN.
        """
        if np.isnan(log_probs).any():
            raise ValueError(
                "The model computed NaN values. Set model.dtype to float32 or bfloat16; if that does not help, "
                "the weights are damaged."
            )
        paths = self._open[instances, node][:, None] + log_probs
        self._open[instances, node] = NEG_INF
        for choice, child in enumerate(self.trie.nodes[node].children):
            target, column = (self.log_probs, ~child) if child < 0 else (self._open, child)
            target[instances, column] = paths[:, choice]

    def _kth_best(self) -> np.ndarray:
        assert self.k is not None
        found = self.log_probs if self.allowed is None else np.where(self.allowed, self.log_probs, NEG_INF)
        k = min(self.k, self.trie.n_labels)
        return -np.partition(-found, k - 1, axis=1)[:, k - 1]
