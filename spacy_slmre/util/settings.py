"""Declare settings once, as the fields of a dataclass, and use them in functions of spaCy's registry."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

SETTINGS = "settings"


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


def check_choice(settings: Any, where: str, error: type[ValueError] = ValueError, **choices: tuple[Any, ...]) -> None:
    """Raise an error if a setting is not one of its allowed values; see `check_minimum` for the arguments."""
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            shown = ", ".join("null" if choice is None else f'"{choice}"' for choice in allowed)
            raise error(f'{where}.{name} = "{value}", but it must be one of {shown}.')
