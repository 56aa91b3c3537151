"""Rendering templates that others may have written: without access to Python, and with limits.

Templates come with models, adapters and pipelines, so a template must neither run code nor forever.
"""

from __future__ import annotations

import functools
import json
import math
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import local
from time import perf_counter
from typing import Any, ClassVar

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_TEMPLATE = 20_000
"""Maximum number of characters of a prompt template."""
MAX_CHAT_TEMPLATE = 200_000
"""Maximum number of characters of a model's chat template."""
MAX_STEPS = 100_000
"""Maximum number of loop items, calls and filters when a template is rendered."""
MAX_SECONDS = 10.0
"""Maximum time for which a template is rendered; usually a few milliseconds are needed."""
MAX_TEXT = 10_000_000
"""Maximum number of characters of a rendered text; documents are rendered before they are truncated."""
MAX_NUMBER = 10**12
MAX_WIDTH = 1000
"""Maximum number of characters to which a text is filled up or indented."""
_COUNT, _TEXT, _JOIN = "slmre_count", "slmre_text", "slmre_join"
_FILLING = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"))
# Filters that turn any value into a text.
_TO_TEXT = frozenset(
    ("capitalize", "e", "escape", "forceescape", "indent", "lower", "pprint", "replace", "safe", "string", "striptags")
) | {"title", "tojson", "trim", "truncate", "upper", "urlencode", "urlize", "wordcount", "xmlattr"}
# A long number, or a width that is given by an argument.
_WIDE_FORMAT = re.compile(r"\d{4}|:[^}]*{")


class SafeTemplate:
    """A template that is rendered in a sandbox.

    Args:
        source: The template.
        name: Its name in error messages, after "The".
        is_chat: It is a chat template of a model: it may be longer, unknown variables are empty, and it has the
            functions and statements that transformers provides.

    Raises:
        ValueError: It is too long or has a syntax error.
    """

    def __init__(self, source: str, name: str, *, is_chat: bool = False) -> None:
        self.name = name
        limit = MAX_CHAT_TEMPLATE if is_chat else MAX_TEMPLATE
        if len(source) > limit:
            raise ValueError(f"The {name} has {len(source)} characters; at most {limit} are read.")
        self._environment = _ChatEnvironment() if is_chat else _Environment()
        try:
            self._template = self._environment.from_string(source)
            self.variables = meta.find_undeclared_variables(self._environment.parse(source))
            """The variables that it uses."""
        except TemplateSyntaxError as error:
            raise ValueError(f"The {name} has an error in line {error.lineno}: {error.message}") from error
        except Exception as error:  # constants are computed by the compiler
            raise ValueError(f"The {name} has an error: {_describe(error)}") from error

    def render(self, **variables: Any) -> str:
        """Return the text. Raises ValueError with the line if this fails or takes too long."""
        self._environment.start()
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
            raise ValueError(f"The {self.name} has an error{where}: {_describe(error)}") from error
        return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that limits time, loop items, calls and characters. An unknown variable is an error."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    unknown: ClassVar[type[Undefined]] = StrictUndefined

    def __init__(self, **options: Any) -> None:
        self.used = local()
        super().__init__(autoescape=False, undefined=self.unknown, finalize=self._count_text, **options)
        for name in ("center", "format", "wordwrap", "batch", "slice", "sum"):  # they fill up, or add lists
            del self.filters[name]
        self.filters = {name: self._limit_filter(name, function) for name, function in self.filters.items()}
        self.filters |= {_COUNT: self._count_items, _TEXT: _keep_text, _JOIN: self._join}
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace

    def start(self) -> None:
        """Reset what is counted."""
        self.used.steps = self.used.characters = 0
        self.used.deadline = perf_counter() + MAX_SECONDS

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)

        def call(function: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
            return nodes.Filter(value, function, list(args), [], None, None, lineno=value.lineno, environment=self)

        for loop in tree.find_all(nodes.For):
            loop.iter = call(_COUNT, loop.iter)
        for output in list(tree.find_all(nodes.Output)):  # also in blocks that only set a variable
            output.nodes = [
                call(_TEXT, nodes.Const(part.data, lineno=part.lineno))
                if isinstance(part, nodes.TemplateData)
                else part
                for part in output.nodes
            ]
        return _Concatenations(call).visit(tree)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self._count_step()
        method = getattr(obj, "__wrapped__", obj)  # jinja2 wraps `str.format`
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            name = method.__name__
            if name in _FILLING:
                self._check_widths(args, kwargs)
                if name.startswith("format"):
                    if _WIDE_FORMAT.search(text):
                        raise SecurityError(f"{name} is only available for widths of at most {MAX_WIDTH}")
                    self._check_size(len(text) + text.count("{") * self._size([args, kwargs]))
            elif name == "translate":
                raise SecurityError(f"{name} is not available")
            elif name == "replace":
                self._check_replacement(text, *args)
            elif name == "join":
                args = (self._check_parts(args[0], text), *args[1:])
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                self._check_size(len(left) + len(right))
            return super().call_binop(context, operator, left, right)
        # Texts would be repeated or filled up to any length.
        if not all(isinstance(value, int | float) and abs(value) <= MAX_NUMBER for value in (left, right)):
            raise SecurityError(f'the operator "{operator}" is only available for numbers of at most {MAX_NUMBER}')
        if operator == "**" and abs(right) > 3:
            raise SecurityError("exponents above 3 are not available")
        return super().call_binop(context, operator, left, right)

    def _limit_filter(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            self._count_step()
            if name in _TO_TEXT:
                self._check_size(self._size(args))
            if name in ("indent", "tojson"):
                self._check_widths(args[1:], kwargs)
            if name == "indent":  # the width may also be a text
                texts = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, str)]
                self._check_widths(map(len, texts), {})
            elif name == "replace":
                self._check_replacement(*map(str, args[1:4]))  # the first argument is the eval context
            elif name == "join":
                mark = str(args[2] if len(args) > 2 else kwargs.get("d", ""))
                args = (args[0], self._check_parts(args[1], mark), *args[2:])
            return function(*args, **kwargs)

        return limited

    def _join(self, *parts: Any) -> str:
        return "".join(map(str, self._check_parts(parts)))

    def _check_parts(self, parts: Iterable[Any], mark: str = "") -> list[Any]:
        found = list(parts)
        self._check_size(self._size(found) + len(found) * len(mark))
        return found

    def _size(self, value: Any) -> int:
        """Return about the number of characters of a value as text; each item of a collection is a step."""
        if isinstance(value, str):
            return len(value)
        if isinstance(value, Mapping):
            value = [*value.keys(), *value.values()]
        if not isinstance(value, list | tuple | set | frozenset):
            return 1
        size = len(value)
        for item in value:  # a list may contain itself several times, so its text may be much longer than its source
            self._count_step()
            size += self._size(item)
        return size

    def _check_replacement(self, text: str, old: str, new: str, *count: Any) -> None:
        self._check_size(len(text) + text.count(old) * len(new))

    def _check_widths(self, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        if any(isinstance(value, int) and value > MAX_WIDTH for value in (*args, *kwargs.values())):
            raise SecurityError(f"texts are only filled up to {MAX_WIDTH} characters")

    def _check_size(self, size: int) -> None:
        if size > MAX_TEXT:
            raise SecurityError(f"it makes a text of more than {MAX_TEXT} characters")

    def _count_items(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._count_step()
            yield item

    def _count_step(self) -> None:
        self.used.steps = getattr(self.used, "steps", 0) + 1
        if self.used.steps > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")
        if perf_counter() > getattr(self.used, "deadline", math.inf):
            raise SecurityError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def _count_text(self, value: Any) -> Any:
        self.used.characters = getattr(self.used, "characters", 0) + self._size(value)
        self._check_size(self.used.characters)
        return value


class _ChatEnvironment(_Environment):
    """What chat templates of models may use; they are written for the environment of transformers."""

    unknown = Undefined

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlocks])
        self.filters["tojson"] = self._limit_filter("tojson", _to_json)
        # Some templates insert the current date, which would change results from day to day.
        self.globals["strftime_now"] = lambda format: "01 January 2025"
        self.globals["raise_exception"] = _raise_exception


class _Concatenations(NodeTransformer):
    """Lets the operator "~" check the length of its result."""

    def __init__(self, call: Callable[..., nodes.Filter]) -> None:
        self.call = call

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        first, *others = node.nodes
        return self.call(_JOIN, first, *others)


class _GenerationBlocks(Extension):
    """The statement that marks what a model generates, which only matters for training."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """A namespace without private attributes, which give access to Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"the attribute {name!r} of a namespace begins with an underscore")


@pass_context  # so that it is not called before the template is rendered
def _keep_text(context: Context, text: str) -> str:
    return text


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SecurityError) else f"{type(error).__name__}: {error}"
