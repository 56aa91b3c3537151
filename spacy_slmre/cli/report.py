"""`python -m spacy slmre report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import OverwriteOption, slmre_cli
from spacy_slmre.cli.output import log, show_errors


@slmre_cli.command("report")
@show_errors()
def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUNS…", help="Folders with runs of slmre evaluate, at any depth.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file; .md and .csv files are written next to it.")
    ],
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Evaluation report",
    theme: Annotated[str, typer.Option(help="auto, light or dark.")] = "auto",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Sample errors of each kind and run. With 0 the report contains no text of the corpora, as "
            "some licenses require.",
        ),
    ] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Show evaluation runs on one page that needs no network.

    It has scores with intervals, comparisons, labels, confusions, calibration, sample errors, speed, and how
    each run was made; Markdown and CSV files have the same numbers. Unfinished runs are skipped. Of several
    runs of a system on the same corpus and split, the one with most pairs is shown, otherwise the newest.
    """
    from spacy_slmre.evaluation.report import ReportOptions, make_report, report_paths
    from spacy_slmre.evaluation.results import find_runs

    paths = report_paths(output)
    if not overwrite and (existing := [path for path in paths if path.exists()]):
        raise ValueError(f"The output {existing[0]} already exists: use --overwrite to replace it.")
    command = ["python", "-m", "spacy", "slmre", "report", *map(str, runs), "--output", str(output)]
    command += ["--title", title, "--samples", str(samples), "--seed", str(seed), "--overwrite"]
    options = ReportOptions(title=title, theme=theme, samples=samples, seed=seed, command=shlex.join(command))
    found, notes = find_runs(runs)
    for note in notes:
        log(note)
    make_report(found, notes, options).write(output)
    log(f"{len(found)} run{'s' * (len(found) > 1)}: {', '.join(map(str, paths))}")
