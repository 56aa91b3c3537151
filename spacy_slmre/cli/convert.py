"""`python -m spacy slmre convert`: a benchmark's file to a spaCy corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import failing_clearly


@slmre_cli.command("convert")
@failing_clearly()
def convert_cli(
    benchmark: Annotated[str, typer.Argument(help="Name of the benchmark; see: slmre benchmarks.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="File of one split; for rows also a hub id.")
    ],
    output: Annotated[Path, typer.Argument(help="The .spacy file to write.")],
    split: Annotated[
        str | None, typer.Option(help="Name of the split; if not given, the output's name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the converter; see: slmre benchmarks NAME."
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="List what could not be converted in this file (JSON lines).")
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Most documents in one file; more become a folder of files.")
    ] = 20_000,
    lang: Annotated[str, typer.Option(help="Language of the tokenizer, for sources without tokens.")] = "en",
) -> None:
    """Convert one split of a benchmark to spaCy documents with gold entities and relations.

    A summary is printed and written beside the output, as NAME.summary.json. An output is complete or
    absent.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from spacy_slmre.corpora.benchmark import get_benchmark
    from spacy_slmre.corpora.conversion import convert, summary_path
    from spacy_slmre.corpora.summary import summary_rows

    card = get_benchmark(benchmark)
    values = card.parse_settings(dict(_setting(text) for text in settings or ()))
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} documents"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        summary = convert(
            card,
            source,
            output,
            split=split or output.stem,
            settings=values,
            rejects=rejects,
            shard_size=shard_size,
            lang=lang,
            progress=lambda done: progress.update(task, completed=done),
        )
    rows = summary_rows(summary)
    if summary["official_instances"] is not None:
        rows.insert(2, ("official instances of this split", f"{summary['official_instances']:,}"))
    for name, value in rows:
        console.print(f"{name:<40} {value}", highlight=False)
    for reason, count in summary["rejects"].items():
        console.print(f"  {reason:<38} {count:,}", style="yellow", highlight=False)
    console.print(f"{len(summary['labels'])} labels, the most frequent:", highlight=False)
    for label, count in list(summary["labels"].items())[:10]:
        console.print(f"  {label:<60} {count:>8,}", markup=False, highlight=False)
    if rejects is not None and summary["rejects"]:
        print(f"Rejects:  {rejects}")
    print(f"Summary:  {summary_path(output)}")
    print(f"Corpus:   {output}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: write NAME=VALUE.")
    return name.strip(), value.strip()
