from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.models.packing import TokenTree, pack


@given(st.data())
def test_each_token_sees_its_path_and_nothing_else(data: st.DataObject) -> None:
    tree = TokenTree()
    paths: list[list[int]] = []  # tokens on the path to the end of each block
    tokens_of: list[list[int]] = []
    for _ in range(data.draw(st.integers(1, 4))):  # forward passes
        start = len(tree)
        for _ in range(data.draw(st.integers(1, 6))):
            parent = data.draw(st.integers(-1, len(paths) - 1))
            size = data.draw(st.integers(0, 4))
            own = list(range(len(tree), len(tree) + size))
            block = tree.add([7] * size, parent)
            paths.append([*(paths[parent] if parent >= 0 else []), *own])
            tokens_of.append(own)
            assert tree.last_token(block) == (paths[block][-1] if paths[block] else -1)
        round_to = data.draw(st.sampled_from([1, 8]))
        packed = tree.take_input(pad_token=9, round_to=round_to)
        assert len(packed.tokens) % round_to == 0 and tree.n_computed == len(tree)
        assert packed.mask.shape == (len(packed.tokens), len(tree)) and packed.mask.any(axis=1).all()
        for path, own in zip(paths, tokens_of, strict=True):
            for token in own:
                if token >= start:
                    position = path.index(token)
                    assert np.flatnonzero(packed.mask[token - start]).tolist() == path[: position + 1]
                    assert packed.positions[token - start] == position
                    assert packed.tokens[token - start] == 7


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12))
def test_paths_share_common_beginnings(paths: list[list[int]]) -> None:
    tree = TokenTree()
    root = tree.add([5, 6])
    ends = tree.add_paths(paths, root)
    packed = tree.take_input()
    for path, end in zip(paths, ends, strict=True):
        seen = packed.mask[tree.last_token(end)]
        assert packed.tokens[seen].tolist() == [5, 6, *path]
        assert packed.positions[seen].tolist() == list(range(2 + len(path)))
    n_distinct = len({tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)})
    assert len(tree) == 2 + n_distinct


@given(st.data())
def test_each_query_is_packed_once_within_the_budget(data: st.DataObject) -> None:
    contexts = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    context_of = data.draw(st.lists(st.integers(0, len(contexts) - 1), max_size=40))
    queries = [data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=12)) for _ in context_of]
    answers = [data.draw(st.integers(0, 3)) for _ in context_of]
    budget = data.draw(st.integers(1, 80))
    sequences = pack(contexts, queries, context_of, budget, answers)
    packed = [query for groups in sequences for group in groups for query in group.queries]
    assert sorted(packed) == list(range(len(queries)))
    for groups in sequences:
        for group in groups:
            assert all(context_of[query] == group.context for query in group.queries)
            tree = TokenTree()
            tree.add_paths([queries[query] for query in group.queries], tree.add([1] * contexts[group.context]))
            assert group.size == len(tree) + sum(answers[query] for query in group.queries)
        total = sum(group.size for group in groups)
        if total > budget:
            (group,) = groups
            assert total <= contexts[group.context] + budget // 2 or len(group.queries) == 1


def test_a_context_with_many_queries_is_repeated() -> None:
    queries = [[n] * 5 for n in range(90)]
    sequences = pack([10], queries[:7], [0] * 7, 25)
    assert sorted(len(group.queries) for groups in sequences for group in groups) == [1, 3, 3]
    behind_long_context = pack([500], [query * 4 for query in queries], [0] * 90, 512)
    assert max(len(group.queries) for groups in behind_long_context for group in groups) == 12
