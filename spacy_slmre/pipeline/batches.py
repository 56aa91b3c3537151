"""Annotating several documents at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from spacy.tokens import Doc

T = TypeVar("T")


def annotate_batch(
    batch: Sequence[T], annotate: Callable[[Sequence[T]], Iterable[Doc]], fail: Callable[[T, Exception], None]
) -> Iterator[Doc]:
    """Annotate documents together or, if that fails, one by one: as in spaCy, only those that fail are left out.

    Args:
        batch: The documents, in any form.
        annotate: Annotates and returns documents.
        fail: Called with a document that fails, and its error.
    """
    try:
        docs = annotate(batch)
    except Exception as error:
        if len(batch) == 1:
            fail(batch[0], error)
            return
        for one in batch:
            yield from annotate_batch([one], annotate, fail)
        return
    yield from docs
