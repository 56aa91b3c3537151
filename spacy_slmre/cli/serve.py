"""`python -m spacy slmre serve`."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import CodeOption, GpuOption, slmre_cli
from spacy_slmre.cli.export import LabelOption, MinScoreOption
from spacy_slmre.cli.output import log, show_errors
from spacy_slmre.cli.view import OpenOption, ThemeOption, TitleOption

if TYPE_CHECKING:
    from spacy_slmre.serve.local import LocalServer

EXAMPLE = "Marie Curie was born in Warsaw. In Paris she married Pierre Curie, who taught at the Sorbonne."


@slmre_cli.command("serve")
@show_errors()
def serve_command(
    pipeline: Annotated[
        str, typer.Argument(help="Pipeline package or folder; slm_relations is added if it has no relation component.")
    ],
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 selects a free one.")] = 5055,
    min_score: MinScoreOption = 0.0,
    label: LabelOption = None,
    theme: ThemeOption = "auto",
    title: TitleOption = "Relations",
    open_browser: OpenOption = False,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
) -> None:
    """Try a pipeline on a local web page."""
    from spacy_slmre.extraction.pipelines import load_extraction_pipeline
    from spacy_slmre.serve.server import LiveServer
    from spacy_slmre.visual.options import ViewOptions

    options = ViewOptions(min_score=min_score, labels=frozenset(label or ()), theme=theme, title=title)
    log(f'Loading "{pipeline}" …')
    loaded = load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log)
    with LiveServer(loaded.nlp, port, options, attr=loaded.attr, example=EXAMPLE) as server:
        if serve_until_interrupted(server, open_browser):
            log("Stopped.")


def serve_until_interrupted(server: LocalServer, open_browser: bool) -> bool:
    """Serve a local page, and open it in a browser if wanted; return whether Ctrl+C ended it."""
    log(f"Serving {server.address} on this machine only. Press Ctrl+C to stop.")
    if open_browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return True
    return False
