"""Terminal output of the commands: messages and progress on standard error, errors without a traceback.

Everything that is printed goes through this module, because texts may contain characters that control a terminal.
"""

from __future__ import annotations

import io
import json
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import click
import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from spacy_slmre.util.errors import describe

# Control characters, which terminals interpret, and surrogates, which cannot be encoded.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Terminal(Console):
    """A console that prints texts and tables as they are: without markup, emoji codes and control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """Replace characters that would control the terminal before the width of a text is measured."""
        return super().render_str(printable(text), *args, **kwargs)

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """Replace characters that would control the terminal in what is rendered, but keep rich's own."""
        for segment in super().render(*args, **kwargs):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


console = Terminal(stderr=True)


def log(message: str) -> None:
    """Print a message for the user."""
    console.print(printable(message), soft_wrap=True)


def printable(text: str) -> str:
    """Replace characters that would control the terminal or cannot be printed."""
    return _UNPRINTABLE.sub("\ufffd", text)


def print_line(text: str) -> None:
    """Print a line on standard output."""
    print(printable(text))


def print_json(data: Any) -> None:
    """Print data as JSON on standard output, with escaped control characters."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    print(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def standard_input(inputs: Collection[str]) -> BinaryIO:
    """Return standard input if "-" is one of the inputs, and otherwise an empty stream.

    Raises:
        ValueError: It is an input, but closed.
    """
    if "-" not in inputs:
        return io.BytesIO()
    if sys.stdin is None:
        raise ValueError(
            'The input "-" is standard input, which is closed. Use a file, or pipe a text into the command.'
        )
    return sys.stdin.buffer


@contextmanager
def show_errors() -> Iterator[None]:
    """Exit with code 1 and the message of a `ValueError` or `OSError` instead of a traceback; also a decorator."""
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: printable(format_warning(*args, **kwargs))
    try:
        yield
    except (ValueError, OSError) as error:
        console.print("✘", style="bold red", end=" ")
        log(describe(error))
        raise typer.Exit(1) from error
    except click.ClickException as error:  # of spaCy, for overrides; typer only shows exceptions of its own click
        console.print("✘", style="bold red", end=" ")
        log(error.format_message())
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        log("Interrupted.")
        raise typer.Exit(130) from None
    finally:
        warnings.formatwarning = format_warning


@contextmanager
def document_progress(total: int | None = None, *, relations: bool = False) -> Iterator[Callable[..., None]]:
    """Show a progress bar of `total` documents and yield a function that updates it.

    The function takes the number of finished documents, or `advance`, and optionally `total` and the number of
    `relations` found, which is shown if this argument is true.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("Documents"), BarColumn()]
    columns += [MofNCompleteColumn(), TimeElapsedColumn()]
    if relations:
        columns.insert(-1, TextColumn("{task.fields[relations]} relations"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, relations=0)

        def update(documents: int | None = None, **values: int | None) -> None:
            known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
            progress.update(task, completed=documents, **known)

        yield update
