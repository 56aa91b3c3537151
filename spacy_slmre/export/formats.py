"""The formats of `slmre export`, and one function that writes any of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.edges import DEFAULT_BASE, MERGES, Edge, ExportError, make_edges, merge_edges
from spacy_slmre.export.files import aside
from spacy_slmre.export.neo4j import write_cypher, write_tables
from spacy_slmre.export.peers import write_items, write_rel
from spacy_slmre.export.rdf import (
    Vocabulary,
    describe,
    write_jsonld,
    write_ntriples,
    write_turtle,
)
from spacy_slmre.export.reading import as_documents
from spacy_slmre.export.triples import write_csv, write_jsonl, write_parquet


@dataclass(frozen=True)
class ExportSettings:
    """What to export, and how.

    Attributes:
        merge: Join the relations of all documents: "text", "type", or None; see `merge_edges`.
        min_score: Leave out relations with a lower score.
        labels: Leave out relations with another label; none leaves out nothing.
        base: Of RDF: the IRI that all others begin with.
        properties: Of RDF: properties of labels, as whole IRIs or Wikidata's numbers (P19);
            they come before those that labels of the general schema have.
        model: What found the relations, where the documents do not say.
        lang: Of `rel`: language of the tokenizer.

    Raises:
        ExportError: `merge` is none of these, or `labels` is one string.
    """

    merge: str | None = None
    min_score: float = 0.0
    labels: Collection[str] = ()
    base: str = DEFAULT_BASE
    properties: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    lang: str = "xx"

    def __post_init__(self) -> None:
        if self.merge is not None and self.merge not in MERGES:
            raise ExportError(f'merge="{self.merge}": use one of {", ".join(MERGES)}.')
        if isinstance(self.labels, str):
            raise ExportError(f'labels="{self.labels}": give a list of labels.')


@dataclass
class ExportCounts:
    """What was exported.

    Attributes:
        documents: Documents that were read.
        failed: Documents that had failed in extraction, and have no relations.
        found: Relations that they have.
        written: Relations that were written: less by those left out, and joined if merged.
        left_out: Relations that the settings leave, but that the format cannot say.
    """

    documents: int = 0
    failed: int = 0
    found: int = 0
    written: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        suffix: Ending of its files.
        about: What it is.
        write: Writes a stream of edges (of documents) to a path; gives the number of relations that the
            format cannot say.
        of_documents: It is written from documents, whose entities it names: it holds no merged relations.
    """

    suffix: str
    about: str
    write: Callable[[Path, Iterator[Any], ExportSettings], int | None]
    of_documents: bool = False


def export(
    docs: Doc | Span | RelationDocument | Iterable[Doc | Span | RelationDocument],
    output: str | Path,
    format: str | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> ExportCounts:
    """Write the relations of documents to a file (for "neo4j" a folder) that is complete or absent.

    Args:
        docs: spaCy documents, or those that `read_documents` gives; a stream is read once.
        output: What to write.
        format: A name of `FORMATS`; None goes by the ending.
        settings: What to export, and how.
        overwrite: Replace an output that is there.

    Returns:
        How much was read and written.

    Raises:
        ExportError: The format is unknown or cannot do what is set, the output is there or cannot be
            written, or a package is missing.
    """
    output, settings = Path(output), settings or ExportSettings()
    made = find_format(output, format)
    if settings.merge and made.of_documents:
        raise ExportError(
            f"{made.about} names the entities of one document: it cannot hold merged relations."
        )
    counts = ExportCounts()
    try:
        with aside(output, overwrite=overwrite) as path:
            kept = _kept(as_documents(docs), settings, counts)
            edges = kept if made.of_documents else _edges(kept, settings, counts)
            counts.left_out = made.write(path, edges, settings) or 0
            counts.written -= counts.left_out
    except ModuleNotFoundError as error:
        raise ExportError(
            f"This format needs the package {error.name}, which is missing: pip install 'spacy-slmre[export]'"
        ) from error
    return counts


def find_format(output: Path, name: str | None = None) -> Format:
    """The format of a name, or of the ending of an output.

    Raises:
        ExportError: There is none.
    """
    if name is None:
        by_suffix: dict[str, str] = {}
        for known, format in FORMATS.items():
            by_suffix.setdefault(format.suffix, known)
        name = by_suffix.get(output.suffix) if output.suffix else None
        if name is None:
            raise ExportError(
                f"The ending of {output} tells no format: give --format, one of {', '.join(FORMATS)}."
            )
    if name not in FORMATS:
        raise ExportError(f'Unknown format "{name}": use one of {", ".join(FORMATS)}.')
    return FORMATS[name]


def _kept(
    documents: Iterable[RelationDocument], settings: ExportSettings, counts: ExportCounts
) -> Iterator[RelationDocument]:
    for document in documents:
        counts.documents += 1
        if document.error is not None:
            counts.failed += 1
            continue
        counts.found += len(document.relations)
        relations = tuple(
            one
            for one in document.relations
            if one.score >= settings.min_score and (not settings.labels or one.label in settings.labels)
        )
        counts.written += len(relations)
        yield replace(document, relations=relations, model=document.model or settings.model)


def _edges(
    documents: Iterator[RelationDocument], settings: ExportSettings, counts: ExportCounts
) -> Iterator[Edge]:
    if settings.merge is None:
        return make_edges(documents)
    merged = merge_edges(make_edges(documents), settings.merge)
    counts.written = len(merged)
    return iter(merged)


def _table(write: Callable[..., None]) -> Callable[[Path, Iterator[Any], ExportSettings], None]:
    return lambda path, edges, settings: write(path, edges, merged=settings.merge is not None)


def _rdf(write: Callable[..., None]) -> Callable[[Path, Iterator[Any], ExportSettings], None]:
    def write_rdf(path: Path, edges: Iterator[Any], settings: ExportSettings) -> None:
        vocabulary = Vocabulary(settings.base, settings.properties)
        write(path, describe(edges, vocabulary, merged=settings.merge is not None), vocabulary)

    return write_rdf


def _graphml(path: Path, edges: Iterator[Any], settings: ExportSettings) -> None:
    # Local: NetworkX takes a while to load, and only this needs it.
    from spacy_slmre.export.graphs import write_graphml

    write_graphml(path, edges)


def _cypher(path: Path, edges: Iterator[Any], settings: ExportSettings) -> None:
    write_cypher(path, edges)


def _spacy_llm(path: Path, documents: Iterator[Any], settings: ExportSettings) -> None:
    write_items(path, documents)


def _rel(path: Path, documents: Iterator[Any], settings: ExportSettings) -> int:
    return write_rel(path, documents, settings.lang)


FORMATS = {
    "jsonl": Format(".jsonl", "Triples as JSON lines", _table(write_jsonl)),
    "csv": Format(".csv", "Triples as a table for spreadsheets", _table(write_csv)),
    "parquet": Format(".parquet", "Triples as a Parquet table", _table(write_parquet)),
    "ntriples": Format(".nt", "RDF as N-Triples", _rdf(write_ntriples)),
    "turtle": Format(".ttl", "RDF as Turtle", _rdf(write_turtle)),
    "jsonld": Format(".jsonld", "RDF as JSON-LD", _rdf(write_jsonld)),
    "graphml": Format(".graphml", "GraphML, by NetworkX", _graphml),
    "neo4j": Format("", "A folder of tables for neo4j-admin database import", _table(write_tables)),
    "cypher": Format(".cypher", "A Cypher script", _cypher),
    "spacy-llm": Format(".jsonl", "spacy-llm's RelationItems as JSON lines", _spacy_llm, of_documents=True),
    "rel": Format(".spacy", "The doc._.rel of spaCy's tutorial", _rel, of_documents=True),
}
"""Name of each format, in the order of the help; of two with one ending, the ending means the first."""
