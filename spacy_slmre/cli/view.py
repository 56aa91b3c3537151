"""`python -m spacy slmre view`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import OverwriteOption, refuse_options, slmre_cli
from spacy_slmre.cli.export import AttrOption, InputArgument, LabelOption, MinScoreOption, log_unknown_labels
from spacy_slmre.cli.output import log, show_errors, standard_input

ThemeOption = Annotated[str, typer.Option(help="auto (follow the system), light or dark.")]
TitleOption = Annotated[str, typer.Option(help="Title of the page.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


@slmre_cli.command("view")
@show_errors()
def view_command(
    ctx: typer.Context,
    inputs: InputArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file.")],
    style: Annotated[
        str,
        typer.Option(
            help="arcs (between mentions, above the text) or graph (by default of the facts of all documents)."
        ),
    ] = "arcs",
    min_score: MinScoreOption = 0.0,
    label: LabelOption = None,
    theme: ThemeOption = "auto",
    title: TitleOption = "Relations",
    only_related: Annotated[
        bool, typer.Option("--only-related", help="For arcs: omit sentences without relations.")
    ] = False,
    level: Annotated[
        str | None,
        typer.Option(
            help="For graph: mentions (relations between mentions) or facts (between the entities of each document). "
            "By default, the entities of all documents are joined."
        ),
    ] = None,
    merge: Annotated[
        str, typer.Option(help="For graph: merge entities with the same name (text), or the same name and type (type).")
    ] = "text",
    attr: AttrOption = "relations",
    open_browser: OpenOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw relations on an HTML page.

    To try a pipeline on your own text, use slmre serve.
    """
    from spacy_slmre.export.reading import input_files, read_documents
    from spacy_slmre.util.io import atomic_write
    from spacy_slmre.util.run_folder import reserve
    from spacy_slmre.visual.options import ViewOptions
    from spacy_slmre.visual.rendering import render

    unused = {"arcs": ["level", "merge"], "graph": ["only_related"]}
    refuse_options(ctx, unused.get(style, ()), f"has no effect with --style {style}.")
    refuse_options(ctx, ["merge"] if level is not None else [], "has no effect with --level.")
    sentences = "related" if only_related else "all"
    labels = frozenset(label or ())
    options = ViewOptions(
        min_score=min_score, labels=labels, theme=theme, title=title, sentences=sentences, level=level, merge=merge
    )
    if output.suffix not in (".html", ".htm"):
        raise ValueError(f"The output {output} must end in .html.")
    with reserve(output, inputs=[*inputs, *input_files(inputs)], overwrite=overwrite):
        documents = list(read_documents(inputs, standard_input(inputs), attr=attr))
        atomic_write(output, render(documents, style, page=True, jupyter=False, options=options) or "")
    relations = sum(len(options.shown_relations(document)) for document in documents)
    log(f"{len(documents)} documents, {relations} relations → {output}")
    if found := {relation.label for document in documents for relation in document.relations}:
        log_unknown_labels(label or (), found)
    if not relations:
        log("There are no relations to show" + (" with these settings." if min_score or label else "."))
    if open_browser:
        webbrowser.open(output.resolve().as_uri())
