from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.models.causal_lm.packing import TokenTree, plan


@given(st.data())
def test_every_token_sees_its_path_and_nothing_else(data: st.DataObject) -> None:
    tree = TokenTree()
    paths: list[list[int]] = []  # indices of the tokens on the path to the end of each block
    block_tokens: list[list[int]] = []
    two_way: list[bool] = []
    for _ in range(data.draw(st.integers(1, 4))):  # forward passes
        start = len(tree)
        for _ in range(data.draw(st.integers(1, 6))):
            parent = data.draw(st.integers(-1, len(paths) - 1))
            size = data.draw(st.integers(0, 4))
            own = list(range(len(tree), len(tree) + size))
            two_way.append(data.draw(st.booleans()))
            block = tree.add([7] * size, parent, two_way=two_way[-1])
            paths.append([*(paths[parent] if parent >= 0 else []), *own])
            block_tokens.append(own)
            assert tree.last_token(block) == (paths[block][-1] if paths[block] else -1)
        round_to = data.draw(st.sampled_from([1, 8]))
        packed = tree.take_input(pad_token=9, round_to=round_to)
        assert len(packed.tokens) % round_to == 0 and tree.computed == len(tree)
        assert packed.mask.shape == (len(packed.tokens), len(tree)) and packed.mask.any(axis=1).all()
        for path, own, all_of_it in zip(paths, block_tokens, two_way, strict=True):
            for token in own:
                if token >= start:
                    position = path.index(token)
                    expected = path if all_of_it else path[: position + 1]
                    assert np.flatnonzero(packed.mask[token - start]).tolist() == expected
                    assert packed.positions[token - start] == position
                    assert packed.tokens[token - start] == 7


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12))
def test_paths_share_what_they_begin_with(paths: list[list[int]]) -> None:
    tree = TokenTree()
    root = tree.add([5, 6])
    ends = tree.add_paths(paths, root)
    packed = tree.take_input()
    for path, end in zip(paths, ends, strict=True):
        seen = packed.mask[tree.last_token(end)]
        assert packed.tokens[seen].tolist() == [5, 6, *path]
        assert packed.positions[seen].tolist() == list(range(2 + len(path)))
    # One token for every distinct beginning.
    assert len(tree) == 2 + len({tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)})


@given(st.data())
def test_plan_places_every_query_once_within_the_budget(data: st.DataObject) -> None:
    contexts = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    context_of = data.draw(st.lists(st.integers(0, len(contexts) - 1), max_size=40))
    queries = [data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=12)) for _ in context_of]
    behind = [data.draw(st.integers(0, 3)) for _ in context_of]
    budget = data.draw(st.integers(1, 80))
    sequences = plan(contexts, queries, context_of, budget, behind)
    placed = [query for pieces in sequences for piece in pieces for query in piece.queries]
    assert sorted(placed) == list(range(len(queries)))
    for pieces in sequences:
        for piece in pieces:
            assert all(context_of[query] == piece.context for query in piece.queries)
            tree = TokenTree()
            tree.add_paths(
                [queries[query] for query in piece.queries], tree.add([1] * contexts[piece.context])
            )
            assert piece.size == len(tree) + sum(behind[query] for query in piece.queries)
        total = sum(piece.size for piece in pieces)
        if total > budget:
            (piece,) = pieces
            own = contexts[piece.context] + budget // 2
            assert total <= own or len(piece.queries) == 1


def test_context_with_many_queries_is_repeated() -> None:
    queries = [[n] * 5 for n in range(90)]
    sequences = plan([10], queries[:7], [0] * 7, 25)
    assert sorted(len(piece.queries) for pieces in sequences for piece in pieces) == [1, 3, 3]
    long = plan([500], [query * 4 for query in queries], [0] * 90, 512)
    assert max(len(piece.queries) for pieces in long for piece in pieces) == 12
