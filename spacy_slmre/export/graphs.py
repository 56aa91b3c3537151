"""Relations as a property graph: NetworkX, GraphML, Neo4j tables, a Cypher script and a Ladybug database."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from spacy_slmre.export.edges import Edge, ExportError, Node, new_nodes
from spacy_slmre.util.extras import require_extra

if TYPE_CHECKING:
    import networkx as nx

# Characters that are not allowed in XML, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GRAPHML_KEYS = {
    "node": {"text": "string", "type": "string", "kb_id": "string"},
    "edge": {"label": "string", "score": "double", "count": "long", "symmetric": "boolean", "sources": "string"},
}
# Relations per statement of a Cypher script, which limits the memory that the server needs.
_BATCH_SIZE = 500
# Relations that are copied to a Ladybug database together.
_COPY_SIZE = 20_000


def to_networkx(edges: Iterable[Edge]) -> nx.MultiDiGraph:
    """Return a graph with the attributes `text`, `type` and `kb_id` of nodes and `label`, `score`, … of edges.

    Edges have the same keys as in other exports, the number of occurrences in `count`, and a JSON list in `sources`.

    Raises:
        MissingExtraError: networkx is not installed.
    """
    with require_extra("export", "to_networkx"):
        import networkx as nx

    graph = nx.MultiDiGraph()
    for edge in edges:
        for node in (edge.head, edge.tail):
            graph.add_node(node.key, **_node_attributes(node))
        graph.add_edge(edge.head.key, edge.tail.key, key=edge.key, **_edge_attributes(edge))
    return graph


def write_graphml(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write GraphML; characters that are not allowed in XML become U+FFFD."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("<?xml version='1.0' encoding='utf-8'?>\n")
        stream.write('<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for element, attributes in _GRAPHML_KEYS.items():
            for name, type in attributes.items():
                definition = f'id="{name}" for="{element}" attr.name="{name}" attr.type="{type}"'
                stream.write(f"<key {definition}/>\n")
        stream.write('<graph edgedefault="directed">\n')
        for edge, nodes in new_nodes(edges, merged=merged):
            for node in nodes:
                stream.write(f"<node id={_xml_id(node.key)}>{_xml_data(_node_attributes(node))}</node>\n")
            ends = f"source={_xml_id(edge.head.key)} target={_xml_id(edge.tail.key)} id={_xml_id(edge.key)}"
            stream.write(f"<edge {ends}>{_xml_data(_edge_attributes(edge))}</edge>\n")
        stream.write("</graph>\n</graphml>\n")


_NEO4J_NODES = ("id:ID", "text", "type", "kb_id", ":LABEL")


def is_neo4j(folder: Path) -> bool:
    """Return whether a folder is empty or only has tables that `write_neo4j` wrote."""
    files = {file.name for file in folder.iterdir()}
    if files != {"nodes.csv", "relationships.csv"}:
        return not files
    with (folder / "nodes.csv").open(encoding="utf-8", errors="replace", newline="") as stream:
        return next(csv.reader(stream), None) == [*_NEO4J_NODES]


def write_neo4j(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write a folder with `nodes.csv` and `relationships.csv` for `neo4j-admin database import`.

    Formulas are not escaped, because a database reads the tables.
    """
    path.mkdir()
    with (
        (path / "nodes.csv").open("w", encoding="utf-8", newline="") as node_file,
        (path / "relationships.csv").open("w", encoding="utf-8", newline="") as edge_file,
    ):
        node_rows, edge_rows = csv.writer(node_file), csv.writer(edge_file)
        node_rows.writerow(_NEO4J_NODES)
        places = ("document", "sentence", "sources")
        edge_rows.writerow(
            (":START_ID", ":END_ID", ":TYPE", "key", "label", "score:double", "count:int", "symmetric:boolean", *places)
        )
        for edge, nodes in new_nodes(edges, merged=merged):
            for node in nodes:
                # A semicolon separates labels; the property `type` has the original.
                labels = ";".join(filter(None, ["Entity", node.type.replace(";", "_")]))
                node_rows.writerow((node.key, node.text, node.type, node.kb_id, labels))
            ends = edge.head.key, edge.tail.key
            edge_rows.writerow((*ends, edge.label, *map(_text, relationship_properties(edge).values())))


def write_cypher(path: Path, edges: Iterable[Edge]) -> None:
    """Write an idempotent Cypher script that adds nodes and relationships.

    In node labels and relationship types, characters other than letters, digits, `_` and spaces are replaced, because
    these cannot be parameters; the properties `type` and `label` have the original names.
    """
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("CREATE CONSTRAINT slmre_entity IF NOT EXISTS FOR (e:Entity) REQUIRE e.id IS UNIQUE;\n")
        remaining = iter(edges)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            groups: dict[tuple[str, str, str], list[Edge]] = {}
            for edge in batch:
                names = _cypher_name(edge.head.type), _cypher_name(edge.label), _cypher_name(edge.tail.type)
                groups.setdefault(names, []).append(edge)
            for (head, label, tail), members in groups.items():
                rows = ",\n  ".join(map(_cypher_row, members))
                stream.write(
                    f"\nUNWIND [\n  {rows}\n] AS row\n"
                    f"MERGE (h:Entity {{id: row.head.id}}) SET h += row.head{_set_label('h', head)}\n"
                    f"MERGE (t:Entity {{id: row.tail.id}}) SET t += row.tail{_set_label('t', tail)}\n"
                    f"MERGE (h)-[r:`{label}` {{key: row.relation.key}}]->(t) SET r += row.relation;\n"
                )


_LADYBUG_NODES = "id STRING PRIMARY KEY, text STRING, type STRING, kb_id STRING"
_LADYBUG_EDGES = (
    "key STRING, label STRING, score DOUBLE, count INT64, symmetric BOOLEAN, document STRING, sentence STRING, "
    "sources STRING"
)


def write_ladybug(path: Path, edges: Iterable[Edge], *, merged: bool) -> None:
    """Write a Ladybug (Kuzu) database with a node table `Entity` and a relationship table for each label.

    In names of tables, characters other than letters, digits, `_` and spaces are replaced, and case does not matter;
    the property `label` has the original name.

    Raises:
        MissingExtraError: Ladybug is not installed.
        ExportError: Ladybug refuses to write.
    """
    with require_extra("ladybug", 'The format "ladybug"'):
        import ladybug

    try:
        # Checkpoints after each statement would dominate the time; closing the database makes one.
        with ladybug.Database(path, auto_checkpoint=False) as database, ladybug.Connection(database) as connection:
            _fill_ladybug(connection, new_nodes(edges, merged=merged))
    except RuntimeError as error:
        raise ExportError(f"Ladybug cannot store the relations: {error}") from error


def _fill_ladybug(connection: Any, remaining: Iterator[tuple[Edge, list[Node]]]) -> None:
    import pyarrow as pa

    connection.execute(f"CREATE NODE TABLE Entity ({_LADYBUG_NODES})")
    tables: dict[str, str] = {}  # of relationships, by their names in lower case
    while batch := list(islice(remaining, _COPY_SIZE)):
        rows = {"Entity": [{"id": node.key, **_node_attributes(node)} for _, nodes in batch for node in nodes]}
        for edge, _ in batch:
            name = _table_name(edge.label)
            if name.casefold() not in tables:
                connection.execute(f"CREATE REL TABLE `{name}` (FROM Entity TO Entity, {_LADYBUG_EDGES})")
            table = tables.setdefault(name.casefold(), name)
            ends = {"from": edge.head.key, "to": edge.tail.key}
            rows.setdefault(table, []).append({**ends, **relationship_properties(edge)})
        for table, values in rows.items():
            if values:
                connection.execute(f"COPY `{table}` FROM $rows", {"rows": pa.Table.from_pylist(values)})


def _table_name(label: str) -> str:
    name = _cypher_name(label)
    return f"{name}_" if name.casefold() == "entity" else name


def cypher_literal(value: str | float) -> str:
    """Return a number, a truth value or a string as a Cypher literal."""
    if not isinstance(value, str):
        return json.dumps(value)
    # Some versions of Neo4j resolve \\uXXXX before they look for the end of a string. The "u" after a backslash is
    # therefore escaped itself, so that no text can be interpreted as such an escape.
    text = re.sub(r"\\u", r"\\\\u0075", value.replace("\\", "\\\\"))
    text = text.replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f"'{text}'"


def relationship_properties(edge: Edge) -> dict[str, Any]:
    """Return the properties of a graph's relationship, in the order of Neo4j's table; `sources` is a JSON list."""
    attributes = _edge_attributes(edge)
    sources = attributes.pop("sources")
    place = {"document": edge.source.document, "sentence": edge.source.sentence, "sources": sources}
    return {"key": edge.key, **attributes, **place}


def _node_attributes(node: Node) -> dict[str, Any]:
    return {"text": node.text, "type": node.type, "kb_id": node.kb_id}


def _edge_attributes(edge: Edge) -> dict[str, Any]:
    sources = json.dumps(edge.source_dicts, ensure_ascii=False)
    # An attribute, because NetworkX and Neo4j have no graphs with directed and undirected edges.
    values = {"score": edge.score, "count": edge.count, "symmetric": edge.symmetric}
    return {"label": edge.label, **values, "sources": sources}


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _xml_id(key: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", key))


def _xml_data(attributes: dict[str, Any]) -> str:
    # Parsers convert unescaped carriage returns to line feeds.
    texts = {name: escape(_NOT_XML.sub("\ufffd", _text(value)), {"\r": "&#13;"}) for name, value in attributes.items()}
    return "".join(f'<data key="{name}">{text}</data>' for name, text in texts.items())


def _cypher_row(edge: Edge) -> str:
    head, tail = ({"id": node.key, **_node_attributes(node)} for node in (edge.head, edge.tail))
    return _cypher_map({"head": head, "tail": tail, "relation": relationship_properties(edge)})


def _cypher_map(values: dict[str, Any]) -> str:
    entries = (
        f"{name}: {_cypher_map(value) if isinstance(value, dict) else cypher_literal(value)}"
        for name, value in values.items()
    )
    return "{" + ", ".join(entries) + "}"


def _set_label(variable: str, label: str) -> str:
    return f" SET {variable}:`{label}`" if label else ""


def _cypher_name(text: str) -> str:
    return re.sub(r"[^\w ]", "_", text)
