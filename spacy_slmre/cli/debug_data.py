"""`python -m spacy slmre debug-data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import refuse_options, slmre_cli
from spacy_slmre.cli.output import Terminal, print_json, printable, show_errors

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from spacy_slmre.corpus.summary import Summary
    from spacy_slmre.relations import Relation

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
_MAX_LABELS = 25


@slmre_cli.command("debug-data")
@show_errors()
def debug_data_command(
    ctx: typer.Context,
    corpora: Annotated[
        list[Path], typer.Argument(metavar="TRAIN [DEV] [TEST]", help=".spacy files, or folders of them.")
    ],
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", min=0, help="Show this many random pairs of each corpus in context."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Show only pairs with this label (10 by default).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-V", help="List all labels.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and findings as JSON.")] = False,
) -> None:
    """Check corpora, and show counts and samples.

    Finds duplicates, leaks between corpora, missing and conflicting labels, invalid arguments and imbalance. The exit
    code is 1 if there are errors, and 0 if there are only warnings.
    """
    from spacy_slmre.corpus.checks import check_corpora, sample_pairs

    if as_json:
        refuse_options(ctx, ["samples", "label", "seed", "verbose"], "has no effect with --json.")
    paths = _named(corpora)
    summaries, findings = check_corpora(paths)
    if label is not None and not any(label in summary.labels for summary in summaries.values()):
        known = sorted({name for summary in summaries.values() for name in summary.labels})
        raise ValueError(f'No pair has the label "{label}". The labels are: {", ".join(known)}.')
    console = Terminal()
    if as_json:
        report = {
            "corpora": {name: summary.to_dict() for name, summary in summaries.items()},
            "findings": [finding.to_dict() for finding in findings],
        }
        print_json(report)
    else:
        console.print(_counts_table(summaries))
        console.print(_labels_table(summaries, None if verbose else _MAX_LABELS))
        for name, path in paths.items():
            pairs = sample_pairs(path, samples if samples is not None else 10 * (label is not None), label, seed)
            if pairs and len(paths) > 1:
                console.print(f"{name}:", style="bold")
            for pair in pairs:
                console.print(highlight_pair(pair))
        for finding in findings:
            for number, line in enumerate((f"{finding.level:<8} {finding.message}", *finding.examples)):
                style = "dim" if number else _STYLES[finding.level]
                console.print(" " * 9 * bool(number) + line, style=style, soft_wrap=True)
        if all(finding.level == "info" for finding in findings):
            console.print("No problems found.", style="green")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def highlight_pair(pair: Relation) -> Text:
    """Return the label, head and tail of a pair and its text with both entities in color."""
    from rich.text import Text

    text = Text(printable(pair.head.doc.text))
    for span, style in ((pair.head, "bold cyan"), (pair.tail, "bold magenta")):
        text.stylize(style, span.start_char, span.end_char)
    head, tail, label = map(printable, (pair.head.text, pair.tail.text, pair.label))
    return Text.assemble((label, "bold green"), (f"  {head}", "cyan"), " → ", (tail, "magenta"), "\n  ", text)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    from spacy_slmre.corpus.gold_docs import SPLITS

    if 1 < len(paths) <= len(SPLITS):
        return dict(zip(SPLITS, paths, strict=False))
    stems = [path.stem for path in paths]
    return dict(zip(stems if len(set(stems)) == len(stems) else map(str, paths), paths, strict=True))


def _counts_table(summaries: Mapping[str, Summary]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    from spacy_slmre.corpus.summary import summary_rows

    table = Table("", *summaries, box=SIMPLE)
    columns = [summary_rows(summary.to_dict()) for summary in summaries.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _labels_table(summaries: Mapping[str, Summary], limit: int | None) -> Table:
    from collections import Counter

    from rich.box import SIMPLE
    from rich.table import Table

    total = sum((summary.labels for summary in summaries.values()), Counter[str]())
    hidden = len(total) - len(total.most_common(limit))
    more = f"and {hidden} more labels: list them with --verbose" if hidden else None
    table = Table("label", box=SIMPLE, caption=more, caption_justify="left")
    for name in summaries:
        table.add_column(name, justify="right")
    for label, _ in total.most_common(limit):
        counts = ((summary.labels[label], summary.instances or 1) for summary in summaries.values())
        table.add_row(label, *(f"{count:,} ({count / instances:.1%})" for count, instances in counts))
    return table
