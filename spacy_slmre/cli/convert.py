"""`python -m spacy slmre convert`: a benchmark's file to a spaCy corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import show_errors

if TYPE_CHECKING:
    from spacy_slmre.study.benchmarks.card import Benchmark


@slmre_cli.command("convert")
@show_errors()
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
    from spacy_slmre.corpus.conversion import summary_path
    from spacy_slmre.study.benchmarks.card import get_benchmark

    card = get_benchmark(benchmark)
    values = card.parse_settings(dict(_setting(text) for text in settings or ()))
    summary = _convert(
        card,
        source,
        output,
        split=split or output.stem,
        settings=values,
        rejects=rejects,
        shard_size=shard_size,
        lang=lang,
    )
    _show(summary)
    if rejects is not None and summary["rejects"]:
        print(f"Rejects:  {rejects}")
    print(f"Summary:  {summary_path(output)}")
    print(f"Corpus:   {output}")


@slmre_cli.command("convert-all")
@show_errors()
def convert_all_cli(
    raw: Annotated[
        list[Path], typer.Argument(help="Folders of raw data: BENCHMARK/FILE, named as published.")
    ],
    corpora: Annotated[Path, typer.Argument(help="Folder to write to: BENCHMARK/SPLIT.spacy.")],
    only: Annotated[
        list[str] | None, typer.Option(help="Convert this benchmark only; may be given several times.")
    ] = None,
) -> None:
    """Convert every file of every benchmark that lies in a folder of raw data, with default settings.

    Rejects are listed beside each corpus, as SPLIT.rejects.jsonl. A benchmark that fails does not stop the
    others, but makes the exit code 1.
    """
    from spacy_slmre.cli.output import log
    from spacy_slmre.corpus.sources import CorpusError
    from spacy_slmre.study.benchmarks.card import find_sources

    sources = [source for folder in raw for source in find_sources(folder, only or ())]
    if not sources:
        wanted = f" of {', '.join(only)}" if only else ""
        raise CorpusError(
            f"No file{wanted} lies in {', '.join(map(str, raw))}. What to get, and where to put it: "
            "python -m spacy slmre benchmarks NAME"
        )
    failed = 0
    for card, split, path in sources:
        output = corpora / card.name / f"{split}.spacy"
        try:
            summary = _convert(card, path, output, split=split, rejects=output.with_suffix(".rejects.jsonl"))
        except (ValueError, OSError) as error:
            failed += 1
            log(f"{card.name} {split}: {error}")
            continue
        rejected = sum(summary["rejects"].values())
        counts = f"{summary['documents']:>9,} documents {summary['instances']:>9,} pairs"
        counts += f" {summary['negatives']:>9,} negatives {rejected:>7,} rejected"
        print(f"{card.name:<20} {split:<7} {counts}")
    print(f"Corpora:  {corpora}")
    if failed:
        raise CorpusError(f"{failed} of {len(sources)} files could not be converted.")


def _convert(card: Benchmark, source: str | Path, output: Path, **options: Any) -> dict[str, Any]:
    """Convert one file and show how far it is."""
    from spacy_slmre.cli.output import document_progress
    from spacy_slmre.corpus.conversion import convert

    with document_progress() as progress:
        return convert(card, source, output, progress=progress, **options)


def _show(summary: Mapping[str, Any]) -> None:
    from spacy_slmre.corpus.summary import summary_rows

    rows = summary_rows(summary)
    if summary["official_instances"] is not None:
        rows.insert(2, ("official instances of this split", f"{summary['official_instances']:,}"))
    rows += [(f"  {reason}", f"{count:,}") for reason, count in summary["rejects"].items()]
    rows.append(("labels", f"{len(summary['labels'])}, the most frequent:"))
    rows += [(f"  {label}", f"{count:,}") for label, count in list(summary["labels"].items())[:10]]
    for name, value in rows:
        print(f"{name:<60} {value}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: write NAME=VALUE.")
    return name.strip(), value.strip()
