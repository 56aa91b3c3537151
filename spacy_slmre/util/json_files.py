"""Read JSON files whose content may be damaged or have an unexpected form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")


def is_int(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer; in Python, true and false are, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_json(text: str) -> Any:
    """Parse JSON, but reject duplicate keys, of which Python's parser silently keeps the last.

    Raises:
        ValueError: It is not JSON, or an object has a duplicate key.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_object(path: Path, error: type[ValueError] = ValueError) -> dict[str, Any]:
    """Read a file with a JSON object. Raises `error` with the path and the cause if that fails."""
    return read_record(path, dict, error)


def read_record(path: Path, parse: Callable[[dict[str, Any]], T], error: type[ValueError] = ValueError) -> T:
    """Read a file with a JSON object and convert it.

    Args:
        path: The file.
        parse: Converts the object; any error that it raises means that the object has the wrong form.
        error: Raised with the path and the cause if the file is missing, damaged or of the wrong form.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise TypeError(f"expected an object, found a {type(data).__name__}")
        return parse(data)
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}.") from cause
    except json.JSONDecodeError as cause:
        raise error(f"{path}:{cause.lineno}: the file is damaged: it is not JSON ({cause.msg}).") from cause
    except KeyError as cause:
        raise error(f"{path}: the file is damaged: the key {cause} is missing.") from cause
    except (ValueError, TypeError, AttributeError, IndexError) as cause:
        raise error(f"{path}: the file is damaged: {str(cause).rstrip('.')}.") from cause


def check_fields(data: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    """Raise TypeError unless each of these keys has a value of its kind; a missing one raises KeyError."""
    for name, kind in kinds.items():
        value = data[name]
        # A boolean is an int in Python, but never meant as a number.
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in _kinds(kind)):
            expected = " or ".join("null" if one is type(None) else one.__name__ for one in _kinds(kind))
            raise TypeError(f'"{name}" must be of the type {expected}, not {value!r:.80}')


def _kinds(kind: type | tuple[type, ...]) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the key {', '.join(map(repr, twice))} occurs more than once in an object")
    return data
