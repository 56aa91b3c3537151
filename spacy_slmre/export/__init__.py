"""Relations for other tools: tables, graphs, RDF, Neo4j, and the formats of other spaCy projects."""

from spacy_slmre.documents import (
    DocumentRelation,
    EntityMention,
    RelationDocument,
)
from spacy_slmre.export.edges import Edge, ExportError, Node, Source, make_edges, merge_edges
from spacy_slmre.export.formats import FORMATS, ExportCounts, ExportSettings, export
from spacy_slmre.export.peers import (
    from_rel,
    from_relation_items,
    read_items,
    to_rel,
    to_relation_items,
)
from spacy_slmre.export.reading import as_documents, read_documents
from spacy_slmre.export.triples import read_triples

__all__ = [
    "FORMATS",
    "DocumentRelation",
    "Edge",
    "EntityMention",
    "ExportCounts",
    "ExportError",
    "ExportSettings",
    "Node",
    "RelationDocument",
    "Source",
    "as_documents",
    "export",
    "from_rel",
    "from_relation_items",
    "make_edges",
    "merge_edges",
    "read_documents",
    "read_items",
    "read_triples",
    "to_rel",
    "to_relation_items",
]
