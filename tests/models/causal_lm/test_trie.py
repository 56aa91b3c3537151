from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.models.causal_lm.trie import LabelTrie, TrieSearch

END = 0
ANSWERS = st.lists(
    st.lists(st.integers(1, 3), max_size=5).map(lambda tokens: (*tokens, END)),
    min_size=1,
    max_size=30,
    unique=True,
)


def forked_path(trie: LabelTrie, column: int) -> list[tuple[int, int]]:
    """The decisions (fork, branch) that lead to a label."""
    for position, fork in enumerate(trie.forks):
        for branch, target in enumerate(fork.targets):
            if target == ~column:
                path = [(position, branch)]
                while trie.forks[position].parent >= 0:
                    child, position = position, trie.forks[position].parent
                    path.append((position, trie.forks[position].targets.index(child)))
                return path[::-1]
    return []


@given(ANSWERS)
def test_paths_spell_the_answers(answers: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(answers)
    assert len(trie.forks) < max(2, len(answers))
    for column, answer in enumerate(answers):
        spelled: list[int] = []
        for position, branch in forked_path(trie, column):
            fork = trie.forks[position]
            spelled += [*fork.feed[bool(spelled) :], fork.tokens[branch]]
            assert len(fork.tokens) > 1 and list(fork.tokens) == sorted(set(fork.tokens))
        # After the last fork, nothing is left to decide.
        assert tuple(spelled) == answer[: len(spelled)]
        assert all(trie.beneath[position, column] for position, _ in forked_path(trie, column))


@given(ANSWERS, st.integers(1, 6), st.integers(0, 2**31), st.booleans())
def test_search_is_exact_and_asks_for_no_more_than_it_needs(
    answers: list[tuple[int, ...]], k: int, seed: int, masked: bool
) -> None:
    trie, n_instances, random = LabelTrie(answers), 4, np.random.default_rng(seed)
    tables = [random.normal(scale=3, size=(n_instances, len(fork.tokens))) for fork in trie.forks]
    tables = [table - np.log(np.exp(table).sum(axis=1, keepdims=True)) for table in tables]
    expected = np.array(
        [
            [sum(tables[f][row, b] for f, b in forked_path(trie, column)) for column in range(len(answers))]
            for row in range(n_instances)
        ]
    )
    allowed = random.random((n_instances, len(answers))) < 0.5 if masked else None

    def run(search: TrieSearch) -> int:
        asked = 0
        while requests := list(search.requests()):
            for fork, members in requests:
                asked += len(members)
                search.resolve(fork, members, tables[fork][members])
        return asked

    everything = TrieSearch(trie, n_instances)
    asked_all = run(everything)
    np.testing.assert_allclose(everything.labels, expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(everything.labels).sum(axis=1), 1.0)

    best = TrieSearch(trie, n_instances, k, allowed)
    assert run(best) <= asked_all
    _, log_probs = best.top(k)
    wanted = expected if allowed is None else np.where(allowed, expected, -np.inf)
    np.testing.assert_allclose(log_probs, -np.sort(-wanted, axis=1)[:, :k], atol=1e-12)


def test_single_label_is_certain_and_asks_nothing() -> None:
    search = TrieSearch(LabelTrie([(1, 2, END)]), 2, 1)
    assert list(search.requests()) == []
    assert search.top(1)[1].tolist() == [[0.0], [0.0]]


def test_label_that_begins_another() -> None:
    trie = LabelTrie([(1, END), (1, 2, END), (3, END)])
    assert trie.forks[0].tokens == (1, 3)
    assert trie.forks[1].tokens == (END, 2) and trie.forks[1].feed == (1,)


@pytest.mark.parametrize("answers", [[(1, END), (1, END)], [(1,), (1, 2)]])
def test_labels_that_cannot_be_told_apart_are_refused(answers: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="label 0 is the same as that for label 1"):
        LabelTrie(answers)
