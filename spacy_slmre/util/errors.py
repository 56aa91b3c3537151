"""Errors that several packages raise. Their messages are written for users."""

from __future__ import annotations


class OutputError(ValueError):
    """An output cannot be written, replaced or resumed."""


class ServiceError(ValueError):
    """A remote service is unusable: every further request would fail as well."""
