"""Training sequences: packed prompt trees of labeled instances, and the decisions of their answers.

A training sequence is a prompt tree as in scoring: one prefix, many contexts, many queries. Each query is followed by
the tokens of its gold answer, up to the last one where another answer is still possible.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spacy_slmre.instances import Context, RelationInstance, contexts_of, gold_columns
from spacy_slmre.models.causal_lm.trie import LabelTrie
from spacy_slmre.models.packing import ContextGroup, PackedInput, TokenTree, pack
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema

OBJECTIVES = ("trie", "lm")
LENGTH_ROUND_TO = 64
"""Lengths are padded to multiples of this: few different shapes need little cached memory."""
DECISIONS_ROUND_TO = 32
# Number of sequences packed together, so that packing is linear and batches remain mixed.
_PACKED_TOGETHER = 16


@dataclass(frozen=True)
class TrainingSequence:
    """A packed sequence with its decisions.

    Attributes:
        packed: Tokens, positions and mask.
        positions: Index of the token after which each decision is made, (n_decisions,).
        choices: Tokens to choose from, (n_decisions, max_choices), padded with -1; None for the whole vocabulary.
        targets: The correct choices, (n_decisions,): columns of `choices`, or tokens.
        weights: Weight of each decision, (n_decisions,); 0 for padding.
        instances: Indices of the instances.
        count: Divisor of the summed loss: instances, or answer tokens for the objective "lm".
    """

    packed: PackedInput
    positions: np.ndarray
    choices: np.ndarray | None
    targets: np.ndarray
    weights: np.ndarray
    instances: tuple[int, ...]
    count: int


class TrainingSequences(Sequence[TrainingSequence]):
    """Labeled instances of one schema as packed sequences, built on access.

    Args:
        prompts: The prompt builder.
        instances: Labeled instances whose contexts fit the model.
        schema: Their labels.
        max_tokens: Tokens of a sequence after the prefix; exceeded if a single query needs more.
        objective: "trie" for the negative log-probability of the label among the schema's labels, "lm" for the plain
            language-model loss on the answer's tokens.
        weights: Weight of each instance, (n_instances,); 1 by default.
        seed: Seed for shuffling contexts; None keeps their order.

    Raises:
        ValueError: An instance has no label or one outside the schema, or the schema has only one label.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        max_tokens: int,
        objective: str = "trie",
        weights: Sequence[float] | np.ndarray | None = None,
        seed: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f'objective = "{objective}", but it must be one of {", ".join(OBJECTIVES)}.')
        self._objective = objective
        self._answers = prompts.answers(schema)
        self._trie = LabelTrie(self._answers)
        if not self._trie.nodes:
            raise ValueError(
                f'"{schema.names[0]}" is the only label, so there is nothing to learn. Add labels, for instance '
                "one for pairs without a relation."
            )
        self._columns = gold_columns(instances, schema)
        self._prefix = prompts.prefix(schema)
        self._weights = [1.0] * len(instances) if weights is None else [float(weight) for weight in weights]
        self._pad_token = prompts.end_token
        contexts = contexts_of(instances)
        if seed is not None:
            random.Random(seed).shuffle(contexts)
        self._contexts = prompts.contexts(contexts)
        self._queries = prompts.queries(instances)
        self._groups = self._pack(contexts, instances, max_tokens)

    def size(self, index: int) -> int:
        """Return the number of tokens of a sequence, padding included, without building it."""
        tokens = len(self._prefix) + sum(group.size for group in self._groups[index])
        return tokens + -tokens % LENGTH_ROUND_TO

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._groups)

    def __getitem__(self, index: int) -> TrainingSequence:  # type: ignore[override]
        """Build a sequence."""
        tree = TokenTree()
        prefix = tree.add(self._prefix)
        rows: list[int] = []
        positions: list[int] = []
        choices: list[tuple[int, ...]] = []
        targets: list[int] = []
        weights: list[float] = []
        for group in self._groups[index]:
            context = tree.add(self._contexts[group.context], prefix)
            blocks = tree.add_paths([self._queries[query] for query in group.queries], context)
            for query, block in zip(group.queries, blocks, strict=True):
                rows.append(query)
                for tokens, following, target in self._decisions(self._columns[query]):
                    block = tree.add(tokens, block)
                    positions.append(tree.last_token(block))
                    choices.append(following)
                    targets.append(target)
                    weights.append(self._weights[query])
        count = len(rows) if self._objective == "trie" else len(positions)
        padding = -len(positions) % DECISIONS_ROUND_TO
        return TrainingSequence(
            tree.take_input(self._pad_token, LENGTH_ROUND_TO),
            np.array(positions + [0] * padding),
            # Padding has the choices of the first decision, so that no row is empty.
            None if self._objective == "lm" else _as_matrix(choices + choices[:1] * padding),
            np.array(targets + [0] * padding),
            np.array(weights + [0.0] * padding, dtype=np.float32),
            tuple(rows),
            count,
        )

    def _decisions(self, column: int) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
        """Return the decisions of a label: (tokens since the last decision, choices, target)."""
        if self._objective == "trie":
            path = [(self._trie.nodes[node], choice) for node, choice in self._trie.paths[column]]
            return [(node.prefix_tokens, node.tokens, choice) for node, choice in path]
        answer = self._answers[column]
        before = [(), *((token,) for token in answer[:-1])]
        return [(tokens, (), token) for tokens, token in zip(before, answer, strict=True)]

    def _pack(
        self, contexts: Sequence[Context], instances: Sequence[RelationInstance], max_tokens: int
    ) -> list[list[ContextGroup]]:
        index_of = {context: n for n, context in enumerate(contexts)}
        context_sizes = [len(tokens) for tokens in self._contexts]
        answer_sizes = [sum(len(tokens) for tokens, _, _ in self._decisions(column)) for column in self._columns]
        rows_of: list[list[int]] = [[] for _ in contexts]
        for row, instance in enumerate(instances):
            rows_of[index_of[instance.context]].append(row)
        sequences: list[list[ContextGroup]] = []
        chunk: list[int] = []
        size = 0
        for context, rows in enumerate(rows_of):
            chunk += rows
            size += context_sizes[context] + sum(len(self._queries[row]) + answer_sizes[row] for row in rows)
            if chunk and (size >= _PACKED_TOGETHER * max_tokens or context == len(contexts) - 1):
                packed = pack(
                    context_sizes,
                    [self._queries[row] for row in chunk],
                    [index_of[instances[row].context] for row in chunk],
                    max_tokens,
                    [answer_sizes[row] for row in chunk],
                )
                sequences += [
                    [replace(group, queries=tuple(chunk[query] for query in group.queries)) for group in groups]
                    for groups in packed
                ]
                chunk, size = [], 0
        return sequences


def _as_matrix(choices: Sequence[Sequence[int]]) -> np.ndarray:
    matrix = np.full((len(choices), max(map(len, choices))), -1)
    for row, tokens in enumerate(choices):
        matrix[row, : len(tokens)] = tokens
    return matrix
