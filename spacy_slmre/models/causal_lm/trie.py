"""The trie of the labels' tokens, and an exact best-first search for the most probable labels.

A label is a path of tokens. At each node where several tokens can follow, a softmax over these tokens gives their
probabilities; where only one can follow, its probability is 1 and nothing is computed. A label's probability is the
product along its path, so the probabilities of all labels sum to 1. Where only some labels are allowed, the softmax is
over the tokens that lead to these, so their probabilities sum to 1.

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
        allowed: Labels to choose from, bool (n_instances, n_labels); None allows all.
        min_log_prob: Beyond the most probable label, do not search for labels less probable than this.
    """

    def __init__(
        self,
        trie: LabelTrie,
        n_instances: int,
        k: int | None = None,
        allowed: np.ndarray | None = None,
        min_log_prob: float = NEG_INF,
    ) -> None:
        self.trie = trie
        self.k = k
        self.min_log_prob = min_log_prob
        self.log_probs = np.full((n_instances, trie.n_labels), NEG_INF)
        """Log-probabilities of the labels found so far, -inf for all others."""
        self._open = np.full((n_instances, len(trie.nodes)), NEG_INF)
        # Paths that lead to no allowed label are impossible.
        self._allowed = allowed
        self._reachable = None if allowed is None else allowed @ trie.descendants.T
        if trie.nodes:
            self._open[:, 0] = 0.0 if self._reachable is None else np.where(self._reachable[:, 0], 0.0, NEG_INF)
        else:
            # A single label is certain.
            self.log_probs[:, 0] = 0.0 if allowed is None else np.where(allowed[:, 0], 0.0, NEG_INF)

    def frontier(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the nodes to expand next, in the trie's order, with their instances."""
        if not self._open.size:
            return
        if self.k is None:
            wanted = self._open > NEG_INF
        else:
            best = self._open.argmax(axis=1)
            rows = np.arange(len(self._open))
            wanted = np.zeros_like(self._open, dtype=bool)
            bound = self._open[rows, best]
            is_open = (bound >= self.min_log_prob) | (bound > self.log_probs.max(axis=1))
            wanted[rows, best] = is_open & (bound > self._kth_best())
        for node in np.flatnonzero(wanted.any(axis=0)):
            yield int(node), np.flatnonzero(wanted[:, node])

    def choices(self, node: int, instances: np.ndarray) -> np.ndarray | None:
        """Return which tokens of a node lead to labels that are allowed, bool (n_instances, n_tokens); None for all."""
        if self._allowed is None or self._reachable is None:
            return None
        columns = [
            self._allowed[instances, ~child] if child < 0 else self._reachable[instances, child]
            for child in self.trie.nodes[node].children
        ]
        return np.stack(columns, axis=1)

    def expand(self, node: int, instances: np.ndarray, log_probs: np.ndarray) -> None:
        """Extend the paths of instances at a node, given log-probabilities of its tokens, (n_instances, n_tokens).

        The log-probabilities are normalized over the `choices` of each instance, and -inf for other tokens.

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
        k = min(self.k, self.trie.n_labels)
        return -np.partition(-self.log_probs, k - 1, axis=1)[:, k - 1]
