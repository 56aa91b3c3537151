"""`python -m spacy slmre tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import document_progress, log, show_errors


@slmre_cli.command("tune", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def tune_command(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(help="What to tune, how, and on what; see configs/tune.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write: a pipeline that spacy.load opens.")
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output, and what an interrupted run has left.")
    ] = False,
) -> None:
    """Tune an adapter for a small language model on annotated relations.

    Any setting of the config can be given here, in spaCy's manner: --training.max_steps 100 --lora.rank 32.
    While it runs, checkpoints lie in OUTPUT.part; the output appears when all is done. On several GPUs:
    accelerate launch -m spacy slmre tune CONFIG --output DIR
    """
    from spacy.cli._util import parse_config_overrides

    main = int(os.environ.get("RANK", "0")) == 0
    tell = log if main else _silent
    shown = {"counting": document_progress} if main else {}
    with show_errors():
        overrides = parse_config_overrides(ctx.args)

        from spacy_slmre.training.config import read_config, resolve_config
        from spacy_slmre.training.run import run_tuning

        settings = resolve_config(read_config(config, overrides), str(config))
        try:
            metrics = run_tuning(settings, output, resume=resume, overwrite=overwrite, say=tell, **shown)
        except KeyboardInterrupt:
            tell("Interrupted: the same command with --resume goes on from the last checkpoint.")
            raise typer.Exit(130) from None
        for name, scores in metrics["scores"]["sets"].items():
            tell(f"{name}: micro-F1 {scores['f']:.3f} (P {scores['p']:.3f}, R {scores['r']:.3f}) on dev")
        tell(f"Tuned in {metrics['seconds']:.0f} s, {metrics['steps']} steps → {output}")


def _silent(message: str) -> None:
    """What processes other than the first one say."""
