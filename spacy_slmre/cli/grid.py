"""`python -m spacy slmre grid`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import console, log, show_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_slmre.study.grid import GridRun


@slmre_cli.command("grid", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def grid_command(
    ctx: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds a folder for every run.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The grid: configs, regimes and styles.")
    ] = Path("configs/tune/grid.cfg"),
    only_list: Annotated[
        bool, typer.Option("--list", help="List the runs and their state, run none.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="Only a part of the runs: 1/4 is the first of four shards.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run those again that failed.")] = False,
) -> None:
    """List the study's 30 tuning runs with their state, and run what is missing, one after the other.

    Each run is a process of its own; one that fails is recorded and does not stop the rest. Interrupted
    runs go on where they stopped. A run that stays "running" though its machine is gone is freed by
    deleting .RUN.lock beside its folder. Settings for all runs can be added as for tune:
    --training.max_steps 100
    """
    with show_errors():
        from spacy_slmre.study.grid import read_grid, take_shard

        runs = read_grid(config, output)
        if shard is not None:
            runs = take_shard(runs, shard)
        _show(runs)
        if only_list:
            return
        wanted = ("missing", "failed") if retry else ("missing",)
        failed = 0
        for number, run in enumerate(runs, 1):
            # DocInstances now: another shard or process may have done it meanwhile.
            if run.state()[0] not in wanted:
                continue
            log(f"[{number}/{len(runs)}] {run.name} (log: {run.log})")
            went_well = run.run(ctx.args)
            state, told = run.state()
            failed += not went_well and state == "failed"
            log(f"  {state}: {told}")
        if failed:
            log(f"{failed} runs failed: their errors lie beside their folders, --retry runs them again.")
            raise typer.Exit(1)


def _show(runs: Sequence[GridRun]) -> None:
    from collections import Counter

    from rich.box import SIMPLE
    from rich.table import Table

    styles = {"missing": "dim", "running": "yellow", "done": "green", "failed": "red"}
    table = Table("run", "state", "", box=SIMPLE, padding=(0, 1, 0, 0))
    counts: Counter[str] = Counter()
    for run in runs:
        state, told = run.state()
        counts[state] += 1
        table.add_row(run.name, f"[{styles[state]}]{state}", told)
    console.print(table)
    log(", ".join(f"{counts[state]} {state}" for state in styles))
