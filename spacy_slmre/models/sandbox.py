"""Rendering templates that others may have written: without access to Python, and with limits.

Templates come with adapters and pipelines, so a template must neither run code nor forever.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from threading import local
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

MAX_TEMPLATE = 20_000
"""Maximum number of characters of a template."""
MAX_STEPS = 100_000
"""Maximum number of loop items and calls when a template is rendered."""
MAX_TEXT = 10_000_000
"""Maximum number of characters of a rendered text; documents are rendered before they are truncated."""
MAX_NUMBER = 10**12
_COUNT = "slmre_count"


class SafeTemplate:
    """A template that is rendered in a sandbox.

    Args:
        source: The template.
        name: Its name in error messages.

    Raises:
        ValueError: It is too long or has a syntax error.
    """

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        if len(source) > MAX_TEMPLATE:
            raise ValueError(
                f"The prompt template {name} has {len(source)} characters; at most {MAX_TEMPLATE} are read."
            )
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(source)
            self.variables = meta.find_undeclared_variables(self._environment.parse(source))
            """The variables that it uses."""
        except TemplateSyntaxError as error:
            raise ValueError(
                f"The prompt template {name} has an error in line {error.lineno}: {error.message}"
            ) from error
        except Exception as error:  # constants are computed by the compiler
            raise ValueError(f"The prompt template {name} has an error: {_describe(error)}") from error

    def render(self, **variables: Any) -> str:
        """Return the text. Raises ValueError with the line if this fails or takes too long."""
        self._environment.used.steps = self._environment.used.characters = 0
        pieces, size = [], 0
        try:
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > MAX_TEXT:
                    raise SecurityError(f"it makes a text of more than {MAX_TEXT} characters")
                pieces.append(piece)
        except Exception as error:  # whatever an expression raises
            lines = [
                frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"
            ]
            where = f" in line {lines[-1]}" if lines else ""
            raise ValueError(f"The prompt template {self.name} has an error{where}: {_describe(error)}") from error
        return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that counts loop items, calls and characters. An unknown variable is an error."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self) -> None:
        self.used = local()
        super().__init__(autoescape=False, undefined=StrictUndefined, finalize=self._count_text)
        self.filters[_COUNT] = self._count_items
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNT, [], [], None, None, lineno=loop.lineno, environment=self)
        return tree

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self._count_step()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        # Texts would be repeated or filled up to any length.
        if not all(isinstance(value, int | float) and abs(value) <= MAX_NUMBER for value in (left, right)):
            raise SecurityError(f'the operator "{operator}" is only available for numbers of at most {MAX_NUMBER}')
        if operator == "**" and abs(right) > 3:
            raise SecurityError("exponents above 3 are not available")
        return super().call_binop(context, operator, left, right)

    def _count_items(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._count_step()
            yield item

    def _count_step(self) -> None:
        self.used.steps = getattr(self.used, "steps", 0) + 1
        if self.used.steps > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")

    def _count_text(self, value: Any) -> Any:
        if isinstance(value, str):
            self.used.characters = getattr(self.used, "characters", 0) + len(value)
            if self.used.characters > MAX_TEXT:
                raise SecurityError(f"it makes a text of more than {MAX_TEXT} characters")
        return value


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SecurityError) else f"{type(error).__name__}: {error}"
