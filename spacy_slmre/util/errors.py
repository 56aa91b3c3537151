"""Base classes of the errors that tell users what to do. All of them are `ValueError`s."""

from __future__ import annotations


class OutputError(ValueError):
    """An output cannot be written, replaced or resumed."""


class ServiceError(ValueError):
    """A remote service cannot be used at all, so every further request would fail too."""
