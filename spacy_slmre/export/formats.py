"""The export formats, and a function that writes any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.corpus.rejects import FAILED, check_rejects, rejects_file
from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.annotation_tools import write_doccano, write_label_studio, write_prodigy
from spacy_slmre.export.edges import Edge, ExportError, edges_of
from spacy_slmre.export.graphs import is_neo4j, write_cypher, write_graphml, write_ladybug, write_neo4j
from spacy_slmre.export.rdf import DEFAULT_BASE, Namespace, describe, write_jsonld, write_ntriples, write_turtle
from spacy_slmre.export.reading import as_documents
from spacy_slmre.export.spacy_projects import OVERLAPPING_RELATION, RejectWriter, write_rel, write_relation_items
from spacy_slmre.export.tables import write_csv, write_jsonl, write_parquet
from spacy_slmre.facts import LEVELS, MERGE_BY
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.run_folder import reserve
from spacy_slmre.util.settings import check_choice, check_language, check_types


@dataclass(frozen=True)
class ExportSettings:
    """What to export, and how.

    Attributes:
        level: "mentions" exports relations between mentions, "facts" those between the entities of each document.
        merge: Merge the facts of all documents by "text" or "type", see `merge_edges`; or None.
        min_score: Skip relations with a lower score.
        labels: Skip relations with other labels; empty means all labels.
        base: For RDF: prefix of all IRIs.
        properties: For RDF: properties by label, see `Namespace`.
        model: Name of the model that found the relations, if a document does not contain it.
        lang: For "rel" and "prodigy": language of the tokenizer.

    Raises:
        ExportError: A value has the wrong type or is unknown.
    """

    level: str = LEVELS[0]
    merge: str | None = None
    min_score: float = 0.0
    labels: Collection[str] = ()
    base: str = DEFAULT_BASE
    properties: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    lang: str = "xx"

    def __post_init__(self) -> None:
        check_types(self, "export", ExportError, may_be_empty=("model",))
        check_choice(self, "export", ExportError, level=LEVELS, merge=(None, *MERGE_BY))
        check_language(self.lang, "export.lang", ExportError)

    @property
    def of_facts(self) -> bool:
        """Whether edges join entities, of each document or of all."""
        return self.merge is not None or self.level == "facts"


@dataclass
class ExportCounts:
    """Numbers of documents and relations."""

    documents: int = 0  # read
    found: int = 0  # relations read
    labels: set[str] = field(default_factory=set)  # their labels
    written: int = 0  # relations written, after filtering and merging
    # What is not in the output, by reason: documents that failed, and what the format cannot represent.
    rejects: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ExportFormat:
    """An export format; `write` rejects what it cannot represent."""

    suffix: str
    description: str
    write: Callable[[Path, Iterator[Any], ExportSettings, RejectWriter], None]
    # Whether `write` takes documents instead of edges; then relations are those between mentions.
    of_documents: bool = False
    is_folder: bool = False
    # Settings that only some formats have.
    settings: tuple[str, ...] = ()


def export(
    docs: Doc | Span | RelationDocument | Iterable[Doc | Span | RelationDocument],
    output: str | Path,
    format: str | None = None,
    settings: ExportSettings | None = None,
    *,
    inputs: Iterable[str] = (),
    rejects: str | Path | None = None,
    overwrite: bool = False,
) -> ExportCounts:
    """Write the relations of documents to a file, or for "neo4j" to a folder, and count them.

    Args:
        docs: spaCy documents, or those returned by `read_documents`; they are iterated over once.
        output: File or folder to write. After an error, no partial output is left behind.
        format: A name in `FORMATS`; None chooses by the suffix of the output.
        settings: What to export, and how.
        inputs: Files and folders that the documents are read from, which the output must not replace.
        rejects: JSONL file for the documents that failed, and for the entities and relations that the format cannot
            represent.
        overwrite: Replace an existing output.

    Raises:
        ExportError: The format is unknown or does not support a setting, or a package is missing.
        OutputError: The output exists or cannot be written.
    """
    output, settings = Path(output), settings or ExportSettings()
    chosen = find_format(output, format)
    if settings.of_facts and chosen.of_documents:
        kind = "merged relations" if settings.merge else "facts"
        raise ExportError(f"{chosen.description} does not support {kind}: it contains relations between mentions.")
    counts, inputs = ExportCounts(), list(inputs)
    reserved = reserve(
        output,
        inputs=inputs,
        overwrite=overwrite,
        kind="folder" if chosen.is_folder else "file",
        is_replaceable=is_neo4j,
    )
    with reserved, reserve(*([] if rejects is None else [Path(rejects)]), inputs=[*inputs, output]):
        if rejects is not None and not overwrite:
            check_rejects(rejects)
        with rejects_file(rejects) as write_reject, temporary_output(output) as path:

            def reject(id: str, reason: str, detail: str) -> None:
                counts.rejects[reason] += 1
                write_reject({"id": id, "reason": reason, "detail": detail})

            selected = _select(as_documents(docs), settings, counts, reject)
            items = _counted(
                selected if chosen.of_documents else edges_of(selected, settings.level, settings.merge), counts
            )
            chosen.write(path, items, settings, reject)
            counts.written -= counts.rejects[OVERLAPPING_RELATION]
    return counts


def find_format(output: Path, name: str | None = None) -> ExportFormat:
    """Return a format by its name or, without a name, by the suffix of an output. Raises ExportError if unknown."""
    if name is None:
        matching = [known for known, format in FORMATS.items() if format.suffix == output.suffix != ""]
        if not matching:
            raise ExportError(f"The suffix of {output} matches no format. Choose a format: {', '.join(FORMATS)}.")
        name = matching[0]
    if name not in FORMATS:
        raise ExportError(f'Unknown format "{name}". Use one of {", ".join(FORMATS)}.')
    return FORMATS[name]


def _select(
    documents: Iterable[RelationDocument], settings: ExportSettings, counts: ExportCounts, reject: RejectWriter
) -> Iterator[RelationDocument]:
    for document in documents:
        counts.documents += 1
        if document.error is not None:
            reject(document.id, FAILED, document.error)
            continue
        counts.found += len(document.relations)
        counts.labels.update(relation.label for relation in document.relations)
        relations = tuple(
            rel
            for rel in document.relations
            if rel.score >= settings.min_score and (not settings.labels or rel.label in settings.labels)
        )
        yield replace(document, relations=relations, model=document.model or settings.model)


def _counted(items: Iterable[Any], counts: ExportCounts) -> Iterator[Any]:
    for item in items:
        counts.written += len(item.relations) if isinstance(item, RelationDocument) else 1
        yield item


def _edge_format(suffix: str, description: str, write: Callable[..., None]) -> ExportFormat:
    def run(path: Path, edges: Iterator[Edge], settings: ExportSettings, _: RejectWriter) -> None:
        write(path, edges, merged=settings.of_facts)

    return ExportFormat(suffix, description, run)


def _rdf_format(suffix: str, description: str, write: Callable[..., None]) -> ExportFormat:
    def run(path: Path, edges: Iterator[Edge], settings: ExportSettings, _: RejectWriter) -> None:
        namespace = Namespace(settings.base, settings.properties)
        write(path, describe(edges, namespace, merged=settings.of_facts), namespace)

    return ExportFormat(suffix, description, run, settings=("base", "properties"))


FORMATS = {
    "jsonl": _edge_format(".jsonl", "Rows as JSON lines", write_jsonl),
    "csv": _edge_format(".csv", "A table for spreadsheets", write_csv),
    "parquet": _edge_format(".parquet", "A Parquet table", write_parquet),
    "ntriples": _rdf_format(".nt", "RDF as N-Triples", write_ntriples),
    "turtle": _rdf_format(".ttl", "RDF as Turtle", write_turtle),
    "jsonld": _rdf_format(".jsonld", "RDF as JSON-LD", write_jsonld),
    "graphml": _edge_format(".graphml", "GraphML", write_graphml),
    "neo4j": replace(
        _edge_format("", "A folder of tables for neo4j-admin database import", write_neo4j), is_folder=True
    ),
    "cypher": ExportFormat(".cypher", "A Cypher script", lambda path, edges, *_: write_cypher(path, edges)),
    "ladybug": _edge_format(".lbug", "A Ladybug database", write_ladybug),
    "spacy-llm": ExportFormat(
        ".jsonl",
        "The format of spacy-llm's examples",
        lambda path, documents, *_: write_relation_items(path, documents),
        of_documents=True,
    ),
    "rel": ExportFormat(
        ".spacy",
        "The doc._.rel of spaCy's tutorial",
        lambda path, documents, settings, reject: write_rel(path, documents, settings.lang, reject),
        of_documents=True,
        settings=("lang",),
    ),
    # Without a suffix of its own: .json would be taken for our own form.
    "label-studio": ExportFormat(
        "",
        "Pre-annotations for Label Studio",
        lambda path, documents, *_: write_label_studio(path, documents),
        of_documents=True,
    ),
    "prodigy": ExportFormat(
        ".jsonl",
        "Pre-annotations for Prodigy",
        lambda path, documents, settings, reject: write_prodigy(path, documents, settings.lang, reject),
        of_documents=True,
        settings=("lang",),
    ),
    "doccano": ExportFormat(
        ".jsonl",
        "Pre-annotations for doccano",
        lambda path, documents, *_: write_doccano(path, documents),
        of_documents=True,
    ),
}
"""The formats by name, in the order of the help text. The first one with a suffix is the default for that suffix."""
