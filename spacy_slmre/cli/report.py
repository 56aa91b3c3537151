"""`python -m spacy slmre report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import log, show_errors


@slmre_cli.command("report")
@show_errors()
def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS…", help="Folders of slmre evaluate; runs at any depth are found."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write; .md and .csv go beside it.")
    ],
    title: Annotated[str, typer.Option(help="Of the page.")] = "Evaluation report",
    theme: Annotated[str, typer.Option(help="auto, light or dark.")] = "auto",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Sample errors of each kind and run. 0 leaves all texts out, for benchmarks whose licence "
            "forbids passing them on.",
        ),
    ] = 3,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
) -> None:
    """Show evaluation runs beside the study's published results, on one page that needs no network.

    Scores with intervals, labels, confusions, calibration, errors, speed and how each run was made; the
    numbers as Markdown and CSV too. An unfinished run is left out. Of two runs of one system on one benchmark
    and split, the one on more pairs is shown, or the newer one.
    """
    from spacy_slmre.evaluation.report import ReportOptions, make_report, report_paths
    from spacy_slmre.evaluation.selection import select_runs

    paths = report_paths(output)
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise ValueError(f"The output {there[0]} is there already: give --overwrite to replace it.")
    command = ["python", "-m", "spacy", "slmre", "report", *map(str, runs), "--output", str(output)]
    command += ["--title", title, "--samples", str(samples), "--seed", str(seed), "--overwrite"]
    options = ReportOptions(title=title, theme=theme, samples=samples, seed=seed, command=shlex.join(command))
    selection = select_runs(runs)
    for note in selection.notes:
        log(note)
    make_report(selection, options).write(output)
    count = len(selection.runs)
    log(f"{count} run{'s' * (count > 1)} → {', '.join(map(str, paths))}")
