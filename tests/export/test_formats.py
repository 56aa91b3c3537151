from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
import rdflib
from rdflib import OWL, RDF, URIRef

from spacy_slmre.export import ExportError, ExportSettings, export
from spacy_slmre.util.errors import OutputError
from tests.relation_documents import make_document

DOCUMENT = make_document("a", ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "in", 0.5)])


def test_existing_outputs_are_kept_unless_they_may_be_replaced(tmp_path: Path) -> None:
    file, folder, pipe = tmp_path / "out.csv", tmp_path / "folder", tmp_path / "pipe"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        export(DOCUMENT, file)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="will not be replaced"):
        export(DOCUMENT, folder, "neo4j", overwrite=True)
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="neither a file nor a folder"):
        export(DOCUMENT, pipe, "csv", overwrite=True)
    assert file.read_text(encoding="utf-8") == "mine" and pipe.is_fifo()
    export(DOCUMENT, file, overwrite=True)
    assert "Ann" in file.read_text(encoding="utf-8")


def test_failed_export_keeps_the_old_folder(tmp_path: Path) -> None:
    output = tmp_path / "graph"
    export(DOCUMENT, output, "neo4j")
    before = (output / "nodes.csv").read_bytes()
    with pytest.raises(ValueError, match="Expected a Doc"):
        export([DOCUMENT, 3], output, "neo4j", overwrite=True)  # type: ignore[list-item]
    assert (output / "nodes.csv").read_bytes() == before
    assert os.listdir(tmp_path) == ["graph"]


SYMMETRIC = replace(
    make_document(
        "a",
        ["Ann", "Bo", "Cy", "ann"],
        ["PER"] * 4,
        [
            (0, 1, "spouse", 0.5),
            (1, 0, "spouse", 0.5),
            (1, 3, "spouse", 0.4),
            (2, 0, "child", 0.7),
            (0, 2, "parent", 0.7),
        ],
    ),
    inverse_of={"spouse": "spouse", "child": "parent"},
)


@pytest.mark.parametrize("level", ["mentions", "facts"])
def test_symmetric_and_inverse_relations_are_written_once(tmp_path: Path, level: str) -> None:
    settings = ExportSettings(level=level)
    n_edges = {"mentions": 3, "facts": 2}[level]
    counts = export(SYMMETRIC, tmp_path / "out.csv", settings=settings)
    assert (counts.found, counts.written) == (5, n_edges)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["head"], row["relation"], row["tail"]) for row in rows if row["relation"] != "spouse"] == [
        ("Ann", "parent", "Cy")
    ]
    assert {(row["relation"], row["inverse"]) for row in rows} == {("spouse", "spouse"), ("parent", "child")}
    assert [row.get("count") for row in rows if row["relation"] == "spouse"] == (
        [None, None] if level == "mentions" else ["2"]
    )
    export(SYMMETRIC, tmp_path / "out.graphml", settings=settings)
    graph = nx.read_graphml(tmp_path / "out.graphml", force_multigraph=True)
    symmetric = sorted(data["symmetric"] for *_, data in graph.edges(data=True))
    assert symmetric == [False, *[True] * (n_edges - 1)]
    export(SYMMETRIC, tmp_path / "neo4j", "neo4j", settings)
    assert "symmetric:boolean" in (tmp_path / "neo4j" / "relationships.csv").read_text(encoding="utf-8")
    assert ",true," in (tmp_path / "neo4j" / "relationships.csv").read_text(encoding="utf-8")
    export(SYMMETRIC, tmp_path / "out.cypher", settings=settings)
    assert "symmetric: true" in (tmp_path / "out.cypher").read_text(encoding="utf-8")


@pytest.mark.parametrize("level", ["mentions", "facts"])
def test_rdf_states_both_directions_in_one_statement(tmp_path: Path, level: str) -> None:
    export(SYMMETRIC, tmp_path / "out.ttl", settings=ExportSettings(level=level))
    graph = rdflib.Graph().parse(tmp_path / "out.ttl")
    parent = URIRef("urn:slmre:relation/parent")
    child = URIRef("http://www.wikidata.org/prop/direct/P40")
    n_spouses = {"mentions": 2, "facts": 1}[level]
    (spouse,) = graph.subjects(RDF.type, OWL.SymmetricProperty)
    assert len(list(graph.triples((None, spouse, None)))) == 2 * n_spouses
    assert {(tail, head) for head, tail in graph.subject_objects(parent)} == set(graph.subject_objects(child))
    assert (child, OWL.inverseOf, parent) in graph
    assert len(list(graph.subjects(RDF.type, RDF.Statement))) == n_spouses + 1


def test_formats_of_other_tools_have_relations_between_mentions_only(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not support facts: it contains relations between mentions"):
        export(DOCUMENT, tmp_path / "out", "doccano", ExportSettings(level="facts"))
    with pytest.raises(ExportError, match='must be one of "mentions", "facts"'):
        ExportSettings(level="entities")


def test_labels_must_be_a_list() -> None:
    with pytest.raises(ExportError, match="must be a list of texts"):
        ExportSettings(labels="born in")
