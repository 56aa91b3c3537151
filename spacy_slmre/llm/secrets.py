"""Keys and passwords, which must not occur in messages, pictures of objects, or files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

# Shorter values are not hidden, because they may occur in messages by chance.
_MIN_LENGTH = 6
_SECRET_NAME = re.compile(r"key|token|secret|password|auth|credential", re.IGNORECASE)
HIDDEN = "***"


def show_url(url: str) -> str:
    """Return a URL without user, password and query, which may contain keys."""
    address = urlsplit(url)
    host = address.netloc.rpartition("@")[2]
    hidden = f"{HIDDEN}@" if "@" in address.netloc else ""
    return urlunsplit((address.scheme, hidden + host, address.path, HIDDEN if address.query else "", ""))


def secrets_in_url(url: str) -> list[str]:
    """Return the user, the password, and the values of the query of a URL, and the query as a whole."""
    address = urlsplit(url)
    user_info = address.netloc.rpartition("@")[0]
    return [user_info, *user_info.split(":"), address.query, *(value for _, value in parse_qsl(address.query))]


def secrets_in_headers(headers: Mapping[str, str] | None) -> list[str]:
    """Return the values of headers, and their last words: "Bearer KEY" may be quoted without the first."""
    return [secret for value in (headers or {}).values() for secret in (value, value.rpartition(" ")[2])]


def secrets_in_fields(fields: Any, name: str = "") -> list[str]:
    """Return the texts in a request whose names say that they are secret, at any depth."""
    if isinstance(fields, Mapping):
        return [secret for key, value in fields.items() for secret in secrets_in_fields(value, str(key))]
    if isinstance(fields, list | tuple):
        return [secret for value in fields for secret in secrets_in_fields(value, name)]
    return [fields] if isinstance(fields, str) and _SECRET_NAME.search(name) else []


def redact(message: str, secrets: Iterable[str]) -> str:
    """Hide secrets in a message, as they are and as they are written in URLs."""
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote(secret), unquote(secret))}
    # Longer ones first, because one may contain another.
    for secret in sorted(forms, key=len, reverse=True):
        if len(secret) >= _MIN_LENGTH:
            message = message.replace(secret, HIDDEN)
    return message
