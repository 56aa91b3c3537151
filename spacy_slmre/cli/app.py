"""The command group `python -m spacy slmre` and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from spacy.cli._util import app as spacy_app
from typer.core import TyperGroup

# The order of the help text follows a project: get a model, extract, then data, training, results.
_ORDER = (
    "download-base",
    "extract",
    "convert",
    "debug-data",
    "tune",
    "evaluate",
    "calibrate",
    "export",
    "view",
    "serve",
    "report",
    "study",
)


class _OrderedGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        order = {name: position for position, name in enumerate(_ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))


slmre_cli = typer.Typer(
    name="slmre",
    cls=_OrderedGroup,
    help="Relation extraction with small language models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
# spaCy loads the entry point only for this effect and has no public name for its command group.
spacy_app.add_typer(slmre_cli)

CodeOption = Annotated[
    Path | None,
    typer.Option("--code", "-c", help="Python file with custom code (registered functions) to import first."),
]
GpuOption = Annotated[
    int | None, typer.Option("--gpu-id", "-g", help="GPU to use, or -1 for the CPU. Default: the pipeline's settings.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", "-F", help="Discard partial results and replace an existing output.")
]
