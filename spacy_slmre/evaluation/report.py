"""A report of evaluation runs: one HTML page that needs no network, with Markdown and CSV beside it."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spacy_slmre.corpus.formats import all_formats
from spacy_slmre.evaluation import plots
from spacy_slmre.evaluation.comparisons import compare
from spacy_slmre.evaluation.errors import KINDS, mark, sample_errors
from spacy_slmre.evaluation.results import (
    TIDY_COLUMNS,
    Mean,
    Result,
    by_benchmark,
    make_results,
    means,
    tidy_rows,
    title_of,
)
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun
from spacy_slmre.evaluation.selection import Selection, select_runs
from spacy_slmre.evaluation.svg import check_matplotlib
from spacy_slmre.evaluation.tables import (
    Table,
    benchmark_table,
    comparison_table,
    means_table,
    overview,
    published_by,
    results_table,
    side_by_side,
    speed_table,
    study_table,
)
from spacy_slmre.export.tables import escape_formula
from spacy_slmre.study.published import DAPT_GAIN, SOURCE
from spacy_slmre.util.io import atomic_write
from spacy_slmre.visual.colors import relation_styles
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import as_page, stylesheet


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        title: Its title.
        theme: "auto" (what the reader's system says), "light" or "dark".
        samples: Most sample errors of each kind and run; 0 shows no text of a benchmark.
        seed: Seed of the sample.
        command: The command that makes the report again.

    Raises:
        EvaluationError: There cannot be as many samples.
    """

    title: str = "Evaluation report"
    theme: str = "auto"
    samples: int = 3
    seed: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise EvaluationError(f"--samples {self.samples}: give 0 or more.")


@dataclass(frozen=True)
class Report:
    """A report in all its forms."""

    html: str
    markdown: str
    csv: str

    def write(self, output: Path) -> list[Path]:
        """Write the page, and Markdown and CSV of the same name beside it; gives their paths."""
        paths = report_paths(output)
        for path, text in zip(paths, (self.html, self.markdown, self.csv), strict=True):
            atomic_write(path, text)
        return paths


def report_paths(output: Path) -> list[Path]:
    """The page, the Markdown and the CSV of a report.

    Raises:
        EvaluationError: The name is not that of a page.
    """
    if output.suffix not in (".html", ".htm"):
        raise EvaluationError(f"The output {output} must end with .html; .md and .csv go beside it.")
    return [output, output.with_suffix(".md"), output.with_suffix(".csv")]


def make_report(selection: Selection, options: ReportOptions | None = None) -> Report:
    """The report of some runs.

    Args:
        selection: The runs.
        options: What to show of them.

    Raises:
        EvaluationError: Matplotlib is missing, or the predictions of a run are damaged.
        ExportError: The theme is unknown.
    """
    options = options or ReportOptions()
    check_matplotlib()
    results = make_results(selection.runs)
    found = means(results)
    compared = comparison_table(compare([one.run for one in results], [one.name for one in results]))
    html = _html(results, found, selection.notes, compared, options)
    markdown = _markdown(results, found, selection.notes, compared, options)
    return Report(html, markdown, _csv(results))


def results_markdown(paths: Sequence[Path]) -> str:
    """The table of results of run folders, for a README.

    Raises:
        EvaluationError: There is no complete run.
    """
    return results_table(make_results(select_runs(paths).runs)).markdown()


def rerun_command(run: EvaluationRun) -> str:
    """The command that makes a run again; empty where the run does not say what was evaluated."""
    info = run.info
    if not (info.get("pipeline") and info.get("corpus")):
        return ""
    parts = ["python", "-m", "spacy", "slmre", "evaluate", info["pipeline"], info["corpus"]]
    parts += ["--output", str(run.folder.parent)]
    for name, value in info.get("settings", {"name": info["system"]}).items():
        if value not in (None, "", 0, False):
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)


def _html(
    results: Sequence[Result],
    found: Sequence[Mean],
    notes: Sequence[str],
    compared: Table,
    options: ReportOptions,
) -> str:
    names = list(dict.fromkeys(one.name for one in results))
    series = plots.make_series(names)
    page = ViewOptions(title=options.title, theme=options.theme)
    body = (
        _environment()
        .get_template("report.jinja")
        .render(
            options=options,
            css=Markup(stylesheet() + _environment().get_template("report.css").render()),
            script=Markup(_environment().get_template("report.js").render()),
            source=SOURCE,
            dapt_gain=DAPT_GAIN,
            notes=notes,
            results=results,
            styles=relation_styles(names, {}),
            signs={name: plots.SIGNS[place % len(plots.SIGNS)] for place, name in enumerate(names)},
            overview=overview(results),
            means=means_table(found),
            study=study_table(results, found),
            scales=plots.scale_plots(results, found, series),
            published=[published_by(aspect) for aspect in ("regime", "style")],
            contrasts=[
                table for aspect in ("regime", "style", "dapt") if (table := side_by_side(results, aspect))
            ],
            benchmarks=[
                _benchmark(number, there, series, options)
                for number, there in enumerate(by_benchmark(results).values(), 1)
            ],
            compared=compared,
            speeds=[plot for there in by_benchmark(results).values() if (plot := plots.speed(there, series))],
            speed=speed_table(results),
            commands={one.run.folder: rerun_command(one.run) for one in results},
            title_of=title_of,
        )
    )
    return as_page(body, page)


def _benchmark(
    number: int, results: Sequence[Result], series: Mapping[str, plots.Series], options: ReportOptions
) -> dict[str, Any]:
    """What the page says of one benchmark."""
    info = results[0].info
    card = all_formats().get(info["benchmark"])
    drawn = [plots.reliability(results, series), plots.coverage(results, series)]
    return {
        "id": f"benchmark-{number}",
        "title": title_of(info["benchmark"], info["split"]),
        "card": card,
        "results": results,
        "table": benchmark_table(results),
        "forest": plots.forest(results, series),
        "labels": plots.per_label(results, series),
        "calibration": [plot for plot in drawn if plot],
        "confusions": [(one, _confusion(one)) for one in results],
        "errors": [(one, _errors(one, options)) for one in results] if options.samples else [],
    }


def _confusion(one: Result) -> dict[str, Any]:
    """Gold by predicted, with how much of its row a cell has, in tenths, and the commonest confusions."""
    labels, rows = (one.run.metrics["confusion"][key] for key in ("labels", "rows"))
    tenths = [[-(-10 * count // (sum(row) or 1)) for count in row] for row in rows]
    wrong = sorted(
        (
            (count, labels[gold], labels[answer])
            for gold, row in enumerate(rows)
            for answer, count in enumerate(row)
            if count and gold != answer
        ),
        key=lambda item: (-item[0], *item[1:]),
    )
    return {"labels": labels, "rows": rows, "tenths": tenths, "wrong": wrong[:8]}


def _errors(one: Result, options: ReportOptions) -> list[dict[str, Any]]:
    negative = one.info.get("negative_label") or "no relation"
    return [
        {
            "title": KINDS[kind],
            "count": count,
            "items": [
                {
                    "id": error.id,
                    "segments": mark(error),
                    "gold": ", ".join(error.gold) or negative,
                    "predicted": error.predicted or (negative if error.answered else "no answer"),
                    "score": error.score,
                    "answer": error.answer if error.answer != error.predicted else None,
                }
                for error in sample
            ],
        }
        for kind, (count, sample) in sample_errors(
            one.run.predictions(), options.samples, options.seed
        ).items()
        if count
    ]


def _markdown(
    results: Sequence[Result],
    found: Sequence[Mean],
    notes: Sequence[str],
    compared: Table,
    options: ReportOptions,
) -> str:
    parts = [f"# {options.title}"]
    if notes:
        parts += ["## Notes", "\n".join(f"- {' '.join(note.split())}" for note in notes)]
    parts += ["## Results", results_table(results).markdown(), f"Published: {SOURCE}."]
    tables = [means_table(found)]
    tables += [benchmark_table(there) for there in by_benchmark(results).values()]
    tables += [side_by_side(results, aspect) for aspect in ("regime", "style", "dapt")]
    tables += [compared, speed_table(results), study_table(results, found)]
    for table in tables:
        if table:
            parts += [f"## {table.caption}", table.markdown()]
    if options.command:
        parts += ["## To make this report again", f"```bash\n{options.command}\n```"]
    return "\n\n".join(parts) + "\n"


def _csv(results: Sequence[Result]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, TIDY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in tidy_rows(results):
        writer.writerow({name: escape_formula(value) for name, value in row.items()})
    return stream.getvalue()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("spacy_slmre.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
