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
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS…", help="Folders to search for runs of slmre evaluate.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file; .md and .csv files are written next to it.")
    ],
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Evaluation report",
    theme: Annotated[str, typer.Option(help="auto, light or dark.")] = "auto",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of sample errors per kind and run. With 0, the report contains no text of the corpora, "
            "as some licenses require.",
        ),
    ] = 3,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Summarize evaluation runs on an HTML page.

    The self-contained page shows scores with confidence intervals, comparisons of systems, scores by label, confusion
    matrices, calibration, sample errors, speed, and the settings of each run; Markdown and CSV files have the same
    numbers. Unfinished runs are skipped. If a system has several runs on the same corpus and split, the one with the
    most pairs is shown, or else the newest.
    """
    from spacy_slmre.evaluation.report import ReportOptions, make_report, report_paths
    from spacy_slmre.evaluation.results import find_runs
    from spacy_slmre.util.run_folder import check_not_input, reserve

    paths = report_paths(output)
    command = ["python", "-m", "spacy", "slmre", "report", *map(str, runs), "--output", str(output)]
    command += ["--title", title, "--theme", theme, "--samples", str(samples), "--seed", str(seed), "--overwrite"]
    options = ReportOptions(title=title, theme=theme, samples=samples, seed=seed, command=shlex.join(command))
    with reserve(*paths, overwrite=overwrite):
        evaluation_runs, notes = find_runs(runs)
        for note in notes:
            log(note)
        check_not_input(paths, [run.folder for run in evaluation_runs])
        make_report(evaluation_runs, notes, options).write(output)
    count = len(evaluation_runs)
    log(f"{count} run{'s' * (count > 1)} → {', '.join(map(str, paths))}")
