"""Exports are loaded into real databases, and queried there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import ladybug
import networkx as nx
import pyoxigraph
import pytest
from hypothesis import given, settings
from typer.testing import CliRunner

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export import Edge, ExportError, ExportSettings, export, make_edges, merge_edges, to_networkx
from spacy_slmre.export.graphs import relationship_properties
from spacy_slmre.util.extras import MissingExtraError
from tests.relation_documents import documents, hostile_document, make_document

DOCS = [
    make_document(
        "a", ["Ann Lee", "Rome", "Bo"], ["PER", "LOC", "PER"], [(0, 1, "born in", 0.9), (0, 2, "knows", 0.5)]
    ),
    make_document("b", ["Bo", "Rome"], ["PER", "LOC"], [(0, 1, "born in", 0.8), (0, 1, "Born In", 0.25)]),
    hostile_document(),
    make_document(
        "c", ["x" * 5000, "y"], ["PER", "LOC"], [(0, 1, "Entity", 0.5), (1, 1, "entity_", 1.0), (0, 1, " ", 0)]
    ),
]
QUERY = "MATCH (a:Entity)-[r]->(b:Entity) RETURN a.id, r.key, r.label, r.score, r.count, r.symmetric, r.sources, b.id"
NODES = "MATCH (n:Entity) RETURN n.id, n.text, n.type, n.kb_id"


def expected_rows(edges: Iterable[Edge]) -> list[tuple]:
    rows = []
    for edge in edges:
        values = relationship_properties(edge)
        keys = ("key", "label", "score", "count", "symmetric", "sources")
        rows.append((edge.head.key, *(values[key] for key in keys), edge.tail.key))
    return sorted(rows)


def expected_nodes(edges: Iterable[Edge]) -> list[tuple]:
    nodes = {node.key: (node.key, node.text, node.type, node.kb_id) for e in edges for node in (e.head, e.tail)}
    return sorted(nodes.values())


def expected_edges(docs: list[RelationDocument], merge: str | None) -> list[Edge]:
    return list(make_edges(docs)) if merge is None else merge_edges(docs, merge)


@contextmanager
def open_ladybug(path: Path) -> Iterator[Any]:
    with ladybug.Database(path, read_only=path.exists()) as database, ladybug.Connection(database) as connection:
        yield lambda query: sorted(tuple(row) for row in connection.execute(query).get_all())


def run_cypher(script: Path, times: int, *queries: str) -> list[list[tuple]]:
    """Run a Cypher script in kglite several times, and return the sorted results of queries."""
    # In a process of its own, because kglite cannot be loaded next to many other libraries.
    code = (
        "import json, sys, kglite\n"
        "script, times, *queries = sys.argv[1:]\n"
        "graph = kglite.KnowledgeGraph()\n"
        "for statement in open(script, encoding='utf-8').read().split(';\\n\\n') * int(times):\n"
        "    graph.cypher(statement.removesuffix(';\\n'))\n"
        "print(json.dumps([[list(row.values()) for row in graph.cypher(query)] for query in queries]))\n"
    )
    command = [sys.executable, "-c", code, str(script), str(times), *queries]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [sorted(map(tuple, rows)) for rows in json.loads(result.stdout)]


@pytest.mark.parametrize("merge", [None, "text"])
def test_ladybug_has_all_nodes_and_relations(merge: str | None, tmp_path: Path) -> None:
    path = tmp_path / "graph.lbug"
    edges = expected_edges(DOCS, merge)
    counts = export(DOCS, path, settings=ExportSettings(merge=merge))
    assert counts.written == len(edges) and [file.name for file in tmp_path.iterdir()] == ["graph.lbug"]
    with open_ladybug(path) as query:
        assert query(QUERY) == expected_rows(edges) and query(NODES) == expected_nodes(edges)
        # Labels are tables, whose names have no case.
        found = query("MATCH (a)-[r:`born in`]->(b) RETURN a.text, b.text, r.label")
    assert found == [("Ann Lee", "Rome", "born in"), ("Bo", "Rome", "Born In"), ("Bo", "Rome", "born in")]


@settings(max_examples=5)
@given(docs=documents())
def test_arbitrary_documents_are_read_back_from_ladybug(
    docs: list[RelationDocument], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("database") / "graph.lbug"
    export(docs, path)
    edges = expected_edges(docs, None)
    with open_ladybug(path) as query:
        assert query(NODES) == expected_nodes(edges)
        assert not edges or query(QUERY) == expected_rows(edges)


def test_large_exports_are_copied_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_slmre.export.graphs._COPY_SIZE", 2)
    export(DOCS[:2], tmp_path / "graph.lbug", settings=ExportSettings(merge="text"))
    with open_ladybug(tmp_path / "graph.lbug") as query:
        assert query(QUERY) == expected_rows(merge_edges(DOCS[:2]))


def test_a_refusal_of_the_database_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.lbug"
    export(DOCS[0], path)
    before = path.read_bytes()
    monkeypatch.setattr("ladybug.Database", partial(ladybug.Database, buffer_pool_size=2**20))  # too small to write
    with pytest.raises(ExportError, match=r"Ladybug cannot store the relations: .*buffer"):
        export(DOCS, path, overwrite=True)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["graph.lbug"]


def test_a_missing_ladybug_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ladybug", None)
    with pytest.raises(MissingExtraError, match=r"ladybug.*pip install 'spacy-slmre\[ladybug\]'"):
        export(DOCS[0], tmp_path / "graph.lbug")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_ladybug_database(tmp_path: Path) -> None:
    from spacy_slmre.cli import slmre_cli

    source, path = tmp_path / "relations.jsonl", tmp_path / "graph.lbug"
    source.write_text(json.dumps(DOCS[0].to_dict()) + "\n", encoding="utf-8")
    result = CliRunner().invoke(slmre_cli, ["export", str(source), "-o", str(path)])
    assert result.exit_code == 0, result.output
    with open_ladybug(path) as query:
        assert query("MATCH (:Entity {text: 'Ann Lee'})-[r]->(b) RETURN b.text") == [("Bo",), ("Rome",)]


@pytest.mark.parametrize("merge", [None, "text"])
def test_the_cypher_script_fills_a_database_and_can_be_repeated(merge: str | None, tmp_path: Path) -> None:
    path = tmp_path / "graph.cypher"
    export(DOCS, path, settings=ExportSettings(merge=merge))
    edges = expected_edges(DOCS, merge)
    rows, nodes, people = run_cypher(path, 2, QUERY, NODES, "MATCH (a:PER)-[:`born in`]->(b:LOC) RETURN a.text")
    assert rows == expected_rows(edges) and nodes == expected_nodes(edges)
    assert people == [("Ann Lee",), ("Bo",)]


def test_neo4j_tables_are_loaded_by_a_database(tmp_path: Path) -> None:
    export(DOCS, tmp_path / "tables", "neo4j")
    edges = expected_edges(DOCS, None)
    with open_ladybug(tmp_path / "graph.lbug") as query:
        query("CREATE NODE TABLE Entity (id STRING PRIMARY KEY, text STRING, type STRING, kb_id STRING, labels STRING)")
        query(
            "CREATE REL TABLE Relation (FROM Entity TO Entity, type STRING, key STRING, label STRING, score DOUBLE, "
            "count INT64, symmetric BOOLEAN, document STRING, sentence STRING, sources STRING)"
        )
        options = "(HEADER=true, PARALLEL=false, ESCAPE='\"', AUTO_DETECT=false, NULL_STRINGS=['<null>'])"
        for table, file in (("Entity", "nodes"), ("Relation", "relationships")):
            query(f"COPY {table} FROM '{tmp_path}/tables/{file}.csv' {options}")
        assert query(QUERY) == expected_rows(edges)
        assert query(NODES) == expected_nodes(edges)


@pytest.mark.parametrize(("suffix", "merge"), [(".nt", None), (".ttl", "text"), (".jsonld", None)])
def test_sparql_finds_relations_and_their_sources(suffix: str, merge: str | None, tmp_path: Path) -> None:
    path = tmp_path / f"graph{suffix}"
    export(DOCS, path, settings=ExportSettings(merge=merge, properties={"born in": "https://schema.org/birthPlace"}))
    store = pyoxigraph.Store()
    store.load(path=path)
    born = store.query(
        "PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#> SELECT ?name ?place "
        "{ ?a <https://schema.org/birthPlace> ?b ; rdfs:label ?name . ?b rdfs:label ?place }"
    )
    assert sorted((row["name"].value, row["place"].value) for row in born) == [("Ann Lee", "Rome"), ("Bo", "Rome")]
    scores = store.query(
        "PREFIX rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#>"
        "SELECT ?label ?score { ?s a rdf:Statement ; <http://www.w3.org/2000/01/rdf-schema#label> ?label ;"
        " <urn:slmre:vocabulary/score> ?score }"
    )
    found = sorted((row["label"].value, float(row["score"].value)) for row in scores)
    assert found == sorted((edge.label, edge.score) for edge in expected_edges(DOCS, merge))


def test_duckdb_reads_tables(tmp_path: Path) -> None:
    edges = expected_edges(DOCS, None)
    rows = sorted((edge.head.text, edge.label, edge.tail.text, edge.score, edge.source.sentence) for edge in edges)
    for suffix, reader in ((".parquet", "read_parquet"), (".jsonl", "read_json_auto")):
        export(DOCS, tmp_path / f"rows{suffix}")
        found = duckdb.sql(f"SELECT head, relation, tail, score, sentence FROM {reader}('{tmp_path}/rows{suffix}')")
        assert sorted(found.fetchall()) == rows
    export(DOCS, tmp_path / "facts.parquet", settings=ExportSettings(merge="text"))
    query = f"SELECT relation, s.document, s.head.text FROM '{tmp_path}/facts.parquet', UNNEST(sources) AS t(s)"
    places = [row for row in duckdb.sql(query).fetchall() if row[0] == "born in"]
    assert sorted(places) == [("born in", "a", "Ann Lee"), ("born in", "b", "Bo")]


@pytest.mark.parametrize("merge", [None, "text"])
def test_networkx_reads_what_it_writes(merge: str | None, tmp_path: Path) -> None:
    docs = [DOCS[0], DOCS[1]]
    graph = to_networkx(expected_edges(docs, merge))
    export(docs, tmp_path / "graph.graphml", settings=ExportSettings(merge=merge))
    read = nx.read_graphml(tmp_path / "graph.graphml", force_multigraph=True)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert sorted(read.edges(keys=True, data=True)) == sorted(graph.edges(keys=True, data=True))
    assert nx.shortest_path(read, *(n for n, text in read.nodes("text") if text in ("Ann Lee", "Rome")))
