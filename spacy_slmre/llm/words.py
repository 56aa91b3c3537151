"""Lengths of contexts without a tokenizer."""

from __future__ import annotations

import re

from spacy_slmre.instances import Context

# Scripts without spaces, and endless strings, count by pieces.
_WORD = re.compile(r"\w{1,12}|[^\w\s]")


def word_offsets(context: Context) -> list[tuple[int, int]]:
    """Character offsets (start, end) of the words (at most 12 characters each) and marks of a context."""
    return [match.span() for match in _WORD.finditer(context.text)]
