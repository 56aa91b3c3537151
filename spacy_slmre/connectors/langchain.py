"""LangChain: a graph transformer, used like `LLMGraphTransformer`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.connectors.base import ERROR_KEY, PipelineRunner, TextGraph
from spacy_slmre.util.extras import require_extra

with require_extra("langchain", "This connector"):
    from langchain_core.documents import Document
    from langchain_neo4j.graphs.graph_document import GraphDocument, Node, Relationship


class SpacyGraphTransformer:
    """Turns documents into graph documents.

    The type of a node is its entity type, and that of a relationship its label. If the pipeline fails on a document,
    its graph is empty, the metadata of its source have the reason under "relations_error", and there is a warning.

    Args:
        pipeline: A pipeline with a relation component, or the name of a package or folder.
        labels: Labels instead of the pipeline's own: a list of names, a schema as dict, or a file.
        threshold: Minimum probability of a relation, instead of the pipeline's own.
        level: "facts" (nodes are entities) or "mentions".
        batch_size: Documents per batch.

    Raises:
        ValueError: Wrong labels, or another setting is out of its range.
    """

    def __init__(
        self,
        pipeline: Language | str | Path,
        *,
        labels: Any = None,
        threshold: float | None = None,
        level: str = "facts",
        batch_size: int = 64,
    ) -> None:
        self._runner = PipelineRunner(pipeline, labels=labels, threshold=threshold, level=level, batch_size=batch_size)

    def convert_to_graph_documents(self, documents: Iterable[Document]) -> list[GraphDocument]:
        """Return a graph document for each document, in order."""
        documents = list(documents)
        return _convert(documents, self._runner.graphs(*_texts(documents)))

    async def aconvert_to_graph_documents(self, documents: Iterable[Document]) -> list[GraphDocument]:
        """Do the same in a thread."""
        documents = list(documents)
        return _convert(documents, await self._runner.agraphs(*_texts(documents)))


def _texts(documents: Sequence[Document]) -> tuple[list[str], list[str]]:
    """Return texts and ids; the latter are those that `Neo4jGraph` gives to source documents."""
    texts = [document.page_content for document in documents]
    ids = [
        str(document.metadata.get("id") or document.id or hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
        for document, text in zip(documents, texts, strict=True)
    ]
    return texts, ids


def _convert(documents: Sequence[Document], graphs: list[TextGraph]) -> list[GraphDocument]:
    return [_graph_document(document, graph) for document, graph in zip(documents, graphs, strict=True)]


def _graph_document(document: Document, graph: TextGraph) -> GraphDocument:
    if graph.error is not None:
        document = document.model_copy(update={"metadata": {**document.metadata, ERROR_KEY: graph.error}})
    nodes = {one.id: Node(id=one.id, type=one.type or "Node", properties=one.properties) for one in graph.nodes}
    relationships = [
        Relationship(source=nodes[one.head.id], target=nodes[one.tail.id], type=one.label, properties=one.properties)
        for one in graph.relations
    ]
    return GraphDocument(nodes=list(nodes.values()), relationships=relationships, source=document)
