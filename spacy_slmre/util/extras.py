"""Packages that are only installed with an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class MissingExtraError(ModuleNotFoundError, ValueError):
    """A package of an extra is not installed; a ValueError, which the commands show as a message."""


@contextmanager
def require_extra(extra: str, user: str) -> Iterator[None]:
    """Name the extra to install if an import in this context fails.

    Args:
        extra: Name of the extra.
        user: What needs the package, as the subject of the message.

    Raises:
        MissingExtraError: A package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{user} needs the package {error.name}. Install it with: pip install 'spacy-slmre[{extra}]'",
            name=error.name,
        ) from error


def check_extra(extra: str, package: str, user: str) -> None:
    """Raise the same error as `require_extra` if a package is missing, without importing it."""
    with require_extra(extra, user):
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
