"""The command group `python -m spacy slmre` and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import app as spacy_app

slmre_cli = typer.Typer(
    name="slmre", help="Relation extraction with small language models.", no_args_is_help=True, rich_markup_mode=None
)
# Importing the entry point must register the commands; spaCy has no public name for its command group.
spacy_app.add_typer(slmre_cli)

CodeOption = Annotated[
    Path | None, typer.Option("--code", "-c", help="Python file with registered functions to import first.")
]
GpuOption = Annotated[
    int | None,
    typer.Option("--gpu-id", "-g", help="GPU id, or -1 for the CPU. Default: as the pipeline is configured."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", "-F", help="Discard partial results and replace an existing output.")
]
