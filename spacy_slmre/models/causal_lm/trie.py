"""The trie of the allowed answers, and the exact search for the most probable ones.

An answer is a path of tokens. At every node of the trie where more than one token can follow, a softmax
over just these tokens gives their probabilities; where one can follow, its probability is 1 and nothing
is computed. A label's probability is the product along its path: a proper distribution over the labels.

The probability of a path bounds that of every label beneath it. Best-first search follows the most
probable path of each instance and stops as soon as no open path can beat the labels found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NOTHING = -np.inf


@dataclass(frozen=True)
class Fork:
    """A node where more than one token can follow.

    Attributes:
        parent: Position of the fork above in the trie's list; -1 for the first.
        feed: Tokens from the fork above (or the query) down to this node; the model has read them when
            it decides here.
        tokens: The tokens that can follow.
        targets: Where each leads: a fork's position, or `~column` of a label (a negative number).
    """

    parent: int
    feed: tuple[int, ...]
    tokens: tuple[int, ...]
    targets: tuple[int, ...]


class LabelTrie:
    """The forks of a label set's answers; the first comes first, parents come before their children.

    Args:
        answers: Token ids of every label's answer. Each ends with the end token, so that none is the
            beginning of another.

    Raises:
        ValueError: Two labels have the same tokens, or one is the beginning of another.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.n_labels = len(answers)
        self.forks: list[Fork] = []
        self._grow(list(range(len(answers))), [tuple(answer) for answer in answers], 0, -1)

    def _grow(self, columns: list[int], answers: list[tuple[int, ...]], start: int, parent: int) -> int:
        """Add the forks of labels that share their first `start` tokens; gives the target to reach them."""
        if len(columns) == 1:
            return ~columns[0]
        depth = start
        while True:
            if short := [column for column in columns if len(answers[column]) <= depth]:
                others = [column for column in columns if column != short[0]]
                raise ValueError(
                    f"To the tokenizer, the answer for label {short[0]} is the same as that for label "
                    f"{others[0]}, or the beginning of it."
                )
            following = sorted({answers[column][depth] for column in columns})
            if len(following) > 1:
                break
            depth += 1
        position = len(self.forks)
        self.forks.append(Fork(parent, answers[columns[0]][start:depth], (), ()))
        targets = tuple(
            self._grow([c for c in columns if answers[c][depth] == token], answers, depth, position)
            for token in following
        )
        self.forks[position] = Fork(parent, answers[columns[0]][start:depth], tuple(following), targets)
        return position

    @cached_property
    def paths(self) -> list[list[tuple[int, int]]]:
        """The way to every label: (fork, column of the token taken there), from the first fork on."""
        paths: list[list[tuple[int, int]]] = [[] for _ in range(self.n_labels)]
        above: dict[int, list[tuple[int, int]]] = {0: []}
        for position, fork in enumerate(self.forks):
            for column, target in enumerate(fork.targets):
                path = [*above[position], (position, column)]
                if target < 0:
                    paths[~target] = path
                else:
                    above[target] = path
        return paths

    @cached_property
    def beneath(self) -> np.ndarray:
        """Which labels lie beneath which fork: bool (n_forks, n_labels)."""
        beneath = np.zeros((len(self.forks), self.n_labels), dtype=bool)
        for position in reversed(range(len(self.forks))):
            for target in self.forks[position].targets:
                if target < 0:
                    beneath[position, ~target] = True
                else:
                    beneath[position] |= beneath[target]
        return beneath


class TrieSearch:
    """The state of the search for a number of instances: ask `requests`, answer with `resolve`, repeat.

    Args:
        trie: The trie.
        n_instances: How many are searched for together.
        k: Find the k most probable labels of each; None finds the probability of every label.
        allowed: Which labels may be answered, bool (n_instances, n_labels); None allows all. The
            probabilities are those over all labels: nothing is renormalised.
    """

    def __init__(
        self, trie: LabelTrie, n_instances: int, k: int | None = None, allowed: np.ndarray | None = None
    ) -> None:
        self.trie = trie
        self.k = k
        self.allowed = allowed
        self.labels = np.full((n_instances, trie.n_labels), NOTHING)
        """Log-probabilities of the labels decided so far; -inf elsewhere."""
        self._open = np.full((n_instances, len(trie.forks)), NOTHING)
        if trie.forks:
            self._open[:, 0] = 0.0
        else:
            self.labels[:, 0] = 0.0  # a single label is certain
        # Paths beneath which no label may be answered are never followed.
        self._reachable = None if allowed is None else (allowed @ trie.beneath.T)

    def requests(self) -> Iterator[tuple[int, np.ndarray]]:
        """The forks to decide next: (fork, instances), forks in the trie's order; nothing when done."""
        open_ = self._open if self._reachable is None else np.where(self._reachable, self._open, NOTHING)
        if not open_.size:
            return
        if self.k is None:
            wanted = open_ > NOTHING
        else:
            best = open_.argmax(axis=1)
            rows = np.arange(len(open_))
            wanted = np.zeros_like(open_, dtype=bool)
            wanted[rows, best] = open_[rows, best] > self._kth_best()
        for fork in np.flatnonzero(wanted.any(axis=0)):
            yield int(fork), np.flatnonzero(wanted[:, fork])

    def resolve(self, fork: int, instances: np.ndarray, log_probs: np.ndarray) -> None:
        """Take the log-probabilities of the tokens that can follow a fork: (n_instances, n_tokens).

        Raises:
            ValueError: One of them is not a number.
        """
        if np.isnan(log_probs).any():
            raise ValueError(
                "The model computed values that are not numbers. Set model.dtype to float32 or bfloat16; if "
                "it is that already, the weights are damaged."
            )
        paths = self._open[instances, fork][:, None] + log_probs
        self._open[instances, fork] = NOTHING
        for column, target in enumerate(self.trie.forks[fork].targets):
            if target < 0:
                self.labels[instances, ~target] = paths[:, column]
            else:
                self._open[instances, target] = paths[:, column]

    def top(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best labels found: columns and log-probabilities (n_instances, k), best first."""
        labels = self._answerable()
        columns = np.argsort(-labels, axis=1, kind="stable")[:, :k]
        return columns, np.take_along_axis(labels, columns, axis=1)

    def _answerable(self) -> np.ndarray:
        return self.labels if self.allowed is None else np.where(self.allowed, self.labels, NOTHING)

    def _kth_best(self) -> np.ndarray:
        assert self.k is not None
        k = min(self.k, self.trie.n_labels)
        return -np.partition(-self._answerable(), k - 1, axis=1)[:, k - 1]
