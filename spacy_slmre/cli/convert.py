"""`python -m spacy slmre convert`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_slmre.cli.app import OverwriteOption, slmre_cli
from spacy_slmre.cli.output import document_progress, print_line, show_errors


@slmre_cli.command("convert")
@show_errors()
def convert_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="File to convert, folder of files (brat, INCEpTION, .spacy), or the id of a dataset on the Hugging "
            "Face hub.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .spacy file to write.")],
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="Format of the input. Default: recognized by its content.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Name of the split. Default: the output's name.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the format. Can be repeated.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="JSONL file for records and pairs that could not be converted.")
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Maximum documents per file. Larger outputs become a folder of files.")
    ] = 20_000,
    lang: Annotated[str, typer.Option(help="Language of the tokenizer, for untokenized inputs.")] = "en",
    overwrite: OverwriteOption = False,
) -> None:
    """Convert exports of annotation tools, or tables, to a .spacy corpus.

    The documents have gold entities and relations. A summary is printed and written next to the output, as
    NAME.summary.json. If the conversion fails, no partial output is left behind.
    """
    from spacy_slmre.corpus.conversion import convert, summary_path
    from spacy_slmre.corpus.formats import get_format, guess_format
    from spacy_slmre.util.settings import check_language

    check_language(lang, "--lang")
    chosen = get_format(format) if format is not None else guess_format(source)
    with document_progress() as progress:
        summary = convert(
            chosen,
            source,
            output,
            split=split or output.stem,
            settings=chosen.parse_settings(dict(map(_parse_setting, settings or ()))),
            rejects=rejects,
            shard_size=shard_size,
            lang=lang,
            overwrite=overwrite,
            progress=progress,
        )
    _show(summary)
    if rejects is not None and summary["rejects"]:
        print_line(f"Rejects:  {rejects}")
    print_line(f"Summary:  {summary_path(output)}")
    print_line(f"Corpus:   {output}")


def _show(summary: Mapping[str, Any]) -> None:
    from spacy_slmre.corpus.summary import summary_rows

    rows = {"format": summary["format"], **summary_rows(summary)}
    if summary["official_instances"] is not None:
        rows["official instances of this split"] = f"{summary['official_instances']:,}"
    rows["rejected"] = f"{sum(summary['rejects'].values()):,}"
    rows |= {f"  {reason}": f"{count:,}" for reason, count in summary["rejects"].items()}
    rows["labels"] = f"{len(summary['labels'])}, the most frequent:"
    rows |= {f"  {label}": f"{count:,}" for label, count in list(summary["labels"].items())[:10]}
    for name, value in rows.items():
        print_line(f"{name:<60} {value}")


def _parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: write NAME=VALUE.")
    return name.strip(), value.strip()
