"""Batches by number of pairs: what a step of training costs are pairs, not documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from spacy.training import Example

from spacy_slmre.relations import CANDIDATES


def batch_by_pairs(size: int) -> Callable[[Iterable[Example]], Iterator[list[Example]]]:
    """Registered as `@batchers = "spacy-slmre.BatchByPairs.v1"`: documents with about `size` annotated pairs.

    A document counts for one at least, and is never split: the last of a batch may go beyond.

    Args:
        size: Pairs of a batch.

    Raises:
        ValueError: The size is below 1.
    """
    if size < 1:
        raise ValueError(f"batcher.size = {size}, but it must be at least 1.")

    def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
        batch: list[Example] = []
        pairs = 0
        for example in examples:
            batch.append(example)
            pairs += max(1, len(getattr(example.predicted._, CANDIDATES)))
            if pairs >= size:
                yield batch
                batch, pairs = [], 0
        if batch:
            yield batch

    return batches
