"""`python -m spacy slmre debug-data`: what may be wrong with a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import show_errors


@slmre_cli.command("debug-data")
@show_errors()
def debug_data_cli(
    train: Annotated[Path, typer.Argument(help="The training corpus.")],
    dev: Annotated[Path, typer.Argument(help="The development corpus.")],
    test: Annotated[Path | None, typer.Argument(help="The test corpus.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Report duplicates, leaks between splits, missing and conflicting labels, broken arguments, imbalance.

    The exit code is 1 where there are errors; warnings leave it at 0.
    """
    from rich.console import Console

    from spacy_slmre.corpus.checks import diagnose

    splits = {"train": train, "dev": dev} | ({"test": test} if test is not None else {})
    summaries, findings = diagnose(splits)
    if as_json:
        report = {
            "splits": {name: summary.to_dict() for name, summary in summaries.items()},
            "findings": [finding.to_dict() for finding in findings],
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        console = Console()
        for name, summary in summaries.items():
            counts = (
                f"{summary.instances:,} pairs, {summary.negatives:,} negatives, {len(summary.labels)} labels"
            )
            console.print(f"{name:<6} {summary.documents:,} documents, {counts}", highlight=False)
        styles = {"error": "bold red", "warning": "yellow", "info": "dim"}
        for finding in findings:
            console.print(
                f"{finding.level:<8} {finding.message}",
                style=styles[finding.level],
                markup=False,
                soft_wrap=True,
            )
            for example in finding.examples:
                console.print(f"           {example}", style="dim", markup=False, soft_wrap=True)
        if not any(finding.level != "info" for finding in findings):
            console.print("Nothing stands out.", style="green")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
