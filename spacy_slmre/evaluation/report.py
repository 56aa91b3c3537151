"""Report evaluation runs as a self-contained HTML page, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spacy_slmre.evaluation import plots
from spacy_slmre.evaluation.error_samples import ERROR_KINDS, mark_arguments, sample_errors
from spacy_slmre.evaluation.results import Result, SectionContent, all_sections, by_corpus, make_results
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun
from spacy_slmre.evaluation.significance import compare_runs
from spacy_slmre.evaluation.tables import comparison_table, corpus_table, overview_table, results_table, speed_table
from spacy_slmre.export.tables import escape_formula
from spacy_slmre.util.extras import check_extra
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.settings import check_choice, check_minimum
from spacy_slmre.visual.colors import relation_styles
from spacy_slmre.visual.options import THEMES, ViewOptions
from spacy_slmre.visual.pages import as_page, stylesheet

_INFO_COLUMNS = (
    "system", "kind", "params", "regime", "style", "prompt", "decoding", "dapt", "corpus", "split", "limit",
)  # fmt: skip
_METRIC_COLUMNS = ("macro_f", "official_macro_f", "accuracy", "out_of_schema", "unanswered", "truncated")
_SPEED_COLUMNS = ("pairs", "seconds", "tokens", "peak_memory_gb", "load_seconds", "cost")
CSV_COLUMNS = (
    "source", "name", *_INFO_COLUMNS, "p", "r", "f", "low", "high", "tp", "fp", "fn", *_METRIC_COLUMNS,
    "ece", *_SPEED_COLUMNS, "pairs_per_second", "caveats", "data_sha256", "folder",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        title: Title of the page.
        theme: "auto" (follows the reader's system), "light" or "dark".
        samples: Maximum number of sample errors per kind and run; with 0, no text of a corpus is shown.
        seed: Random seed of the samples.
        command: The command that recreates the report.

    Raises:
        EvaluationError: The number of samples is negative, or the theme is unknown.
    """

    title: str = "Evaluation report"
    theme: str = "auto"
    samples: int = 3
    seed: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        check_minimum(self, "report", EvaluationError, samples=0)
        check_choice(self, "report", EvaluationError, theme=THEMES)


@dataclass(frozen=True)
class Report:
    """A report in all its formats."""

    html: str
    markdown: str
    csv: str

    def write(self, output: Path) -> list[Path]:
        """Write the page and the Markdown and CSV files; return their paths."""
        paths = report_paths(output)
        for path, text in zip(paths, (self.html, self.markdown, self.csv), strict=True):
            atomic_write(path, text)
        return paths


def report_paths(output: Path) -> list[Path]:
    """Return the paths of a report's page, Markdown and CSV.

    Raises:
        EvaluationError: The output does not end in .html.
    """
    if output.suffix not in (".html", ".htm"):
        raise EvaluationError(f"The output {output} must end in .html; .md and .csv are written next to it.")
    return [output, output.with_suffix(".md"), output.with_suffix(".csv")]


def make_report(
    runs: Sequence[EvaluationRun], notes: Sequence[str] = (), options: ReportOptions | None = None
) -> Report:
    """Make a report of runs and notes from `find_runs`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        EvaluationError: The predictions of a run are damaged.
    """
    options = options or ReportOptions()
    check_extra("report", "matplotlib", "A report")
    sections = all_sections()
    results = make_results(runs, sections)
    names = list({result.series: result.name for result in results}.values())
    groups = list(by_corpus(results).values())
    comparisons = comparison_table(
        compare_runs([result.run for result in results], [result.name for result in results])
    )
    extra = [(section, content) for section in sections if (content := section.content(results))]
    page = ViewOptions(title=options.title, theme=options.theme)
    css = str(stylesheet()) + environment().get_template("report.css").render()
    body = (
        environment()
        .get_template("report.jinja")
        .render(
            options=options,
            css=Markup(css),
            script=Markup(environment().get_template("report.js").render()),
            notes=notes,
            results=results,
            styles=relation_styles(names, {}),
            signs=marker_signs(results),
            overview=overview_table(results),
            sections=extra,
            corpora=[_corpus_content(number, group, options) for number, group in enumerate(groups, 1)],
            comparisons=comparisons,
            speed_plots=[plot for group in groups if (plot := plots.speed_plot(group))],
            speed=speed_table(results),
            commands={result.run.folder: rerun_command(result.run) for result in results},
        )
    )
    contents = [content for _, content in extra]
    tables = [*map(corpus_table, groups), comparisons, speed_table(results)]
    parts = [f"# {options.title}"]
    if notes:
        parts += ["## Notes", "\n".join(f"- {' '.join(note.split())}" for note in notes)]
    parts += ["## Results", results_table(results).markdown()]
    parts += [f"Published: {section.source}." for section, _ in extra]
    parts += [f"## {table.caption}\n\n{table.markdown()}" for table in tables if table]
    parts += [content.markdown for content in contents]
    if options.command:
        parts += ["## Recreate this report", f"```bash\n{options.command}\n```"]
    return Report(as_page(body, page), "\n\n".join(parts) + "\n", _csv(results, contents))


def marker_signs(results: Iterable[Result]) -> dict[str, str]:
    """Return the marker of each system as a character."""
    return {result.name: plots.MARKER_SIGNS[result.series % len(plots.MARKER_SIGNS)] for result in results}


def rerun_command(run: EvaluationRun) -> str:
    """Return the command that repeats a run; empty if the run does not record its pipeline and corpus."""
    info = run.info
    if not (info.get("pipeline") and info.get("corpus_path")):
        return ""
    parts = ["python", "-m", "spacy", "slmre", "evaluate", info["pipeline"], info["corpus_path"]]
    parts += ["--output", str(run.folder.parent)]
    for name, value in info.get("settings", {}).items():
        if value not in (None, "", 0, False):
            parts += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(parts)


@cache
def environment(package: str = "spacy_slmre.evaluation") -> Environment:
    """Return a Jinja environment with the templates of a package and ours (macros.jinja)."""
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, "spacy_slmre.evaluation"))]
    return Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _corpus_content(number: int, results: Sequence[Result], options: ReportOptions) -> dict[str, Any]:
    corpus_format = results[0].run.corpus_format
    confidence = [plots.reliability_plot(results), plots.coverage_plot(results)]
    return {
        "id": f"corpus-{number}",
        "title": results[0].title,
        "format": corpus_format,
        "description": " ".join(getattr(corpus_format, name, "") for name in ("task", "citation")).strip(),
        "results": results,
        "table": corpus_table(results),
        "forest": plots.forest_plot(results),
        "labels": plots.label_plot(results),
        "confidence": [plot for plot in confidence if plot],
        "confusions": [(result, _confusion(result)) for result in results],
        "errors": [(result, _errors(result, options)) for result in results] if options.samples else [],
    }


def _confusion(result: Result) -> dict[str, Any]:
    """Return the confusion matrix, each cell's share of its row in tenths, and the most frequent confusions."""
    labels, rows = result.metrics["confusion"]["labels"], result.metrics["confusion"]["rows"]
    tenths = [[-(-10 * count // (sum(row) or 1)) for count in row] for row in rows]
    wrong = sorted(
        (-count, labels[gold], labels[predicted])
        for gold, row in enumerate(rows)
        for predicted, count in enumerate(row)
        if count and gold != predicted
    )
    frequent = [(-count, gold, predicted) for count, gold, predicted in wrong[:8]]
    return {"labels": labels, "rows": rows, "tenths": tenths, "wrong": frequent}


def _errors(result: Result, options: ReportOptions) -> list[dict[str, Any]]:
    negative = result.info.get("negative_label") or "no relation"
    samples = sample_errors(result.run.predictions(), options.samples, options.seed)
    return [
        {
            "title": ERROR_KINDS[kind],
            "count": count,
            "errors": [
                {
                    "id": error.id,
                    "parts": mark_arguments(error),
                    "gold": ", ".join(error.gold) or negative,
                    "predicted": ", ".join(error.predicted_labels) or (negative if error.answered else "no answer"),
                    "score": error.score,
                    "answer": error.answer if error.answer != error.predicted else None,
                }
                for error in sample
            ],
        }
        for kind, (count, sample) in samples.items()
        if count
    ]


def _csv(results: Sequence[Result], contents: Iterable[SectionContent]) -> str:
    """Return a CSV file with one row per run, followed by the rows of the sections."""
    rows: list[dict[str, Any]] = []
    for result in results:
        info, metrics = result.info, result.metrics
        row = {name: info.get(name) for name in (*_INFO_COLUMNS, *_SPEED_COLUMNS, "data_sha256")}
        row |= {"source": "run", "name": result.name, **metrics["micro"]}
        row["low"], row["high"] = result.interval
        row |= {name: metrics.get(name) for name in _METRIC_COLUMNS}
        row |= {"ece": (metrics.get("calibration") or {}).get("ece"), "folder": result.run.folder.name}
        row |= {"pairs_per_second": result.pairs_per_second, "caveats": "; ".join(result.caveats)}
        rows.append(row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for content in contents:
        rows += map(dict, content.rows)
    writer.writerows({name: escape_formula(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()
