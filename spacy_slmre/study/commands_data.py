"""Study commands for data: benchmarks, convert-all, mix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli.app import OverwriteOption
from spacy_slmre.cli.output import Terminal, console, document_progress, log, print_json, print_line, show_errors

if TYPE_CHECKING:
    from rich.table import Table

BenchmarkOption = Annotated[
    list[str] | None, typer.Option("--benchmark", "-b", help="Only this benchmark; can be repeated.")
]


@show_errors()
def benchmarks_command(
    name: Annotated[str | None, typer.Argument(help="Show the whole card of this benchmark.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the benchmarks, or show the card of one."""
    from spacy_slmre.study.benchmarks.card import all_benchmarks, get_benchmark

    output = Terminal()
    if name is None:
        cards = [card.to_dict() for card in all_benchmarks().values()]
        if as_json:
            print_json(cards)
        else:
            output.print(_list_cards(cards))
            output.print("One card in full: python -m spacy slmre study benchmarks NAME", style="dim")
        return
    card = get_benchmark(name).to_dict()
    if as_json:
        print_json(card)
    else:
        for table in _show_card(card):
            output.print(table)


def _list_cards(cards: list[dict[str, Any]]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    from spacy_slmre.corpus.gold_docs import SPLITS

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("name", "domain"):
        table.add_column(column, no_wrap=True)
    for column in ("labels", *SPLITS):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("license", overflow="ellipsis", no_wrap=True, max_width=18)
    for card in cards:
        labels = str(len(card["schema"]["labels"])) if card["schema"] else "any"
        sizes = [f"{card['splits'][split]:,}" if split in card["splits"] else "" for split in SPLITS]
        table.add_row(card["name"], card["domain"], labels, *sizes, card["license"])
    return table


def _show_card(card: Mapping[str, Any]) -> list[Table]:
    from rich.table import Table

    facts = Table(box=None, show_header=False, padding=(0, 1))
    facts.add_column(style="bold", no_wrap=True)
    for key in ("name", "title", "domain", "task", "direction", "citation", "license", "obtain"):
        facts.add_row(key, card[key])
    facts.add_row("redistributable", "yes" if card["redistributable"] else "no")
    facts.add_row("instances", ", ".join(f"{split} {count:,}" for split, count in card["splits"].items()))
    files = [f"{split} {card['folder']}/{file}" for split, file in card["files"].items()]
    facts.add_row("files", ", ".join(files))
    for split, url in card["urls"].items():
        facts.add_row("url", f"{split}: {url}")
    for key, value in card["settings"].items():
        facts.add_row("setting", f"{key} (default {'none' if value in (None, '') else value})")
    for note in card["notes"]:
        facts.add_row("note", note)
    facts.add_row("converter", card["converter"])
    if not card["schema"]:
        return [facts]
    labels = Table("label", "wording", "definition")
    for label in card["schema"]["labels"]:
        labels.add_row(label["name"], label["wording"], label["definition"])
    return [facts, labels]


@show_errors()
def convert_all_command(
    raw: Annotated[list[Path], typer.Argument(help="Folders of raw data: BENCHMARK/FILE, named as published.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: BENCHMARK/SPLIT.spacy.")],
    benchmark: BenchmarkOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert all benchmark files in folders of raw data, with default settings.

    Rejected records are listed next to each corpus, in SPLIT.rejects.jsonl. Files that are already converted are
    skipped. If a file fails, the others are still converted, and the exit code is 1.
    """
    from spacy_slmre.corpus.conversion import convert
    from spacy_slmre.corpus.sources import CorpusError
    from spacy_slmre.study.benchmarks.card import find_sources

    sources = [source for folder in raw for source in find_sources(folder, benchmark or ())]
    if not sources:
        wanted = f" of {', '.join(benchmark)}" if benchmark else ""
        raise CorpusError(
            f"There is no file{wanted} in {', '.join(map(str, raw))}. To see which files are needed, run: "
            "python -m spacy slmre study benchmarks NAME"
        )
    failed = 0
    for card, split, path in sources:
        corpus = output / card.name / f"{split}.spacy"
        rejects = corpus.with_suffix(".rejects.jsonl")
        try:
            with document_progress() as progress:
                summary = convert(
                    card, path, corpus, split=split, rejects=rejects, overwrite=overwrite, progress=progress
                )
        except (ValueError, OSError) as error:
            failed += 1
            log(f"{card.name} {split}: {error}")
            continue
        rejected = sum(summary["rejects"].values())
        counts = f"{summary['documents']:>9,} documents {summary['instances']:>9,} pairs"
        counts += f" {summary['negatives']:>9,} negatives {rejected:>7,} rejected"
        print_line(f"{card.name:<20} {split:<7} {counts}")
    print_line(f"Corpora:  {output}")
    if failed:
        raise CorpusError(f"{failed} of {len(sources)} files could not be converted.")


@show_errors()
def mix_command(
    config: Annotated[Path, typer.Argument(help="What to mix; see configs/mixtures.")],
    corpora: Annotated[Path, typer.Argument(help="Folder of converted benchmarks: BENCHMARK/SPLIT.spacy.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write (.json).")],
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Skip benchmarks that are not converted.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Sample a mixture of benchmarks and write its manifest; no data are copied."""
    from spacy_slmre.study.mixtures import Mixture, make_manifest
    from spacy_slmre.util.errors import OutputError
    from spacy_slmre.util.io import atomic_write
    from spacy_slmre.util.run_folder import reserve

    mixture = Mixture.from_file(config)
    splits = [corpora / name for name in mixture.benchmarks]
    with reserve(output, inputs=[config, *splits]):
        with console.status("Counting and hashing corpora"):
            manifest = make_manifest(mixture, corpora, skip_missing=skip_missing)
        content = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        unchanged = output.exists() and output.read_bytes() == content.encode()
        if output.exists() and not unchanged and not overwrite:
            raise OutputError(f"{output} already exists with other content. Replace it with --overwrite.")
        if not unchanged:
            atomic_write(output, content)
    _show_manifest(manifest)
    print_line(f"Manifest: {output}{' (unchanged)' * unchanged}")


def _show_manifest(manifest: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table("split", "benchmark", "domain", "pairs", "of", "documents")
    for split, content in manifest["splits"].items():
        for source in content["sources"]:
            sample, available = source["sample"], source["available"]
            counts = (f"{count:,}" for count in (sample["pairs"], available["pairs"], sample["documents"]))
            table.add_row(split, source["benchmark"], source["domain"], *counts)
        table.add_section()
    console.print(table)
    for split, content in manifest["splits"].items():
        log(f"{split}: {content['pairs']:,} pairs in {content['documents']:,} documents")
        for source in content["sources"]:
            if (excluded := source.get("excluded")) is not None:
                log(f"  {source['benchmark']}: {_describe_dev_for_training(excluded)}")
        if content["missing"]:
            log(f"  missing: {', '.join(content['missing'])}")


def _describe_dev_for_training(excluded: Mapping[str, Any]) -> str:
    message = "its dev split is used for training"
    if excluded["test"] is None:
        return f"{message}; its test split is not converted, so no document is excluded"
    return f"{message}, without {len(excluded['positions']):,} documents that also occur in its test split"
