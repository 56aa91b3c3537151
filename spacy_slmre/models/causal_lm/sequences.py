"""What training computes: packed sequences of labelled instances, and where in them the answers are decided.

A training sequence is a prompt tree like those of scoring: one prefix, many contexts, many queries. Behind
each query stand the tokens of its gold answer, down to the last place where the answer could still have been
another one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacy_slmre.instances import Context, RelationInstance
from spacy_slmre.models.causal_lm.packing import PackedInput, Piece, TokenTree, plan
from spacy_slmre.models.causal_lm.trie import LabelTrie
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema

OBJECTIVES = ("trie", "lm")
TRAINING_ROUND_TO = 64
"""Lengths are padded to multiples of this: few shapes, and little memory held for them."""
DECISIONS_ROUND_TO = 32
# Sequences are filled out of so many at a time, so that planning stays linear and batches stay mixed.
_PLANNED_TOGETHER = 16


@dataclass(frozen=True)
class TrainingSequence:
    """One packed sequence with the decisions that its answers consist of.

    Attributes:
        packed: Tokens, positions and mask.
        places: Index of the token behind which each decision falls, (n_decisions,).
        choices: Tokens that are chosen from, (n_decisions, most_choices), filled up with -1; None for the
            whole vocabulary.
        targets: The right one: a column of `choices`, or a token, (n_decisions,).
        weights: Weight of each decision, (n_decisions,); 0 for decisions that only fill up.
        instances: Positions of the instances.
        count: What the sum of losses is divided by: instances, or for the objective "lm" answer tokens.
    """

    packed: PackedInput
    places: np.ndarray
    choices: np.ndarray | None
    targets: np.ndarray
    weights: np.ndarray
    instances: tuple[int, ...]
    count: int


class TrainingSequences(Sequence[TrainingSequence]):
    """All labelled instances of one schema as packed sequences, made when they are asked for.

    Args:
        prompts: Makes the tokens.
        instances: TrainingInstances instances; their contexts fit the model.
        schema: Their labels.
        room: Tokens of a sequence behind the prefix; exceeded where a single query needs more.
        objective: "trie" for the negative log of the label's probability among the schema's labels, "lm" for
            the plain loss of a language model on the tokens of the answer.
        weights: Weight of each instance, (n_instances,); 1 by default.
        seed: Contexts stand together in an order that is drawn with it; None keeps their order.

    Raises:
        ValueError: An instance has no label or one that the schema lacks, or the schema has one label only.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        room: int,
        objective: str = "trie",
        weights: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f'objective = "{objective}", but it must be one of {", ".join(OBJECTIVES)}.')
        self._objective = objective
        self._answers = prompts.answers(schema)
        self._trie = LabelTrie(self._answers)
        if not self._trie.forks:
            raise ValueError(
                f'"{schema.names[0]}" is the only label: there is nothing to learn. Add labels, for instance '
                "one for pairs without a relation."
            )
        for instance in instances:
            if instance.label not in schema.index:
                found = "no label" if instance.label is None else f'the label "{instance.label}"'
                raise ValueError(
                    f"An instance of {instance.context.text!r} has {found}, but the labels are: "
                    f"{', '.join(schema.names)}."
                )
        self._prefix = prompts.prefix(schema)
        self._columns = [schema.index[instance.label] for instance in instances if instance.label]
        self._weights = list(weights) if weights is not None else [1.0] * len(instances)
        self._pad = prompts.end_token
        self._two_way = prompts.style.two_way
        contexts = list(dict.fromkeys(instance.context for instance in instances))
        if seed is not None:
            random.Random(seed).shuffle(contexts)
        self._contexts = prompts.contexts(contexts)
        self._queries = prompts.queries(instances)
        self._pieces = self._plan(contexts, instances, room)

    def size(self, position: int) -> int:
        """Tokens of a sequence, padding included, without making it."""
        tokens = len(self._prefix) + sum(piece.size for piece in self._pieces[position])
        return tokens + -tokens % TRAINING_ROUND_TO

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._pieces)

    def __getitem__(self, position: int) -> TrainingSequence:  # type: ignore[override]
        """The sequence at a position."""
        tree = TokenTree()
        prefix = tree.add(self._prefix)
        rows: list[int] = []
        places: list[int] = []
        choices: list[tuple[int, ...]] = []
        targets: list[int] = []
        weights: list[float] = []
        count = 0
        for piece in self._pieces[position]:
            context = tree.add(self._contexts[piece.context], prefix, two_way=self._two_way)
            blocks = tree.add_paths([self._queries[query] for query in piece.queries], context)
            for query, block in zip(piece.queries, blocks, strict=True):
                rows.append(query)
                for feed, following, target in self._decisions(self._columns[query]):
                    block = tree.add(feed, block)
                    places.append(tree.last_token(block))
                    choices.append(following)
                    targets.append(target)
                    weights.append(self._weights[query])
                    count += self._objective == "lm"
        filler = -len(places) % DECISIONS_ROUND_TO
        places += [0] * filler
        targets += [0] * filler
        weights += [0.0] * filler
        # A filler chooses among the first decision's tokens, so that no row is without a choice.
        choices += choices[:1] * filler
        return TrainingSequence(
            tree.take_input(self._pad, TRAINING_ROUND_TO),
            np.array(places),
            None if self._objective == "lm" else _as_matrix(choices),
            np.array(targets),
            np.array(weights, dtype=np.float32),
            tuple(rows),
            count or len(rows),
        )

    def _decisions(self, column: int) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
        """The way of a label's answer: (tokens read since the last decision, choices, target)."""
        if self._objective == "trie":
            forks = [(self._trie.forks[fork], child) for fork, child in self._trie.paths[column]]
            return [(fork.feed, fork.tokens, child) for fork, child in forks]
        answer = self._answers[column]
        feeds = [(), *((token,) for token in answer[:-1])]
        return [(feed, (), token) for feed, token in zip(feeds, answer, strict=True)]

    def _plan(
        self, contexts: Sequence[Context], instances: Sequence[RelationInstance], room: int
    ) -> list[list[Piece]]:
        position = {context: n for n, context in enumerate(contexts)}
        context_sizes = [len(tokens) for tokens in self._contexts]
        answer_sizes = [sum(len(feed) for feed, _, _ in self._decisions(column)) for column in self._columns]
        members: list[list[int]] = [[] for _ in contexts]
        for row, instance in enumerate(instances):
            members[position[instance.context]].append(row)
        sequences: list[list[Piece]] = []
        together: list[int] = []
        size = 0

        def flush() -> None:
            if not together:
                return
            planned = plan(
                context_sizes,
                [self._queries[row] for row in together],
                [position[instances[row].context] for row in together],
                room,
                [answer_sizes[row] for row in together],
            )
            for pieces in planned:
                renamed = [
                    Piece(piece.context, tuple(together[q] for q in piece.queries), piece.size)
                    for piece in pieces
                ]
                sequences.append(renamed)
            together.clear()

        for context, rows in enumerate(members):
            together += rows
            size += context_sizes[context]
            size += sum(len(self._queries[row]) + answer_sizes[row] for row in rows)
            if size >= _PLANNED_TOGETHER * room:
                flush()
                size = 0
        flush()
        return sequences


def _as_matrix(choices: Sequence[Sequence[int]]) -> np.ndarray:
    matrix = np.full((len(choices), max(map(len, choices))), -1)
    for row, tokens in enumerate(choices):
        matrix[row, : len(tokens)] = tokens
    return matrix
