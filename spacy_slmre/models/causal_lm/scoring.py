"""Scoring labels with packed prompt trees and a search in the trie of their tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F

from spacy_slmre.instances import RelationInstance, contexts_of
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.decoder import Decoder, KeyValues
from spacy_slmre.models.causal_lm.trie import LabelTrie, TrieSearch
from spacy_slmre.models.packing import ROUND_TO, ContextGroup, TokenTree, pack
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema

ANSWER_ROOM = 512
"""Number of tokens reserved for a query and its answer."""


class PreparedLabels:
    """The trie of a label set, and its prompt prefix with cached keys and values.

    Attributes:
        fitted: Weights of the positive labels that were fitted to few-shot examples (None if there are none), and the
            version of the model's weights, once that was computed.

    Raises:
        ModelError: The tokenizer does not distinguish two labels.
    """

    def __init__(self, prompts: PromptBuilder, schema: LabelSchema) -> None:
        try:
            self.trie = LabelTrie(prompts.answers(schema))
        except ValueError as error:
            names = ", ".join(schema.names)
            raise ModelError(f"{error} Change the wording of these labels (labels 0, 1, … are: {names}).") from error
        self.prefix = prompts.prefix(schema)
        self.fitted: tuple[torch.Tensor | None, object] | None = None
        self._cache: KeyValues | None = None
        self._version: object = None

    def prefix_cache(self, decoder: Decoder) -> KeyValues:
        """Return keys and values of the prefix, recomputed if the weights have changed."""
        version = decoder.version
        if self._cache is None or self._version != version:
            tree = TokenTree()
            tree.add(self.prefix)
            _, self._cache = forward(decoder, tree, [], [])
            self._version = version
        return self._cache


def score_labels(
    decoder: Decoder,
    prompts: PromptBuilder,
    labels: PreparedLabels,
    instances: Sequence[RelationInstance],
    *,
    k: int | None = None,
    allowed: np.ndarray | None = None,
    min_prob: float = 0.0,
    max_tokens: int = 1024,
    use_prefix_cache: bool = True,
) -> tuple[np.ndarray, torch.Tensor | None]:
    """Score the labels of instances in packed sequences, in evaluation mode.

    Args:
        decoder: The model.
        prompts: The prompt builder.
        labels: The label set.
        instances: Instances whose contexts fit the model.
        k: Compute only as much as needed for the k most probable labels; None computes all labels.
        allowed: Labels to choose from, bool (n_instances, n_labels).
        min_prob: With k, beyond the most probable label, do not compute labels less probable than this.
        max_tokens: Tokens of a packed sequence after the prefix.
        use_prefix_cache: Compute the prefix only once, and cache its keys and values.

    Returns:
        Log-probabilities, float64 (n_instances, n_labels); -inf for labels that were not computed. And the hidden
        states at the end of the queries, (n_instances, hidden_size), zeros for instances without any allowed label;
        None if there was nothing to compute.

    Raises:
        ModelError: A prompt is longer than the model's limit.
    """
    trie = labels.trie
    result = TrieSearch(trie, len(instances), k, allowed).log_probs
    states: torch.Tensor | None = None
    if not instances or not trie.nodes:
        return result, None
    contexts = contexts_of(instances)
    index_of = {context: n for n, context in enumerate(contexts)}
    context_of = [index_of[instance.context] for instance in instances]
    context_tokens = prompts.contexts(contexts)
    root = trie.nodes[0].prefix_tokens
    query_tokens = [[*tokens, *root] for tokens in prompts.queries(instances)]
    _check_lengths(decoder, labels, context_tokens, query_tokens, context_of)
    # For all labels, every node of the trie is computed after every query.
    answers = sum(len(node.prefix_tokens) for node in trie.nodes[1:]) if k is None else 0
    sequences = pack(
        [len(tokens) for tokens in context_tokens], query_tokens, context_of, max_tokens, [answers] * len(instances)
    )
    with decoder.evaluating():
        for groups in sequences:
            rows = np.array([query for group in groups for query in group.queries])
            of_rows = None if allowed is None else allowed[rows]
            search = TrieSearch(trie, len(rows), k, of_rows, math.log(min_prob) if min_prob else -math.inf)
            tree = TokenTree()
            prefix = tree.add(labels.prefix)
            computed: KeyValues = []
            if use_prefix_cache:
                computed = labels.prefix_cache(decoder)
                tree.take_input()
            ends = _add_groups(tree, prefix, groups, context_tokens, query_tokens)
            of_queries, members = _search(decoder, tree, computed, search, ends, prompts.end_token)
            result[rows] = search.log_probs
            if len(members):
                if states is None:
                    states = of_queries.new_zeros(len(instances), of_queries.shape[1], dtype=torch.float32)
                states[torch.from_numpy(rows[members])] = of_queries.float()
    return result, states


def _add_groups(
    tree: TokenTree,
    prefix: int,
    groups: Sequence[ContextGroup],
    context_tokens: Sequence[Sequence[int]],
    query_tokens: Sequence[list[int]],
) -> dict[tuple[int, int], int]:
    """Add contexts and queries; return the block that ends at the trie's root, by (row, node)."""
    ends: dict[tuple[int, int], int] = {}
    for group in groups:
        context = tree.add(context_tokens[group.context], prefix)
        for block in tree.add_paths([query_tokens[query] for query in group.queries], context):
            ends[len(ends), 0] = block
    return ends


def _search(
    decoder: Decoder,
    tree: TokenTree,
    computed: KeyValues,
    search: TrieSearch,
    ends: dict[tuple[int, int], int],
    pad_token: int,
) -> tuple[torch.Tensor, np.ndarray]:
    """Search the labels of one sequence, computing the nodes of the frontier in each forward pass.

    Returns the hidden states at the root of the trie, (n, hidden_size), and the rows that they belong to, (n,).
    """
    nodes = search.trie.nodes
    of_root = torch.empty(0, 0), np.empty(0, dtype=int)
    while frontier := list(search.frontier()):
        # Sorted by row, blocks of the same context are adjacent.
        for row, index in sorted((row, index) for index, members in frontier for row in members):
            node = nodes[index]
            if node.parent >= 0:
                ends[row, index] = tree.add(node.prefix_tokens, ends[row, node.parent])
        start = tree.n_computed
        rows = [[tree.last_token(ends[row, index]) - start for row in members] for index, members in frontier]
        hidden, computed = forward(decoder, tree, computed, [*chain(*rows)], pad_token, ROUND_TO)
        for (index, members), own in zip(frontier, hidden.split([*map(len, rows)]), strict=True):
            if index == 0:
                of_root = own, members
            logits = decoder.logits(own, nodes[index].tokens)
            if (choices := search.choices(index, members)) is not None:
                logits = logits.masked_fill(~torch.from_numpy(choices).to(logits.device), -torch.inf)
            search.expand(index, members, F.log_softmax(logits, dim=-1).double().cpu().numpy())
    return of_root


def forward(
    decoder: Decoder, tree: TokenTree, computed: KeyValues, rows: Sequence[int], pad_token: int = 0, round_to: int = 1
) -> tuple[torch.Tensor, KeyValues]:
    """Compute the tree's new tokens; see `Decoder.forward`."""
    return decoder.forward(tree.take_input(pad_token, round_to), computed, rows)


def context_limit(decoder: Decoder, labels: PreparedLabels) -> int:
    """Return the maximum number of context tokens that leaves room for prefix, query and answer.

    Raises ModelError if there is no room for a context.
    """
    positions = decoder.max_positions or 2**31
    limit = positions - len(labels.prefix) - ANSWER_ROOM
    if limit < 1:
        raise ModelError(
            f"Instruction, labels and examples take {len(labels.prefix)} of the model's {positions} tokens, so "
            "there is no room for a text. Use fewer labels or examples, or no definitions."
        )
    return limit


def _check_lengths(
    decoder: Decoder,
    labels: PreparedLabels,
    contexts: Sequence[Sequence[int]],
    queries: Sequence[Sequence[int]],
    context_of: Sequence[int],
) -> None:
    limit = decoder.max_positions
    longest = max(len(contexts[c]) + len(query) for query, c in zip(queries, context_of, strict=True))
    needed = len(labels.prefix) + longest + max(len(node.prefix_tokens) for node in labels.trie.nodes)
    if limit is not None and needed > limit:
        raise ModelError(
            f"A prompt of {needed} tokens ({len(labels.prefix)} of them instruction, labels and examples) exceeds "
            f"the model's limit of {limit}. Set a smaller max_context_tokens, or use fewer examples or no definitions."
        )
