"""LlamaIndex: a knowledge graph extractor for `PropertyGraphIndex`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.connectors.base import ERROR_KEY, PipelineRunner, TextGraph
from spacy_slmre.util.extras import require_extra

with require_extra("llama-index", "This connector"):
    from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY, EntityNode, Relation
    from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent
    from pydantic import PrivateAttr, field_serializer


class SpacyPathExtractor(TransformComponent):
    """Adds entities and relations to the metadata of text nodes, for `PropertyGraphIndex(kg_extractors=[…])`.

    LlamaIndex identifies entities by their names. If an entity was linked to a knowledge base, its name is
    therefore its id there, and its property `name` the text. Entities and relations also have the metadata of their
    text node. If the pipeline fails on a node, its metadata have the reason under "relations_error", and there is a
    warning.

    Attributes:
        pipeline: A pipeline with a relation component, or the name of a package or folder. With a name, the extractor
            can also be sent to other processes.
        labels: Labels instead of the pipeline's own: a list of names, a schema as dict, or a file.
        threshold: Minimum probability of a relation, instead of the pipeline's own.
        level: "facts" (nodes are entities) or "mentions".
        batch_size: Text nodes per batch.

    Raises:
        ValueError: Wrong labels, or another setting is out of its range.
    """

    pipeline: Language | str | Path
    labels: Any = None
    threshold: float | None = None
    level: str = "facts"
    batch_size: int = 64
    _runner: PipelineRunner = PrivateAttr()

    # Not **settings, because LlamaIndex ignores unknown ones.
    def __init__(
        self,
        pipeline: Language | str | Path,
        *,
        labels: Any = None,
        threshold: float | None = None,
        level: str = "facts",
        batch_size: int = 64,
    ) -> None:
        settings = {"labels": labels, "threshold": threshold, "level": level, "batch_size": batch_size}
        super().__init__(pipeline=pipeline, **settings)
        self._runner = PipelineRunner(
            pipeline, labels=self.labels, threshold=self.threshold, level=self.level, batch_size=self.batch_size
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes."""
        return "SpacyPathExtractor"

    @field_serializer("pipeline")
    def _serialize_pipeline(self, pipeline: Language | str | Path) -> str:
        """Return the name of the pipeline, or a hash of its config and weights for the cache of an ingestion."""
        if not isinstance(pipeline, Language):
            return str(pipeline)
        from spacy_slmre.pipeline.fingerprint import pipeline_fingerprint

        return pipeline_fingerprint(pipeline)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Extract relations from text nodes."""
        return _write(nodes, self._runner.graphs(*_texts(nodes)))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Do the same in a thread."""
        return _write(nodes, await self._runner.agraphs(*_texts(nodes)))


def _texts(nodes: Sequence[BaseNode]) -> tuple[list[str], list[str]]:
    # Without metadata, so that offsets are those of the text.
    return [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes], [node.node_id for node in nodes]


def _write(nodes: Sequence[BaseNode], graphs: list[TextGraph]) -> Sequence[BaseNode]:
    for node, graph in zip(nodes, graphs, strict=True):
        # Other extractors may have run before.
        entities = node.metadata.pop(KG_NODES_KEY, [])
        relations = node.metadata.pop(KG_RELATIONS_KEY, [])
        inherited = dict(node.metadata)
        if graph.error is not None:
            node.metadata[ERROR_KEY] = graph.error
            node.excluded_embed_metadata_keys.append(ERROR_KEY)
            node.excluded_llm_metadata_keys.append(ERROR_KEY)
        added = {
            one.id: EntityNode(name=one.id, label=one.type or "entity", properties={**inherited, **one.properties})
            for one in graph.nodes
        }
        entities.extend(added.values())
        relations.extend(
            Relation(
                label=one.label,
                source_id=added[one.head.id].id,
                target_id=added[one.tail.id].id,
                properties={**inherited, **one.properties},
            )
            for one in graph.relations
        )
        node.metadata[KG_NODES_KEY] = entities
        node.metadata[KG_RELATIONS_KEY] = relations
    return nodes
