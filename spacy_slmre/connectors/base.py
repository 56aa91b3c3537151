"""What all connectors share: run a pipeline over texts, and turn its relations into nodes and edges."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.decoding import check_thresholds
from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.edges import Edge, Node, make_edges, merge_edges
from spacy_slmre.export.graphs import relationship_properties
from spacy_slmre.extraction.inputs import InputDocument
from spacy_slmre.extraction.pipelines import ExtractionPipeline, load_extraction_pipeline, prepare_extraction
from spacy_slmre.facts import LEVELS
from spacy_slmre.schema import LabelSchema

ERROR_KEY = "relations_error"
"""Key in a text's metadata: why the pipeline failed on it."""


@dataclass(frozen=True)
class GraphNode:
    """An entity (level "facts") or a mention (level "mentions").

    Attributes:
        id: Id in a knowledge base, or else the name. Mentions, and entities without a name, have a key with the
            document's id and the position.
        type: Entity type, or "".
        properties: `name`, `type`, `kb_id` and `key`, without empty ones. Entities in different documents are the same
            if they have the same key (see `spacy_slmre.facts`).
    """

    id: str
    type: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class GraphRelation:
    """A relation between two nodes; all its properties are strings, numbers or truth values."""

    head: GraphNode
    tail: GraphNode
    label: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class TextGraph:
    """The relations of one text, and the nodes that they connect; or why the pipeline failed on it."""

    nodes: list[GraphNode]
    relations: list[GraphRelation]
    error: str | None = None


class PipelineRunner:
    """Runs a pipeline over texts in batches; calls from several threads wait for each other.

    Nothing is loaded before the first text.

    Args:
        pipeline: A pipeline with a relation component, or the name of a package or folder. To the latter,
            `slm_relations` is added if there is no relation component. The error handlers of the pipeline are replaced,
            so that a failure only affects its text.
        labels: Labels instead of the pipeline's own, in any form of a schema: a list of names, a dict, a file.
        threshold: Minimum probability of a relation, instead of the pipeline's own.
        level: "facts" (relations between the entities of each text) or "mentions".
        batch_size: Texts per batch.

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
        if level not in LEVELS:
            raise ValueError(f'level = "{level}" is unknown. Use one of {", ".join(LEVELS)}.')
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}, but it must be at least 1.")
        try:
            if labels is not None:
                LabelSchema.from_any(labels)
        except TypeError as error:
            raise ValueError(str(error)) from error
        check_thresholds(type(self).__name__, threshold, {})
        self.pipeline = pipeline
        self.labels, self.threshold, self.level, self.batch_size = labels, threshold, level, batch_size
        self._loaded: ExtractionPipeline | None = None
        # A pipeline is not thread-safe. Reentrant, because `run` loads the pipeline.
        self._lock = threading.RLock()

    def load(self) -> ExtractionPipeline:
        """Return the pipeline with loaded weights.

        Raises:
            ValueError: The pipeline or its weights cannot be loaded, or it has no relation component.
        """
        with self._lock:
            if self._loaded is None:
                if isinstance(self.pipeline, Language):
                    self._loaded = prepare_extraction(self.pipeline)
                else:
                    self._loaded = load_extraction_pipeline(str(self.pipeline))
            return self._loaded

    def schema(self, labels: Any = None) -> LabelSchema:
        """Return the labels with their wordings, definitions and types.

        Args:
            labels: Labels instead of those of this object and of the pipeline.

        Raises:
            ValueError: The labels are wrong, or the component cannot have other labels.
        """
        with self._lock:
            loaded = self.load()
            return loaded.make_schema(self.labels if labels is None else labels)

    def run(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        *,
        labels: Any = None,
        threshold: float | None = None,
    ) -> list[RelationDocument]:
        """Return one document for each text; if the pipeline failed on it, it has an `error`.

        Args:
            texts: The texts.
            ids: Their ids; by default "1", "2", …
            labels: Labels instead of those of this object and of the pipeline.
            threshold: Minimum probability instead of that of this object and of the pipeline.

        Raises:
            ValueError: Wrong labels or threshold, or the pipeline cannot be loaded.
            ServiceError: A remote service is unavailable.
        """
        threshold = self.threshold if threshold is None else threshold
        ids = ids or [str(number) for number in range(1, len(texts) + 1)]
        with self._lock:
            loaded = self.load()
            own = None if labels is None and self.labels is None else self.schema(labels)
            inputs = (InputDocument(id, text, labels=own) for id, text in zip(ids, texts, strict=True))
            return loaded.extract(inputs, threshold=threshold, batch_size=self.batch_size)

    async def arun(
        self, texts: Sequence[str], ids: Sequence[str] | None = None, **options: Any
    ) -> list[RelationDocument]:
        """Do the same as `run` in a thread, because a pipeline keeps a processor busy."""
        return await asyncio.to_thread(self.run, texts, ids, **options)

    def graphs(self, texts: Sequence[str], ids: Sequence[str], *, labels: Any = None) -> list[TextGraph]:
        """Return the graph of each text, and warn if the pipeline failed on some; see `run`."""
        documents = self.run(texts, ids, labels=labels)
        if failed := [document for document in documents if document.error is not None]:
            warnings.warn(
                f"{len(failed)} of {len(documents)} texts failed and have no relations. The first: {failed[0].id}: "
                f"{failed[0].error}",
                stacklevel=2,
            )
        schema = self.schema(labels)
        return [make_graph(document, schema, self.level) for document in documents]

    async def agraphs(self, texts: Sequence[str], ids: Sequence[str], *, labels: Any = None) -> list[TextGraph]:
        """Do the same as `graphs` in a thread."""
        return await asyncio.to_thread(self.graphs, texts, ids, labels=labels)


def make_graph(document: RelationDocument, schema: LabelSchema, level: str = "facts") -> TextGraph:
    """Return the relations of a document as a graph.

    Args:
        document: The document; if it failed, the graph is empty and has its error.
        schema: The labels, for their wordings.
        level: "facts" or "mentions".
    """
    if document.error is not None:
        return TextGraph([], [], document.error)
    # Merging one document gives its facts under keys that are the same in all documents.
    edges = merge_edges([document]) if level == "facts" else list(make_edges([document]))
    nodes = {node.key: _graph_node(node) for edge in edges for node in (edge.head, edge.tail)}
    relations = [
        GraphRelation(nodes[edge.head.key], nodes[edge.tail.key], edge.label, _properties(edge, schema))
        for edge in edges
    ]
    return TextGraph(list(nodes.values()), relations)


def _graph_node(node: Node) -> GraphNode:
    id = node.key
    if node.key.startswith(("id:", "text:")):
        id = node.kb_id or node.text
    properties = {"name": node.text, "type": node.type, "kb_id": node.kb_id, "key": node.key}
    return GraphNode(id, node.type, {name: value for name, value in properties.items() if value})


def _properties(edge: Edge, schema: LabelSchema) -> dict[str, Any]:
    """Return the properties of a relation; sentence and offsets are those of its best source."""
    best = edge.source
    offsets = {"sentence": best, "head": best.head, "tail": best.tail}
    index = schema.index.get(edge.label)
    return {
        **relationship_properties(edge),
        "wording": edge.label if index is None else schema.labels[index].wording,
        "inverse": edge.inverse,
        **{f"{name}_{end}": getattr(place, end) for name, place in offsets.items() for end in ("start", "end")},
        "model": best.model,
    }
