"""`python -m spacy slmre extract`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import console, document_progress, failing_clearly, say
from spacy_slmre.cli.pipelines import model_name, ready_pipeline

if TYPE_CHECKING:
    from spacy_slmre.extraction.running import Result


@slmre_cli.command("extract")
def extract_command(
    texts: Annotated[
        list[str],
        typer.Argument(help="Files or folders (.txt, .jsonl, .spacy), or - for standard input."),
    ],
    pipeline: Annotated[
        str,
        typer.Option(
            "--pipeline",
            "-p",
            help="Pipeline package or folder. One without a relation component gets slm_relations.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to write: a .jsonl file, or a .spacy folder of shards."),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Of the input: txt (a file is a document), lines (a line is one), jsonl, spacy."
        ),
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field of the text in JSONL.")] = "text",
    id_field: Annotated[str, typer.Option(help="Field of the id in JSONL, where there is one.")] = "id",
    batch_size: Annotated[int, typer.Option(min=1, help="Documents held at a time.")] = 64,
    n_process: Annotated[int, typer.Option(min=1, help="Worker processes; each loads the model.")] = 1,
    table: Annotated[bool, typer.Option("--table", help="Print the relations of each document.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run has left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
) -> None:
    """Write the relations in texts to a file.

    Documents stream, so that memory does not grow with the corpus. An interrupted run goes on where it
    stopped when the same command is given again. A document that fails is written with its error, in its
    place, and the command then ends with exit code 1.
    """
    with failing_clearly():
        from spacy_slmre.exports.documents import name_source
        from spacy_slmre.extraction.running import extract, skip_done
        from spacy_slmre.extraction.sources import find_inputs, read_sources
        from spacy_slmre.extraction.writers import close_output, open_output

        inputs = find_inputs(texts, format, output)
        nlp, component = ready_pipeline(pipeline)
        run = {
            "pipeline": [pipeline, nlp.meta["version"], nlp.config["components"]],
            "inputs": [[path, form, *_state(path)] for path, form in inputs],
            "fields": [text_field, id_field],
        }
        writer = open_output(output, run, attr=component.attr, restart=restart, overwrite=overwrite)
        sources = read_sources(inputs, nlp, sys.stdin.buffer, text_field, id_field)
        single = all(form == "txt" for _, form in inputs)
        progress, task = document_progress(len(inputs) if single else None)
        relations = 0
        try:
            with progress:
                remaining = skip_done(sources, writer.done())
                if writer.part.exists():
                    say("Going on where an interrupted run stopped.")
                for result in extract(nlp, remaining, batch_size=batch_size, n_process=n_process):
                    if result.doc is not None:
                        name_source(result.doc, result.id, model_name(nlp, component))
                    writer.write(result)
                    found = getattr(result.doc._, component.attr) if result.doc is not None else ()
                    relations += len(found)
                    if table:
                        _print_table(result, found)
                    progress.update(task, completed=writer.written, relations=relations)
        except KeyboardInterrupt:
            say(f"Interrupted after {writer.written} documents: the same command goes on from there.")
            raise typer.Exit(130) from None
        finally:
            writer.close()
        close_output(writer)
        say(f"{writer.written} documents, {relations} relations found in this run → {output}")
        if writer.failed:
            say(f"{writer.failed} documents failed: each says why in the output.")
            raise typer.Exit(1)


def _state(path: str) -> tuple[int, float]:
    """Size and time of a file: whether it is still the same."""
    if path == "-":
        return 0, 0.0
    status = Path(path).stat()
    return status.st_size, status.st_mtime


def _print_table(result: Result, relations: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    if result.doc is None:
        console.print(
            f"[bold]{escape(result.id)}[/bold]: [red]{escape(result.error or '')}[/red]", soft_wrap=True
        )
        return
    if not relations:
        console.print(f"[bold]{escape(result.id)}[/bold]: no relations found", soft_wrap=True)
        return
    console.print(f"[bold]{escape(result.id)}[/bold]", soft_wrap=True)
    table = Table()
    for column in ("head", "relation", "tail"):
        table.add_column(column)
    table.add_column("confidence", justify="right")
    for relation in relations:
        row = (relation.head.text, relation.label, relation.tail.text)
        table.add_row(*map(escape, row), f"{relation.score:.2f}")
    console.print(table)
