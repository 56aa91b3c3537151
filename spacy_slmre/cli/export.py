"""`python -m spacy slmre export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import document_progress, log, show_errors

if TYPE_CHECKING:
    from spacy_slmre.export import RelationDocument

# Named here as well, since `--help` imports nothing heavy; a test holds them together.
FORMATS = (
    "jsonl, csv, parquet (triples); ntriples, turtle, jsonld (RDF); graphml; neo4j (folder of tables), "
    "cypher; spacy-llm, rel (of other spaCy projects)"
)


@slmre_cli.command("export")
def export_command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN",
            help="JSONL of slmre extract, .spacy files, folders of these, or - for standard input.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File (for neo4j: folder) to write.")],
    format: Annotated[
        str | None, typer.Option("--format", "-f", help=f"{FORMATS}. Without it, the output's ending tells.")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            help="Join the relations of all documents: text (entities of equal text or kb_id), or type (of "
            "equal type as well)."
        ),
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out relations with a lower score.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option(help="Only relations of this label; may be given several times.")
    ] = None,
    base: Annotated[str, typer.Option(help="Of RDF: the IRI that all others begin with.")] = "urn:slmre:",
    properties: Annotated[
        Path | None,
        typer.Option(
            help="Of RDF: JSON file of properties by label: IRIs, or Wikidata's numbers (P19). They come "
            "before those that labels of the general schema have."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="What found the relations, where the input does not say.")] = "",
    attr: Annotated[
        str, typer.Option(help="In .spacy files: the relations lie in doc._.ATTR.")
    ] = "relations",
    lang: Annotated[str, typer.Option(help="Of rel: language of the tokenizer.")] = "xx",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
) -> None:
    """Write relations for other tools.

    Documents stream, but for graphml, rel and --merge, which hold all relations in memory. An output is
    complete or absent.
    """
    with show_errors():
        from spacy_slmre.export import ExportSettings, export, read_documents
        from spacy_slmre.export.files import check_inputs

        settings = ExportSettings(
            merge=merge,
            min_score=min_score,
            labels=frozenset(label or ()),
            base=base,
            properties=_read_properties(properties),
            model=model,
            lang=lang,
        )
        check_inputs(output, inputs)
        documents = _shown(read_documents(inputs, sys.stdin.buffer, attr=attr))
        counts = export(documents, output, format, settings, overwrite=overwrite)
        kept = f"{counts.written} relations" + (" after merging" if merge else "")
        log(f"{counts.documents} documents with {counts.found} relations → {kept} in {output}")
        if counts.failed:
            log(f"{counts.failed} documents had failed in extraction and have no relations.")
        if counts.left_out:
            log(
                f"{counts.left_out} relations are left out: their arguments overlap with other entities, "
                "which this format cannot say."
            )
        if not counts.found:
            log("The input has no relations: the output is empty.")
        elif not counts.written + counts.left_out:
            log("--min-score and --label leave no relation: the output is empty.")


def _shown(documents: Iterable[RelationDocument]) -> Iterator[RelationDocument]:
    relations = 0
    with document_progress(relations=True) as progress:
        for number, document in enumerate(documents, 1):
            relations += len(document.relations)
            progress(number, relations=relations)
            yield document


def _read_properties(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        properties = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}).") from error
    if not isinstance(properties, dict):
        raise ValueError(f'{path}: expected an object of properties by label, such as {{"spouse": "P26"}}.')
    return properties
