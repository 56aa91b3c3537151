from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.slm.packing import TokenTree, plan


@given(st.data())
def test_every_token_sees_its_path_and_nothing_else(data: st.DataObject) -> None:
    tree = TokenTree()
    paths: list[list[int]] = []  # indices of the tokens on the path to the end of each block
    block_tokens: list[list[int]] = []
    for _ in range(data.draw(st.integers(1, 4))):  # forward passes
        start = len(tree)
        for _ in range(data.draw(st.integers(1, 6))):
            parent = data.draw(st.integers(-1, len(paths) - 1))
            size = data.draw(st.integers(0, 4))
            own = list(range(len(tree), len(tree) + size))
            block = tree.add([7] * size, parent)
            paths.append([*(paths[parent] if parent >= 0 else []), *own])
            block_tokens.append(own)
            assert tree.last_token(block) == (paths[block][-1] if paths[block] else -1)
        round_to = data.draw(st.sampled_from([1, 8]))
        packed = tree.take_input(pad_token=9, round_to=round_to)
        assert len(packed.tokens) % round_to == 0 and tree.computed == len(tree)
        assert packed.mask.shape == (len(packed.tokens), len(tree)) and packed.mask.any(axis=1).all()
        for path, own in zip(paths, block_tokens, strict=True):
            for token in own:
                if token >= start:
                    expected = path[: path.index(token) + 1]
                    assert np.flatnonzero(packed.mask[token - start]).tolist() == expected
                    assert packed.positions[token - start] == len(expected) - 1
                    assert packed.tokens[token - start] == 7


@given(st.data())
def test_plan_places_every_query_once_within_the_budget(data: st.DataObject) -> None:
    contexts = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    context_of = data.draw(st.lists(st.integers(0, len(contexts) - 1), max_size=40))
    queries = [data.draw(st.integers(1, 12)) for _ in context_of]
    budget = data.draw(st.integers(1, 80))
    sequences = plan(contexts, queries, context_of, budget)
    placed = [query for pieces in sequences for piece in pieces for query in piece.queries]
    assert sorted(placed) == list(range(len(queries)))
    for pieces in sequences:
        for piece in pieces:
            assert piece.size == contexts[piece.context] + sum(queries[query] for query in piece.queries)
            assert all(context_of[query] == piece.context for query in piece.queries)
        total = sum(piece.size for piece in pieces)
        if total > budget:
            (piece,) = pieces
            own = contexts[piece.context] + budget // 2
            assert total <= own or len(piece.queries) == 1


def test_context_with_many_queries_is_repeated() -> None:
    sequences = plan([10], [5] * 7, [0] * 7, 25)
    assert sorted(len(piece.queries) for pieces in sequences for piece in pieces) == [1, 3, 3]
    long = plan([500], [20] * 90, [0] * 90, 512)
    assert max(len(piece.queries) for pieces in long for piece in pieces) == 12
