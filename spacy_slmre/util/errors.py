"""Errors that several packages raise. Their messages are written for users."""

from __future__ import annotations


class OutputError(ValueError):
    """An output cannot be written, replaced or resumed."""


class ServiceError(ValueError):
    """A remote service is unusable: every further request would fail as well."""


def describe(error: BaseException) -> str:
    """Return the message of an error, which is never empty; for an OSError, with the file but without the number."""
    if isinstance(error, OSError) and error.strerror:
        files = [repr(str(name)) for name in (error.filename, error.filename2) if name is not None]
        return f"{' and '.join(files)}: {error.strerror}" if files else error.strerror
    return str(error) or type(error).__name__
