"""`python -m spacy slmre mcp`."""

from __future__ import annotations

from typing import Annotated

import typer

from spacy_slmre.cli.app import PIPELINE_HELP, CodeOption, GpuOption, slmre_cli
from spacy_slmre.cli.output import log, show_errors


@slmre_cli.command("mcp")
@show_errors()
def mcp_command(
    pipeline: Annotated[str, typer.Argument(help=PIPELINE_HELP)], code: CodeOption = None, gpu_id: GpuOption = None
) -> None:
    """Serve a pipeline to assistants as MCP tools on standard input and output."""
    from spacy_slmre.connectors.base import PipelineRunner
    from spacy_slmre.connectors.mcp import make_server
    from spacy_slmre.extraction.pipelines import load_extraction_pipeline

    log(f'Loading "{pipeline}" …')
    loaded = load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log)
    make_server(PipelineRunner(loaded.nlp)).run("stdio")
