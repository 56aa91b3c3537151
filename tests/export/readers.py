"""Readers of our own exports, for round-trip tests."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import networkx as nx
import rdflib
from pyarrow import parquet
from rdflib import URIRef

from spacy_slmre.documents import EntityMention
from spacy_slmre.export import Edge, EdgeSource, Node
from spacy_slmre.export.edges import mention_node, merged_key
from spacy_slmre.export.rdf import DEFAULT_BASE, LABEL, NIF, PROV, RDF, TYPE, Namespace
from spacy_slmre.export.tables import COLUMNS, MERGED_COLUMNS

_ESCAPED_FORMULA = re.compile("'+[=+\\-@\t\r\n＝＋－＠]")


def read_table(path: Path) -> Iterator[Edge]:
    """Read a `.jsonl`, `.csv` or `.parquet` file."""
    rows = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[path.suffix](path)
    for number, row in enumerate(rows, 1):
        assert list(row) == list(MERGED_COLUMNS if "sources" in row else COLUMNS)
        yield _merged_edge(row) if "sources" in row else _single_edge(row, number)


def read_graphml(path: Path) -> Iterator[Edge]:
    graph = nx.read_graphml(path, force_multigraph=True)

    def node(key: str) -> Node:
        return Node(key, **graph.nodes[key])

    for head, tail, key, data in graph.edges(keys=True, data=True):
        sources = _sources(json.loads(data["sources"]))
        assert data["count"] == len(sources)
        yield Edge(key, node(head), node(tail), data["label"], data["score"], sources)


def read_rdf(path: Path, base: str = DEFAULT_BASE) -> Iterator[Edge]:
    formats = {".nt": "nt", ".ttl": "turtle", ".jsonld": "json-ld"}
    graph = rdflib.Graph()
    with path.open("rb") as stream:
        graph.parse(stream, format=formats[path.suffix])
    term = Namespace(base).term

    def value(subject: Any, predicate: str) -> Any:
        return graph.value(subject, URIRef(predicate))

    def text(subject: Any, predicate: str) -> str:
        return str(value(subject, predicate) or "")

    def bounds(iri: Any) -> tuple[int, int]:
        return int(value(iri, f"{NIF}beginIndex")), int(value(iri, f"{NIF}endIndex"))

    def mention(iri: Any) -> EntityMention:
        # A sentence that consists of a mention without a type has the same IRI and the same values.
        return EntityMention(*bounds(iri), text(iri, f"{NIF}anchorOf"), text(iri, term("type")), text(iri, term("id")))

    def source(node: Any) -> EdgeSource:
        sentence = value(node, f"{PROV}wasDerivedFrom")
        agent = value(node, f"{PROV}wasAttributedTo")
        return EdgeSource(
            text(value(sentence, f"{NIF}referenceContext"), term("name")),
            *bounds(sentence),
            text(sentence, f"{NIF}anchorOf"),
            mention(value(node, term("headMention"))),
            mention(value(node, term("tailMention"))),
            float(value(node, term("score"))),
            text(agent, LABEL) if agent is not None else "",
        )

    def node(iri: Any) -> Node:
        return Node(text(iri, term("key")), text(iri, LABEL), text(iri, term("type")), text(iri, term("id")))

    start = f"{base}statement/"
    for statement in graph.subjects(URIRef(TYPE), URIRef(f"{RDF}Statement")):
        sources = list(graph.objects(statement, URIRef(term("source")))) or [statement]
        yield Edge(
            unquote(str(statement).removeprefix(start)),
            node(value(statement, f"{RDF}subject")),
            node(value(statement, f"{RDF}object")),
            text(statement, LABEL),
            float(value(statement, term("score"))),
            tuple(sorted(map(source, sources), key=lambda found: -found.score)),
        )


def _single_edge(row: dict[str, Any], number: int) -> Edge:
    head, tail = (
        EntityMention(
            int(row[f"{side}_start"]), int(row[f"{side}_end"]), row[side], row[f"{side}_type"], row[f"{side}_id"]
        )
        for side in ("head", "tail")
    )
    document, score = row["document"], float(row["score"])
    bounds = int(row["sentence_start"]), int(row["sentence_end"])
    source = EdgeSource(document, *bounds, row["sentence"], head, tail, score, row["model"])
    nodes = mention_node(document, head), mention_node(document, tail)
    return Edge(f"{document}#{number}", *nodes, row["relation"], score, (source,))


def _merged_edge(row: dict[str, Any]) -> Edge:
    sources = _sources(row["sources"])
    assert int(row["count"]) == len(sources)
    head, tail = (
        Node(row[f"{side}_key"], row[side], row[f"{side}_type"], row[f"{side}_id"]) for side in ("head", "tail")
    )
    key = merged_key(row["head_key"], row["relation"], row["tail_key"])
    return Edge(key, head, tail, row["relation"], float(row["score"]), sources)


def _sources(entries: Iterable[dict[str, Any]]) -> tuple[EdgeSource, ...]:
    return tuple(
        EdgeSource(**{**entry, "head": EntityMention(**entry["head"]), "tail": EntityMention(**entry["tail"])})
        for entry in entries
    )


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as stream:
        yield from map(json.loads, stream)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for cells in csv.DictReader(stream):
            row: dict[str, Any] = {
                name: cell[1:] if _ESCAPED_FORMULA.match(cell) else cell for name, cell in cells.items()
            }
            if "sources" in row:
                row["sources"] = json.loads(row["sources"])
            yield row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
