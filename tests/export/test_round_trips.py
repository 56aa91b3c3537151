"""Exports of arbitrary texts are read back to the same relations."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import networkx as nx
import pytest
from antlr4 import CommonTokenStream, InputStream
from antlr4.error.ErrorListener import ErrorListener
from antlr4_cypher import CypherLexer, CypherParser
from hypothesis import given, settings

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export import Edge, ExportSettings, export, make_edges, merge_edges, read_relation_items, to_networkx
from spacy_slmre.export.graphs import cypher_literal
from tests.export.readers import read_graphml, read_rdf, read_table
from tests.relation_documents import documents, hostile_document, make_document

READERS: dict[str, tuple[str, Callable[[Path], Iterable[Edge]]]] = {
    "jsonl": (".jsonl", read_table),
    "csv": (".csv", read_table),
    "parquet": (".parquet", read_table),
    "ntriples": (".nt", read_rdf),
    "turtle": (".ttl", read_rdf),
    "jsonld": (".jsonld", read_rdf),
    "graphml": (".graphml", read_graphml),
}


def comparable(edges: Iterable[Edge], *, xml: bool = False) -> list[str]:
    """Return edges without their keys, which some formats number, in a fixed order."""
    lines = []
    for edge in edges:
        sources = sorted(map(repr, edge.sources))
        lines.append(repr((edge.head, edge.label, edge.tail, edge.score, edge.count, sources)))
    return sorted(re.sub(r"\\u(fffe|ffff)", "\ufffd", line) if xml else line for line in lines)


def write(docs: list[RelationDocument], name: str, suffix: str, merge: str | None, folder: str) -> Path:
    path = Path(folder) / f"out{suffix}"
    export(docs, path, name, ExportSettings(merge=merge), overwrite=True)
    return path


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=12)
@given(docs=documents())
def test_exports_of_arbitrary_documents_are_read_back(name: str, docs: list[RelationDocument]) -> None:
    suffix, read = READERS[name]
    for merge in (None, "text"):
        expected = list(make_edges(docs)) if merge is None else merge_edges(docs)
        with tempfile.TemporaryDirectory() as folder:
            found = list(read(write(docs, name, suffix, merge, folder)))
        assert comparable(found, xml=name == "graphml") == comparable(expected, xml=name == "graphml")


@pytest.mark.parametrize("name", READERS)
def test_hostile_texts_are_read_back(name: str, tmp_path: Path) -> None:
    suffix, read = READERS[name]
    docs = [hostile_document("=1+1"), hostile_document('<b>"\n')]
    for merge, expected in ((None, list(make_edges(docs))), ("type", merge_edges(docs, "type"))):
        found = list(read(write(docs, name, suffix, merge, str(tmp_path))))
        assert comparable(found) == comparable(expected)


def test_no_csv_cell_is_a_formula(tmp_path: Path) -> None:
    path = write([hostile_document("=1+1")], "csv", ".csv", None, str(tmp_path))
    with path.open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert sum(cell.startswith("'=") for cell in cells) > 3
    assert not [cell for cell in cells if re.match("[=+@\t\r\n＝]", cell)]


def test_relation_items_are_read_back(tmp_path: Path) -> None:
    docs = [hostile_document(), make_document("plain", ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "in", 1.0)])]
    path = write(docs, "spacy-llm", ".jsonl", None, str(tmp_path))
    for found, given_ in zip(read_relation_items(path), docs, strict=True):
        assert found.entities == given_.entities
        assert [(r.head, r.label, r.tail) for r in found.relations] == [
            (r.head, r.label, r.tail) for r in given_.relations
        ]


def test_networkx_reads_graphml(tmp_path: Path) -> None:
    docs = [make_document("a", ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "in", 0.5), (1, 0, "of", 0.25)])]
    graph = nx.read_graphml(write(docs, "graphml", ".graphml", "text", str(tmp_path)))
    assert dict(graph.nodes(data="text")) == {"text:ann": "Ann", "text:rome": "Rome"}
    found = [(data["label"], data["score"]) for *_, data in graph.edges(data=True)]
    assert found == [("in", 0.5), ("of", 0.25)]
    ours = to_networkx(merge_edges(docs))
    assert dict(ours.nodes(data=True)) == dict(graph.nodes(data=True))
    assert list(ours.edges(data="sources")) == list(graph.edges(data="sources"))


def test_neo4j_tables_refer_to_each_other(tmp_path: Path) -> None:
    docs = [hostile_document(), hostile_document("second")]
    folder = write(docs, "neo4j", "", None, str(tmp_path))
    with (folder / "nodes.csv").open(encoding="utf-8", newline="") as stream:
        nodes = {row["id:ID"]: row for row in csv.DictReader(stream)}
    with (folder / "relationships.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    edges = list(make_edges(docs))
    assert len(nodes) == len({node.key for edge in edges for node in (edge.head, edge.tail)})
    for row, edge in zip(rows, edges, strict=True):
        assert nodes[row[":START_ID"]]["text"] == edge.head.text
        assert nodes[row[":END_ID"]]["text"] == edge.tail.text
        assert row[":TYPE"] == edge.label and float(row["score:double"]) == edge.score
        assert json.loads(row["sources"])[0]["sentence"] == edge.sources[0].sentence


class _Raise(ErrorListener):
    def syntaxError(self, recognizer, offendingSymbol, line, column, msg, e) -> None:
        raise AssertionError(f"{line}:{column} {msg}")


def parse_cypher(text: str, rule: str):
    parser = CypherParser(CommonTokenStream(CypherLexer(InputStream(text))))
    parser.removeErrorListeners()
    parser.addErrorListener(_Raise())
    return getattr(parser, rule)()


def unescape(text: str) -> str:
    plain = {"n": "\n", "r": "\r", "t": "\t", "'": "'", "\\": "\\"}
    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else plain[m[2]], text[1:-1])


def test_cypher_parses_and_has_all_texts(tmp_path: Path) -> None:
    docs = [hostile_document()]
    script = write(docs, "cypher", ".cypher", None, str(tmp_path)).read_text(encoding="utf-8")
    # The grammar is openCypher's, which has no constraints.
    constraint, *statements = script.split(";\n")
    assert constraint.startswith("CREATE CONSTRAINT")
    statements = re.split(r";\n(?=\nUNWIND|\Z)", script.split(";\n", 1)[1])
    texts: set[str] = set()
    for statement in filter(str.strip, statements):
        parse_cypher(statement, "script")
        texts |= {unescape(found) for found in re.findall(r"'(?:[^'\\]|\\.)*'", statement)}
    for edge in make_edges(docs):
        assert {edge.head.text, edge.label, edge.tail.text, edge.sources[0].sentence} <= texts


def test_cypher_string_cannot_end_early_even_if_unicode_escapes_are_resolved_first() -> None:
    for text in ("\\u0027 RETURN 1 //", "\\\\u0027", "u0027", "\\", "\\u", "'\\'"):
        escaped = cypher_literal(text)
        # The text as seen by a server that resolves \uXXXX first.
        early = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), escaped)
        assert re.fullmatch(r"'(?:[^'\\]|\\.)*'", early)
        assert unescape(early) == unescape(escaped) == text
