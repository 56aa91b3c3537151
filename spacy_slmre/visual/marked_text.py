"""Splitting a text at the bounds of head and tail, which may overlap or contain each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise


def split_at_spans(
    start: int, end: int, spans: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield start and end of the parts of a text, with the names of the spans that contain each part.

    Args:
        start: Offset of the first character.
        end: Offset after the last character.
        spans: Start and end of each span by name; what is outside of the text is ignored.
    """
    edges = {min(max(edge, start), end) for span in spans.values() for edge in span}
    for first, last in pairwise(sorted({start, end, *edges})):
        yield first, last, tuple(name for name, span in spans.items() if span[0] <= first and last <= span[1])
