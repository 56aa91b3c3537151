from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.decoding import top_k
from spacy_slmre.models.causal_lm.trie import LabelTrie, TrieSearch

END = 0
ANSWERS = st.lists(
    st.lists(st.integers(1, 3), max_size=5).map(lambda tokens: (*tokens, END)), min_size=1, max_size=30, unique=True
)


@given(ANSWERS)
def test_paths_spell_the_answers(answers: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(answers)
    assert len(trie.nodes) < max(2, len(answers))
    for column, answer in enumerate(answers):
        spelled: list[int] = []
        parent = -1
        for index, choice in trie.paths[column]:
            node = trie.nodes[index]
            assert node.parent == parent and trie.descendants[index, column]
            assert len(node.tokens) > 1 and list(node.tokens) == sorted(set(node.tokens))
            # Below the root, the first prefix token is the one that was chosen at the node above.
            spelled += [*node.prefix_tokens[bool(spelled) :], node.tokens[choice]]
            parent = index
        # After the last node, nothing is left to decide.
        assert tuple(spelled) == answer[: len(spelled)]
        assert sum(other[: len(spelled)] == answer[: len(spelled)] for other in answers) == 1


@given(ANSWERS)
def test_descendants_are_the_labels_below_a_node(answers: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(answers)
    for index in range(len(trie.nodes)):
        below = [column for column, path in enumerate(trie.paths) if index in dict(path)]
        assert np.flatnonzero(trie.descendants[index]).tolist() == below


@given(ANSWERS, st.integers(1, 6), st.integers(0, 2**31), st.booleans())
def test_search_is_exact_and_expands_no_more_than_necessary(
    answers: list[tuple[int, ...]], k: int, seed: int, masked: bool
) -> None:
    trie, n_instances, random = LabelTrie(answers), 4, np.random.default_rng(seed)
    tables = [random.normal(scale=3, size=(n_instances, len(node.tokens))) for node in trie.nodes]
    tables = [table - np.log(np.exp(table).sum(axis=1, keepdims=True)) for table in tables]
    allowed = random.random((n_instances, len(answers))) < 0.5 if masked else None

    def log_prob(row: int, column: int) -> float:
        """Return the log-probability of a label, with a softmax over the tokens that lead to allowed labels."""
        if allowed is not None and not allowed[row, column]:
            return -np.inf
        total = 0.0
        for node, choice in trie.paths[column]:
            others = {c for n, path in enumerate(trie.paths) if allowed is None or allowed[row, n] for c in path}
            values = [tables[node][row, c] for at, c in others if at == node]
            total += tables[node][row, choice] - np.log(np.exp(values).sum())
        return total

    expected = np.array([[log_prob(row, column) for column in range(len(answers))] for row in range(n_instances)])

    def run(search: TrieSearch) -> int:
        n_expanded = 0
        while frontier := list(search.frontier()):
            for node, members in frontier:
                n_expanded += len(members)
                values = tables[node][members]
                if (choices := search.choices(node, members)) is not None:
                    values = np.where(choices, values, -np.inf)
                search.expand(node, members, values - np.log(np.exp(values).sum(axis=1, keepdims=True)))
        return n_expanded

    every_label = TrieSearch(trie, n_instances, None, allowed)
    n_nodes = run(every_label)
    assert masked or n_nodes == n_instances * len(trie.nodes)
    np.testing.assert_allclose(every_label.log_probs, expected, atol=1e-12)
    possible = np.ones(n_instances) if allowed is None else allowed.any(axis=1)
    np.testing.assert_allclose(np.exp(every_label.log_probs).sum(axis=1), possible)

    best = TrieSearch(trie, n_instances, k, allowed)
    assert run(best) <= n_nodes
    _, log_probs = top_k(best.log_probs, k)
    np.testing.assert_allclose(log_probs, -np.sort(-expected, axis=1)[:, :k], atol=1e-12)

    likely = TrieSearch(trie, n_instances, len(answers), allowed, min_log_prob=np.log(0.3))
    assert run(likely) <= n_nodes
    found = expected >= np.log(0.3)
    np.testing.assert_allclose(likely.log_probs[found], expected[found], atol=1e-12)


def test_search_stops_when_no_open_path_can_win() -> None:
    trie = LabelTrie([(1, 1, END), (1, 2, END), (2, 1, END), (2, 2, END)])
    search = TrieSearch(trie, 1, k=1)
    expanded = []
    while frontier := list(search.frontier()):
        for node, members in frontier:
            expanded.append(node)
            search.expand(node, members, np.log([[0.9, 0.1]]))
    assert expanded == [0, 1]  # 0.81 exceeds the 0.1 of the other branch
    assert np.exp(search.log_probs).tolist() == [pytest.approx([0.81, 0.09, 0.0, 0.0])]


def test_a_single_label_is_certain_without_any_computation() -> None:
    search = TrieSearch(LabelTrie([(1, 2, END)]), 2, 1)
    assert list(search.frontier()) == []
    assert search.log_probs.tolist() == [[0.0], [0.0]]


def test_one_label_may_begin_with_the_wording_of_another() -> None:
    trie = LabelTrie([(1, END), (1, 2, END), (3, END)])
    assert trie.nodes[0].tokens == (1, 3)
    assert trie.nodes[1].tokens == (END, 2) and trie.nodes[1].prefix_tokens == (1,)


@pytest.mark.parametrize("answers", [[(1, END), (1, END)], [(1,), (1, 2)]])
def test_indistinguishable_labels_are_refused(answers: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="label 0 are the same as those of label 1, or a prefix"):
        LabelTrie(answers)


def test_nan_values_are_refused() -> None:
    search = TrieSearch(LabelTrie([(1, END), (2, END)]), 1)
    with pytest.raises(ValueError, match="NaN"):
        search.expand(0, np.array([0]), np.array([[np.nan, 0.0]]))
