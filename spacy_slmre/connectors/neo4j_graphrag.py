"""neo4j-graphrag: an extractor of entities and relations for its pipelines that build knowledge graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.connectors.base import ERROR_KEY, PipelineRunner, TextGraph
from spacy_slmre.util.extras import require_extra

with require_extra("neo4j-graphrag", "This connector"):
    from neo4j_graphrag.components.entity_relation_extractor import EntityRelationExtractor, OnError
    from neo4j_graphrag.components.lexical_graph import LexicalGraphBuilder
    from neo4j_graphrag.components.schema import GraphSchema
    from neo4j_graphrag.components.types import (
        DocumentInfo,
        LexicalGraphConfig,
        Neo4jGraph,
        Neo4jNode,
        Neo4jRelationship,
        TextChunk,
        TextChunks,
    )
    from pydantic import validate_call


class SpacyEntityRelationExtractor(EntityRelationExtractor):
    """Extracts a graph from chunks of text, like `LLMEntityRelationExtractor`.

    Each entity is connected to its chunk. Ids are prefixed with the id of the chunk; a resolver with
    `resolve_property="key"` merges the entities of different chunks by the rules of `spacy_slmre.facts`.

    Args:
        pipeline: A pipeline with a relation component, or the name of a package or folder.
        labels: Labels instead of the pipeline's own: a list of names, a schema as dict, or a file. The relationship
            types of a schema that is passed to `run` take precedence.
        threshold: Minimum probability of a relation, instead of the pipeline's own.
        level: "facts" (nodes are the entities of a chunk) or "mentions".
        batch_size: Chunks per batch.
        on_error: IGNORE writes the reason why the pipeline failed on a chunk to the property "relations_error" of its
            node, with a warning. RAISE raises a ValueError.
        create_lexical_graph: Include document and chunks in the graph.

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
        on_error: OnError = OnError.IGNORE,
        create_lexical_graph: bool = True,
    ) -> None:
        super().__init__(on_error=on_error, create_lexical_graph=create_lexical_graph)
        self._runner = PipelineRunner(pipeline, labels=labels, threshold=threshold, level=level, batch_size=batch_size)

    @validate_call  # pipelines pass dicts
    async def run(
        self,
        chunks: TextChunks,
        document_info: DocumentInfo | None = None,
        lexical_graph_config: LexicalGraphConfig | None = None,
        schema: GraphSchema | None = None,
        **kwargs: Any,
    ) -> Neo4jGraph:
        """Return the graph of all chunks.

        Args:
            chunks: The chunks.
            document_info: The document that they are from.
            lexical_graph_config: Names in the graph of document and chunks.
            schema: Its relationship types become labels; their descriptions, definitions; and patterns, entity types.
            kwargs: Ignored.

        Raises:
            ValueError: The pipeline failed on a chunk, and `on_error` is RAISE.
        """
        texts, ids = [chunk.text for chunk in chunks.chunks], [chunk.chunk_id for chunk in chunks.chunks]
        found = await self._runner.agraphs(texts, ids, labels=_labels(schema))
        # The error of a chunk must be known before the chunk's node is made of its metadata.
        chunks = TextChunks(chunks=[self._with_error(*pair) for pair in zip(chunks.chunks, found, strict=True)])
        builder = None
        graph = Neo4jGraph()
        if self.create_lexical_graph or lexical_graph_config:
            builder = LexicalGraphBuilder(lexical_graph_config or LexicalGraphConfig())
        if self.create_lexical_graph and builder:
            graph = (await builder.run(text_chunks=chunks, document_info=document_info)).graph
        for chunk, one in zip(chunks.chunks, found, strict=True):
            chunk_graph = self.update_ids(_neo4j_graph(one), chunk)
            if builder:
                await builder.process_chunk_extracted_entities(chunk_graph, chunk)
            graph.nodes += chunk_graph.nodes
            graph.relationships += chunk_graph.relationships
        return graph

    def _with_error(self, chunk: TextChunk, graph: TextGraph) -> TextChunk:
        if graph.error is None:
            return chunk
        if self.on_error is OnError.RAISE:
            raise ValueError(f"The pipeline failed on the chunk {chunk.chunk_id}: {graph.error}")
        return chunk.model_copy(update={"metadata": {**(chunk.metadata or {}), ERROR_KEY: graph.error}})


def _labels(schema: GraphSchema | None) -> dict[str, Any] | None:
    """Return the relationship types of a schema as labels; None if there are none."""
    if schema is None or not schema.relationship_types:
        return None
    labels = []
    for one in schema.relationship_types:
        types = [[head, tail] for head, label, tail in schema.patterns if label == one.label]
        labels.append({"name": one.label, "definition": one.description, "types": types})
    return {"labels": labels}


def _neo4j_graph(graph: TextGraph) -> Neo4jGraph:
    return Neo4jGraph(
        nodes=[Neo4jNode(id=one.id, label=one.type or "Entity", properties=one.properties) for one in graph.nodes],
        relationships=[
            Neo4jRelationship(
                start_node_id=one.head.id, end_node_id=one.tail.id, type=one.label, properties=one.properties
            )
            for one in graph.relations
        ],
    )
