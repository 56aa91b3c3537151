"""`python -m spacy slmre view`."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import log, show_errors

if TYPE_CHECKING:
    from spacy_slmre.visual.options import ViewOptions

EXAMPLE = "Marie Curie was born in Warsaw. In Paris she married Pierre Curie, who taught at the Sorbonne."


@slmre_cli.command("view")
def view_command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IN]",
            help="JSONL of slmre extract, .spacy files, folders of these, or - for standard input.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file to write.")] = None,
    style: Annotated[str, typer.Option(help="arcs over the text, or a graph of all documents.")] = "arcs",
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="PIPELINE",
            help="Instead: a local page to try a pipeline (package or folder) on texts.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0 takes a free one.")] = 5055,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    min_score: Annotated[float, typer.Option(help="Show no relation with a lower score.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option(help="Only relations of this label; may be given several times.")
    ] = None,
    theme: Annotated[str, typer.Option(help="auto, light or dark.")] = "auto",
    title: Annotated[str, typer.Option(help="Of the page.")] = "Relations",
    only_related: Annotated[
        bool, typer.Option("--only-related", help="Of arcs: leave out sentences without relations.")
    ] = False,
    merge: Annotated[
        str, typer.Option(help="Of the graph: one node for equal text, or for equal text and type (type).")
    ] = "text",
    attr: Annotated[
        str, typer.Option(help="In .spacy files: the relations lie in doc._.ATTR.")
    ] = "relations",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
) -> None:
    """Draw relations on one HTML page that needs no network, or try a pipeline on a local page."""
    with show_errors():
        from spacy_slmre.export import ExportError, read_documents
        from spacy_slmre.export.files import aside, check_inputs
        from spacy_slmre.visual.options import ViewOptions
        from spacy_slmre.visual.rendering import render

        options = ViewOptions(
            min_score=min_score,
            labels=frozenset(label or ()),
            theme=theme,
            title=title,
            sentences="related" if only_related else "all",
            merge=merge,
        )
        if serve is not None:
            if inputs or output is not None:
                raise ExportError(
                    "--serve takes a pipeline and no input or output: texts are typed on the page."
                )
            _serve(serve, port, options, open_browser)
            return
        if not inputs or output is None:
            raise ExportError(
                "Give a file of relations and --output PAGE.html, or --serve PIPELINE to try a pipeline."
            )
        if output.suffix not in (".html", ".htm"):
            raise ExportError(f"The output {output} must end with .html.")
        check_inputs(output, inputs)
        with aside(output, overwrite=overwrite) as path:
            documents = list(read_documents(inputs, sys.stdin.buffer, attr=attr))
            html = render(documents, style, page=True, jupyter=False, options=vars(options))
            path.write_text(html or "", encoding="utf-8")
        relations = sum(options.shows(one.label, one.score) for doc in documents for one in doc.relations)
        log(f"{len(documents)} documents, {relations} relations → {output}")
        if not relations:
            log("There is no relation to show" + (" with these settings." if min_score or label else "."))
        if open_browser:
            webbrowser.open(output.resolve().as_uri())


def _serve(pipeline: str, port: int, options: ViewOptions, open_browser: bool) -> None:
    from spacy_slmre.cli.pipelines import load_extraction_pipeline
    from spacy_slmre.serve.server import LiveServer

    log(f'Loading "{pipeline}" …')
    loaded = load_extraction_pipeline(pipeline)
    server = LiveServer(loaded.nlp, port, options, attr=loaded.attr, example=EXAMPLE)
    with server:
        log(f"{server.address} is ready, for this machine only. Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log("Ended.")
