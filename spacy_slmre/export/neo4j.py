"""Relations for Neo4j: tables for `neo4j-admin database import`, and a Cypher script."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from spacy_slmre.export.edges import Edge, Node
from spacy_slmre.export.triples import source_entry

_NODES = ("id:ID", "text", "type", "kb_id", ":LABEL")
_RELATIONSHIPS = (
    ":START_ID",
    ":END_ID",
    ":TYPE",
    "key",
    "label",
    "score:double",
    "count:int",
    "document",
    "sentence",
    "sources",
)
# Relations of one statement of the script: what a server plans and holds at a time.
_BATCH = 500


def write_tables(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """A folder with `nodes.csv` and `relationships.csv`.

    Texts stand in them as they are, since they are for a database: no apostrophe is put before a formula.
    """
    path.mkdir()
    with (
        (path / "nodes.csv").open("w", encoding="utf-8", newline="") as node_file,
        (path / "relationships.csv").open("w", encoding="utf-8", newline="") as edge_file,
    ):
        nodes, relationships = csv.writer(node_file), csv.writer(edge_file)
        nodes.writerow(_NODES)
        relationships.writerow(_RELATIONSHIPS)
        known: set[str] = set()
        document = None
        for edge in edges:
            source = edge.sources[0]
            if not merged and source.document != document:
                # Mentions of one document are never those of another: only one document's are held.
                document = source.document
                known.clear()
            for node in (edge.head, edge.tail):
                if node.key not in known:
                    known.add(node.key)
                    # A semicolon would part two labels; the property `type` keeps it.
                    labels = ";".join(["Entity", *filter(None, [node.type.replace(";", "_")])])
                    nodes.writerow((node.key, node.text, node.type, node.kb_id, labels))
            sources = json.dumps([source_entry(one) for one in edge.sources], ensure_ascii=False)
            about = (source.document, source.sentence, sources)
            relationships.writerow(
                (
                    edge.head.key,
                    edge.tail.key,
                    edge.label,
                    edge.key,
                    edge.label,
                    edge.score,
                    edge.count,
                    *about,
                )
            )


def write_cypher(path: Path, edges: Iterable[Edge]) -> None:
    """A script that adds nodes and relationships; run twice, it adds them once.

    Neither node labels nor relationship types can be parameters, so that they are names without any character
    but letters, digits, `_` and spaces; `type` and `label` keep the text.
    """
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("CREATE CONSTRAINT slmre_entity IF NOT EXISTS FOR (e:Entity) REQUIRE e.id IS UNIQUE;\n")
        remaining = iter(edges)
        while batch := list(islice(remaining, _BATCH)):
            groups: dict[tuple[str, str, str], list[Edge]] = {}
            for edge in batch:
                kind = _name(edge.head.type), _name(edge.label), _name(edge.tail.type)
                groups.setdefault(kind, []).append(edge)
            for (head, relation, tail), members in groups.items():
                rows = ",\n  ".join(map(_row, members))
                stream.write(
                    f"\nUNWIND [\n  {rows}\n] AS row\n"
                    f"MERGE (h:Entity {{id: row.head.id}}) SET h += row.head{_labelled('h', head)}\n"
                    f"MERGE (t:Entity {{id: row.tail.id}}) SET t += row.tail{_labelled('t', tail)}\n"
                    f"MERGE (h)-[r:`{relation}` {{key: row.relation.key}}]->(t) SET r += row.relation;\n"
                )


def _row(edge: Edge) -> str:
    source = edge.sources[0]
    relation = {
        "key": edge.key,
        "label": edge.label,
        "score": edge.score,
        "count": edge.count,
        "document": source.document,
        "sentence": source.sentence,
        "sources": json.dumps([source_entry(one) for one in edge.sources], ensure_ascii=False),
    }
    return _map({"head": _node(edge.head), "tail": _node(edge.tail), "relation": relation})


def _node(node: Node) -> dict[str, Any]:
    return {"id": node.key, "text": node.text, "type": node.type, "kb_id": node.kb_id}


def _map(values: dict[str, Any]) -> str:
    entries = (
        f"{name}: {_map(value) if isinstance(value, dict) else literal(value)}"
        for name, value in values.items()
    )
    return "{" + ", ".join(entries) + "}"


def literal(value: str | float) -> str:
    """A number or a string as a Cypher literal."""
    if not isinstance(value, str):
        return repr(value)
    # Some versions of Neo4j resolve \\uXXXX before they look for the end of a string. So that no backslash of
    # the text can stand before a "u", that "u" is written as an escape itself.
    text = re.sub(r"\\u", r"\\\\u0075", value.replace("\\", "\\\\"))
    text = text.replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f"'{text}'"


def _labelled(variable: str, label: str) -> str:
    return f" SET {variable}:`{label}`" if label else ""


def _name(text: str) -> str:
    return re.sub(r"[^\w ]", "_", text)
