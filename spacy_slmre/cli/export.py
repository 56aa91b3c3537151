"""`python -m spacy slmre export`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import OverwriteOption, refuse_options, slmre_cli
from spacy_slmre.cli.output import document_progress, log, show_errors, standard_input

if TYPE_CHECKING:
    from spacy_slmre.documents import RelationDocument

# Repeated here because `--help` must not import the formats; a test compares them.
FORMATS = (
    "jsonl, csv, parquet (tables); ntriples, turtle, jsonld (RDF); graphml; neo4j (a folder of tables), "
    "cypher, ladybug (a database); spacy-llm, rel (formats of other spaCy projects); label-studio, prodigy, "
    "doccano (pre-annotations)"
)

InputArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="JSONL files written by slmre extract, .spacy files, folders of .spacy files, or - for JSONL "
        "from standard input.",
        show_default=False,
    ),
]
MinScoreOption = Annotated[float, typer.Option(help="Minimum score of relations.")]
LabelOption = Annotated[
    list[str] | None, typer.Option(help="Only relations with this label. Can be repeated.", show_default=False)
]
AttrOption = Annotated[str, typer.Option(help="For .spacy files: the attribute doc._.ATTR with the relations.")]


@slmre_cli.command("export")
@show_errors()
def export_command(
    ctx: typer.Context,
    inputs: InputArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, or folder for neo4j.")],
    format: Annotated[
        str | None, typer.Option("--format", "-f", help=f"{FORMATS}. Default: by the output's suffix.")
    ] = None,
    level: Annotated[
        str, typer.Option(help="What relations join: mentions, or the entities of each document (facts).")
    ] = "mentions",
    merge: Annotated[
        str | None,
        typer.Option(
            help="Merge the facts of all documents. Entities are the same if they share a kb_id or have the same name "
            "(text), or the same name and type (type)."
        ),
    ] = None,
    min_score: MinScoreOption = 0.0,
    label: LabelOption = None,
    base: Annotated[str, typer.Option(help="For RDF: prefix of all IRIs.")] = "urn:slmre:",
    properties: Annotated[
        Path | None,
        typer.Option(
            help="For RDF: JSON file that maps labels to properties (IRIs or Wikidata ids such as P19). Labels of "
            "the general schema have Wikidata properties by default."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Name of the model that predicted the relations, for inputs that do not record it.")
    ] = "",
    attr: AttrOption = "relations",
    lang: Annotated[str, typer.Option(help="For rel and prodigy: language of the tokenizer.")] = "xx",
    rejects: Annotated[
        Path | None,
        typer.Option(
            help="JSONL file for documents that failed in extraction, and for entities and relations that the format "
            "cannot represent."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Export relations to tables, RDF, graphs or annotation tools.

    Documents are streamed, except with --format rel or --merge, which keep all relations in memory.
    """
    from spacy_slmre.export import ExportSettings, export, read_documents
    from spacy_slmre.export.formats import find_format
    from spacy_slmre.export.reading import input_files
    from spacy_slmre.export.spacy_projects import OVERLAPPING_RELATION

    unused = {"base", "properties", "lang"} - {*find_format(output, format).settings}
    refuse_options(ctx, sorted(unused), "has no effect with this format.")
    settings = ExportSettings(
        level=level,
        merge=merge,
        min_score=min_score,
        labels=frozenset(label or ()),
        base=base,
        properties=_read_properties(properties),
        model=model,
        lang=lang,
    )
    documents = _with_progress(read_documents(inputs, standard_input(inputs), attr=attr))
    sources = [*inputs, *input_files(inputs), *filter(None, [properties])]
    counts = export(documents, output, format, settings, inputs=map(str, sources), rejects=rejects, overwrite=overwrite)
    written = f"{counts.written} " + ("facts" if settings.of_facts else "relations")
    log(f"{counts.documents} documents with {counts.found} relations → {written} in {output}")
    if counts.rejects:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.rejects.items())
        log(f"Not exported: {reasons}" + ("" if rejects is None else f" (listed in {rejects})"))
    if counts.found:
        log_unknown_labels(label or (), counts.labels)
    if not counts.found:
        log("The input has no relations, so the output has none.")
    elif not counts.written + counts.rejects[OVERLAPPING_RELATION]:
        log("No relation matches the minimum score and the labels, so the output has none.")


def log_unknown_labels(chosen: Iterable[str], known: Collection[str]) -> None:
    """Report chosen labels that no relation has, which may be misspelled."""
    if unknown := [label for label in chosen if label not in known]:
        log(f"No relation has the label {', '.join(unknown)}. The labels of the input: {', '.join(sorted(known))}.")


def _with_progress(documents: Iterable[RelationDocument]) -> Iterator[RelationDocument]:
    relations = 0
    with document_progress(relations=True) as update:
        for number, document in enumerate(documents, 1):
            relations += len(document.relations)
            update(number, relations=relations)
            yield document


def _read_properties(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        properties = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(properties, dict):
        raise ValueError(f'{path}: expected a JSON object of properties by label, for example {{"spouse": "P26"}}.')
    return properties
