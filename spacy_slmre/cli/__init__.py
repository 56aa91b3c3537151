"""Commands of `python -m spacy slmre`.

Every spaCy command loads this package: heavy imports stay inside the commands.
"""

from __future__ import annotations

import typer
from spacy.cli._util import app as spacy_app

slmre_cli = typer.Typer(
    name="slmre",
    help="Relation extraction with small language models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
# Mounted here, at import: spaCy loads the entry point for just this effect.
spacy_app.add_typer(slmre_cli)

from spacy_slmre.cli import (  # noqa: E402  (the commands register themselves on slmre_cli)
    benchmarks,
    calibrate,
    convert,
    debug_data,
    download_base,
    evaluate,
    export,
    extract,
    grid,
    inspect,
    mix,
    pretrain,
    report,
    train_classifier,
    tune,
    view,
)

__all__ = [
    "benchmarks",
    "calibrate",
    "convert",
    "debug_data",
    "download_base",
    "evaluate",
    "export",
    "extract",
    "grid",
    "inspect",
    "mix",
    "pretrain",
    "report",
    "slmre_cli",
    "train_classifier",
    "tune",
    "view",
]
