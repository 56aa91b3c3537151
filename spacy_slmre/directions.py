"""Both directions of a relation: symmetric labels, and labels with an inverse, count once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

EndT = TypeVar("EndT", str, tuple[int, int], tuple[int, int, str])


def turn_relation(head: EndT, label: str, tail: EndT, inverse_of: Mapping[str, str]) -> tuple[EndT, str, EndT]:
    """Return a relation as it is counted: the same for both directions of a symmetric label, and for inverse labels.

    With `{"spouse": "spouse", "child": "parent"}`, (Bo, spouse, Ann) becomes (Ann, spouse, Bo), and (Ann, child, Bo)
    becomes (Bo, parent, Ann).

    Args:
        head: A key of the head that can be compared with that of the tail.
        label: The label.
        tail: A key of the tail.
        inverse_of: See `LabelSchema.inverse_of`.
    """
    turned = inverse_of.get(label)
    if turned is None or (turned == label and not tail < head):
        return head, label, tail
    return tail, turned, head


def inverse_label(label: str, inverse_of: Mapping[str, str]) -> str:
    """Return the label that holds from tail to head for a label returned by `turn_relation`; "" if there is none."""
    return next((other for other, turned in inverse_of.items() if turned == label), "")
