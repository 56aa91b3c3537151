"""How commands speak: notes and progress on standard error, errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A note to the person at the terminal."""
    console.print(message, markup=False, soft_wrap=True)


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Errors that say what to do end the command with their message and exit code 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        console.print("[bold red]✘[/bold red]", end=" ")
        say(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        say("Interrupted.")
        raise typer.Exit(130) from None


@contextmanager
def counting_documents() -> Iterator[Callable[[int], None]]:
    """Shows, on a terminal, the number of documents that it is told, until it is left."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} documents"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done: progress.update(task, completed=done)


def document_progress(total: int | None, *, relations: bool = True) -> tuple[Any, Any]:
    """A progress bar of documents, and its task, whose field `relations` counts relations if it is shown."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    progress = Progress(
        SpinnerColumn(),
        TextColumn("Documents"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn("{task.fields[relations]} relations")] if relations else []),
        TimeElapsedColumn(),
        console=console,
    )
    return progress, progress.add_task("", total=total, relations=0)
