"""Relations as a NetworkX graph, and GraphML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import networkx as nx

from spacy_slmre.export.edges import Edge, ExportError, Node, Source
from spacy_slmre.export.triples import source_entry, source_from

# What no XML document can hold, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(edges: Iterable[Edge]) -> nx.MultiDiGraph:
    """A graph with the attributes `text`, `type` and `kb_id` on nodes; edges have `label`, `score` and more.

    An edge's key is that of the export; `count` says how often the relation was found, and `sources` where:
    a JSON list, since GraphML has no lists.
    """
    graph = nx.MultiDiGraph()
    for edge in edges:
        for node in (edge.head, edge.tail):
            graph.add_node(node.key, text=node.text, type=node.type, kb_id=node.kb_id)
        sources = json.dumps([source_entry(source) for source in edge.sources], ensure_ascii=False)
        graph.add_edge(
            edge.head.key,
            edge.tail.key,
            key=edge.key,
            label=edge.label,
            score=edge.score,
            count=edge.count,
            sources=sources,
        )
    return graph


def from_networkx(graph: nx.MultiDiGraph) -> Iterator[Edge]:
    """The edges of a graph that `to_networkx` made, or that was read from GraphML."""

    def node(key: str) -> Node:
        data = graph.nodes[key]
        return Node(key, data["text"], data["type"], data["kb_id"])

    for head, tail, key, data in graph.edges(keys=True, data=True):
        sources: tuple[Source, ...] = tuple(source_from(entry) for entry in json.loads(data["sources"]))
        yield Edge(key, node(head), node(tail), data["label"], float(data["score"]), sources)


def write_graphml(path: Path, edges: Iterable[Edge]) -> None:
    """GraphML by NetworkX, which holds the graph in memory; characters that XML cannot hold become U+FFFD."""
    graph = to_networkx(edges)
    clean = nx.MultiDiGraph()
    for name, data in graph.nodes(data=True):
        clean.add_node(_xml(name), **{key: _xml(value) for key, value in data.items()})
    for head, tail, name, data in graph.edges(keys=True, data=True):
        values = {key: _xml(value) if isinstance(value, str) else value for key, value in data.items()}
        clean.add_edge(_xml(head), _xml(tail), key=_xml(name), **values)
    # By lxml: the standard library writes carriage returns as they are, and readers make line feeds of them.
    nx.write_graphml_lxml(clean, path, named_key_ids=True)


def read_graphml(path: str | Path) -> Iterator[Edge]:
    """The edges of a GraphML file that was exported.

    Raises:
        ExportError: The file is absent or has another form.
    """
    try:
        graph = nx.read_graphml(path, force_multigraph=True)
        yield from from_networkx(graph)
    except FileNotFoundError as error:
        raise ExportError(f"The file {path} does not exist.") from error
    except (SyntaxError, KeyError, nx.NetworkXError) as error:
        raise ExportError(f"{path} is no GraphML that was exported here ({error}).") from error


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
