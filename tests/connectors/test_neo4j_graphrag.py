from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from neo4j_graphrag.components.entity_relation_extractor import OnError
from neo4j_graphrag.components.filename_collision_handler import FilenameCollisionHandler
from neo4j_graphrag.components.kg_writer import ParquetWriter
from neo4j_graphrag.components.schema import GraphSchema, NodeType, Pattern, PropertyType, RelationshipType
from neo4j_graphrag.components.text_splitters.fixed_size_splitter import FixedSizeSplitter
from neo4j_graphrag.components.types import DocumentInfo, LexicalGraphConfig, Neo4jGraph, TextChunk, TextChunks
from neo4j_graphrag.experimental.pipeline import Pipeline
from spacy.language import Language

from spacy_slmre.connectors.neo4j_graphrag import SpacyEntityRelationExtractor
from tests.conftest import TEXTS

LEXICAL = {"FROM_DOCUMENT", "NEXT_CHUNK", "FROM_CHUNK"}


def chunks() -> TextChunks:
    return TextChunks(chunks=[TextChunk(text=text, index=n, uid=f"c{n}") for n, text in enumerate(TEXTS)])


def check_endpoints(graph: Neo4jGraph) -> None:
    ids = [node.id for node in graph.nodes]
    assert len(ids) == len(set(ids))
    assert {end for one in graph.relationships for end in (one.start_node_id, one.end_node_id)} <= set(ids)


def test_entities_are_connected_to_their_chunks_and_chunks_to_the_document(pipeline: str) -> None:
    extractor = SpacyEntityRelationExtractor(pipeline)
    graph = asyncio.run(extractor.run(chunks(), document_info=DocumentInfo(path="a.txt", uid="doc")))
    check_endpoints(graph)
    by_type: dict[str, list] = {}
    for one in graph.relationships:
        by_type.setdefault(one.type, []).append(one)
    assert len(by_type["FROM_DOCUMENT"]) == len(TEXTS) and len(by_type["NEXT_CHUNK"]) == len(TEXTS) - 1
    entities = [node for node in graph.nodes if node.label not in ("Document", "Chunk")]
    assert {(one.start_node_id, one.end_node_id) for one in by_type["FROM_CHUNK"]} == {
        (node.id, node.id.partition(":")[0]) for node in entities
    }
    assert "c1:Marie Curie" in {node.id for node in entities}
    assert set(by_type) - LEXICAL == {one for one in by_type if one in ("knows", "employer")} != set()
    for one in by_type.get("knows", []) + by_type.get("employer", []):
        chunk = one.properties["document"]
        assert one.properties["sentence"] in TEXTS[int(chunk[1:])] and one.start_node_id.startswith(f"{chunk}:")
    keys = [node.properties["key"] for node in entities if node.properties["name"] == "Marie Curie"]
    assert len(keys) == 2 and len(set(keys)) == 1


def test_without_a_lexical_graph_only_entities_are_returned(pipeline: str) -> None:
    extractor = SpacyEntityRelationExtractor(pipeline, create_lexical_graph=False)
    graph = asyncio.run(extractor.run(chunks()))
    check_endpoints(graph)
    assert not LEXICAL & {one.type for one in graph.relationships} and graph.relationships
    # With names for it, entities are connected to chunks that are already in the database.
    config = LexicalGraphConfig(node_to_chunk_relationship_type="FOUND_IN")
    connected = asyncio.run(extractor.run(chunks(), lexical_graph_config=config))
    assert sum(one.type == "FOUND_IN" for one in connected.relationships) == len(graph.nodes)


def test_a_failed_chunk_has_its_error_or_stops_the_run(nlp: Language) -> None:
    with pytest.warns(UserWarning, match="1 of 6 texts failed"):
        graph = asyncio.run(SpacyEntityRelationExtractor(nlp).run(chunks()))
    nodes = {node.id: node.properties for node in graph.nodes}
    assert nodes["c2"]["relations_error"] == "RuntimeError: this text is too sad"
    assert "relations_error" not in nodes["c1"] and "c1:Marie Curie" in nodes
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="failed on the chunk c2: RuntimeError: this text is too sad"),
    ):
        asyncio.run(SpacyEntityRelationExtractor(nlp, on_error=OnError.RAISE).run(chunks()))


def test_relationship_types_of_a_schema_are_the_labels(pipeline: str) -> None:
    name = [PropertyType(name="name", type="STRING")]
    schema = GraphSchema(
        node_types=(NodeType(label="Person", properties=name), NodeType(label="Organization", properties=name)),
        relationship_types=(RelationshipType(label="WORKS_FOR", description="is paid by"),),
        patterns=(Pattern(source="Person", relationship="WORKS_FOR", target="Organization"),),
    )
    extractor = SpacyEntityRelationExtractor(pipeline, create_lexical_graph=False, threshold=0.0)
    graph = asyncio.run(extractor.run(chunks(), schema=schema))
    labels = {node.id: node.label for node in graph.nodes}
    ends = {(labels[one.start_node_id], one.type, labels[one.end_node_id]) for one in graph.relationships}
    assert ends == {("PERSON", "WORKS_FOR", "ORG")}
    assert {one.properties["wording"] for one in graph.relationships} == {"works for"}


class LocalFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output_path = str(folder)

    async def write(self, data: bytes, filename: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / filename).write_bytes(data)


def test_a_pipeline_splits_extracts_and_writes(pipeline: str, tmp_path: Path) -> None:
    builder = Pipeline()
    builder.add_component(FixedSizeSplitter(chunk_size=120, chunk_overlap=0), "splitter")
    builder.add_component(SpacyEntityRelationExtractor(pipeline), "extractor")
    destinations = LocalFolder(tmp_path / "nodes"), LocalFolder(tmp_path / "relationships")
    builder.add_component(ParquetWriter(*destinations, FilenameCollisionHandler()), "writer")
    builder.connect("splitter", "extractor", input_config={"chunks": "splitter"})
    builder.connect("extractor", "writer", input_config={"graph": "extractor"})
    asyncio.run(builder.run({"splitter": {"text": TEXTS[0] + " " + TEXTS[4]}}))
    people = pq.read_table(tmp_path / "nodes" / "PERSON.parquet").to_pylist()
    assert {"Ann Lee", "Ada Byron"} <= {one["name"] for one in people}
    tables = [pq.read_table(file).to_pylist() for file in (tmp_path / "relationships").glob("*.parquet")]
    found = [row for table in tables for row in table if "sentence" in row]
    assert found and all(0 < row["score"] <= 1 and row["sentence"] for row in found)
