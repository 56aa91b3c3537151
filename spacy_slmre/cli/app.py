"""The command group `python -m spacy slmre` and the options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import app as spacy_app

slmre_cli = typer.Typer(
    name="slmre", help="Relation extraction with small language models.", no_args_is_help=True, rich_markup_mode=None
)
# Importing the entry point must register the commands; spaCy has no public name for its command group.
spacy_app.add_typer(slmre_cli)

PIPELINE_HELP = "Pipeline package or folder; slm_relations is added if it has no relation component."
CodeOption = Annotated[
    Path | None, typer.Option("--code", "-c", help="Python file with registered functions to import first.")
]
GpuOption = Annotated[
    int | None,
    typer.Option("--gpu-id", "-g", help="GPU id, or -1 for the CPU. Default: as the pipeline is configured."),
]
TextFieldOption = Annotated[str, typer.Option(help="JSONL field or Parquet column of the text.")]
IdFieldOption = Annotated[str, typer.Option(help="JSONL field or Parquet column of the document id, if any.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", "-F", help="Discard partial results and replace an existing output.")
]


def refuse_options(ctx: typer.Context, names: Iterable[str], reason: str) -> None:
    """Raise ValueError if an option was given that would have no effect.

    Args:
        ctx: The command's context.
        names: Names of parameters.
        reason: The rest of the message, after the name of the option.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')} {reason}")
