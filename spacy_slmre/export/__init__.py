"""Relations for other tools: tables, graphs, RDF, Neo4j, other spaCy projects, and annotation tools."""

from spacy_slmre.corpus.annotations.spacy_docs import from_rel
from spacy_slmre.export.edges import Edge, EdgeSource, ExportError, Node, fact_edges, make_edges, merge_edges
from spacy_slmre.export.formats import FORMATS, ExportCounts, ExportSettings, export
from spacy_slmre.export.graphs import to_networkx
from spacy_slmre.export.reading import as_documents, read_documents
from spacy_slmre.export.spacy_projects import from_relation_items, read_relation_items, to_rel, to_relation_items

__all__ = [
    "FORMATS",
    "Edge",
    "EdgeSource",
    "ExportCounts",
    "ExportError",
    "ExportSettings",
    "Node",
    "as_documents",
    "export",
    "fact_edges",
    "from_rel",
    "from_relation_items",
    "make_edges",
    "merge_edges",
    "read_documents",
    "read_relation_items",
    "to_networkx",
    "to_rel",
    "to_relation_items",
]
