"""`python -m spacy slmre tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import CodeOption, GpuOption, OverwriteOption, slmre_cli
from spacy_slmre.cli.output import document_progress, log, show_errors


@slmre_cli.command("tune", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@show_errors()
def tune_command(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(help="Tuning config; see configs/tune for examples.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the tuned pipeline, which spacy.load can load.")
    ],
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Tune an adapter on annotated relations.

    Settings of the config can be overridden: --training.max_steps 100 --lora.rank 32. Checkpoints are kept in
    OUTPUT.part until the run is complete; repeat the command to resume an interrupted run. To use several GPUs:
    accelerate launch -m spacy slmre tune CONFIG --output DIR
    """
    from spacy.cli._util import import_code, parse_config_overrides

    is_main = int(os.environ.get("RANK", "0")) == 0
    report = log if is_main else lambda _: None
    shown = {"progress": document_progress()} if is_main else {}
    import_code(code)
    overrides = parse_config_overrides(ctx.args)

    from spacy_slmre.training.config import read_config, resolve_config
    from spacy_slmre.training.tune import tune

    settings = read_config(config, overrides)
    if gpu_id is not None:
        settings.setdefault("model", {})["device"] = f"cuda:{gpu_id}" if gpu_id >= 0 else "cpu"
    try:
        resolved = resolve_config(settings, str(config))
        metrics = tune(resolved, output, overwrite=overwrite, log=report, **shown)
    except KeyboardInterrupt:
        report("Interrupted. Repeat the command to resume from the last checkpoint.")
        raise typer.Exit(130) from None
    for name, scores in metrics["scores"]["sets"].items():
        report(f"{name}: micro-F1 {scores['f']:.3f} (P {scores['p']:.3f}, R {scores['r']:.3f}) on dev")
    report(f"Tuned in {metrics['seconds']:.0f} s, {metrics['steps']} steps → {output}")
