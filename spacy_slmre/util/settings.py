"""Declare settings once, as the fields of a dataclass, and use them in functions of spaCy's registries."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from spacy.util import get_lang_class

SETTINGS = "settings"

T = TypeVar("T")


def takes_settings(settings_class: type) -> Callable[[Callable], Callable]:
    """Let a registered function take each field of a settings dataclass as a keyword argument.

    spaCy fills in and validates configs by the signature of the registered function. The decorated function
    declares one argument `settings`; in its signature this is replaced by the fields with their types and
    defaults, and a call passes an instance made of them:

        @takes_settings(EncoderSettings)
        def make_encoder(settings): ...

        make_encoder(base="roberta-base")   # settings = EncoderSettings(base="roberta-base")
    """

    def decorate(function: Callable) -> Callable:
        hints = {**get_type_hints(function), **get_type_hints(settings_class)}
        own = [par for name, par in inspect.signature(function).parameters.items() if name != SETTINGS]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in defaults_of(settings_class).items()
        ]
        names = {par.name for par in added}

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in names & kwargs.keys()}
            return function(*args, **{SETTINGS: settings_class(**given)}, **kwargs)

        wrapper.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {par.name: hints.get(par.name, Any) for par in (*own, *added)}
        return wrapper

    return decorate


def defaults_of(settings_class: type) -> dict[str, Any]:
    """Return the default of each field of a settings dataclass."""
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(settings_class)
    }


def check_language(lang: str, where: str, error: type[ValueError] = ValueError) -> None:
    """Raise an error if spaCy does not know a language; `where` is the name of the setting."""
    try:
        get_lang_class(lang)
    except ImportError as cause:
        raise error(f'{where} = "{lang}" is not a language of spaCy: use a code such as "en", or "xx".') from cause


def check_types(
    settings: Any, where: str, error: type[ValueError] = ValueError, *, may_be_empty: Collection[str] = ()
) -> None:
    """Raise an error if a setting does not have the type of its field, is infinite, or is an empty string.

    Configs are not checked as strictly by spaCy, which also accepts "0.5" for a number.

    Args:
        settings: A settings dataclass.
        where: Config section for the message: "model" for `model.max_batch_tokens`.
        error: Error class.
        may_be_empty: Settings that may be an empty string.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not _has_type(value, hints[field.name]):
            raise error(f"{where}.{field.name} = {value!r:.80}, but it must be {_describe(hints[field.name])}.")
        if isinstance(value, str) and not value.strip() and field.name not in may_be_empty:
            raise error(f"{where}.{field.name} is empty: set it to a text, or remove it for its default.")


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
    names |= dict.fromkeys((list, Collection), "a list of texts")
    names |= dict.fromkeys((dict, Mapping), "a section with one value for each name")
    return names.get(get_origin(hint) or hint, str(hint))


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value has a type that is built in, optional, a literal, or a list or dict of these."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_has_type(value, one) for one in args)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args)
    if origin in (list, Collection):
        is_list = isinstance(value, list | tuple if origin is list else Collection) and not isinstance(value, str)
        return is_list and all(_has_type(one, args[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, origin) and all(
            _has_type(key, args[0]) and _has_type(one, args[1]) for key, one in value.items()
        )
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, NoneType) else True


def check_minimum(settings: Any, where: str, error: type[ValueError] = ValueError, **minimum: float) -> None:
    """Raise an error if a setting is below its minimum; None is always allowed.

    Args:
        settings: A settings dataclass.
        where: Config section for the message: "model" for `model.max_batch_tokens`.
        error: Error class.
        minimum: The smallest allowed value by setting.
    """
    for name, smallest in minimum.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:  # also NaN
            raise error(f"{where}.{name} = {value}, but it must be at least {smallest}.")


def check_maximum(settings: Any, where: str, error: type[ValueError] = ValueError, **maximum: float) -> None:
    """Raise an error if a setting is above its maximum; see `check_minimum` for the arguments."""
    for name, largest in maximum.items():
        if not getattr(settings, name) <= largest:
            raise error(f"{where}.{name} = {getattr(settings, name)}, but it must be at most {largest}.")


def check_positive(settings: Any, where: str, error: type[ValueError] = ValueError, *, names: Collection[str]) -> None:
    """Raise an error if one of these settings is not above 0; None is always allowed. See also `check_minimum`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise error(f"{where}.{name} = {value}, but it must be above 0.")


def check_probability(
    settings: Any, where: str, error: type[ValueError] = ValueError, *, names: Collection[str], below_1: bool = False
) -> None:
    """Raise an error if one of these settings is not between 0 and 1; None is always allowed. See also `check_minimum`.

    With `below_1`, it must also be less than 1, as a dropout rate.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (0 <= value < 1 if below_1 else 0 <= value <= 1):
            allowed = "at least 0 and below 1" if below_1 else "between 0 and 1"
            raise error(f"{where}.{name} = {value}, but it must be {allowed}.")


def check_choice(settings: Any, where: str, error: type[ValueError] = ValueError, **choices: tuple[Any, ...]) -> None:
    """Raise an error if a setting is not one of its allowed values; see `check_minimum` for the arguments."""
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            shown = ", ".join("null" if choice is None else f'"{choice}"' for choice in allowed)
            raise error(f'{where}.{name} = "{value}", but it must be one of {shown}.')


def validate_section(
    kind: type[T], config: Mapping[str, Any], section: str, name: str, error: type[ValueError] = ValueError
) -> T:
    """Return a section of a config as an instance of a settings class.

    Args:
        kind: The settings class, a dataclass.
        config: The resolved config.
        section: Name of the section.
        name: Name of the config for error messages.
        error: Error class.
    """
    if section not in config:
        raise error(f"{name} has no section [{section}].")
    known = [setting.name for setting in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(config[section]) - set(known)):
        names = ", ".join(f"{section}.{setting}" for setting in unknown)
        raise error(f"{name}: unknown settings: {names}. Settings of [{section}]: {', '.join(known)}.")
    try:
        return TypeAdapter(kind).validate_python(dict(config[section]))
    except ValidationError as cause:
        problems = []
        for problem in cause.errors():
            setting = ".".join([section, *map(str, problem["loc"])])
            message = problem["msg"].removeprefix("Value error, ").rstrip(".")
            # Checks across settings have no location; their messages name the settings.
            problems.append(f"{setting} = {problem['input']!r}: {message}." if problem["loc"] else f"{message}.")
        raise error(f"{name}: {' '.join(problems)}") from cause
