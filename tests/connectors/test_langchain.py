from __future__ import annotations

import asyncio
import hashlib

import pytest
from langchain_core.documents import Document
from langchain_neo4j.graphs.graph_document import GraphDocument
from spacy.language import Language

from spacy_slmre.connectors.langchain import SpacyGraphTransformer
from tests.conftest import TEXTS


def documents() -> list[Document]:
    return [Document(page_content=text, metadata={"page": number}) for number, text in enumerate(TEXTS)]


def test_documents_become_graph_documents_in_order(pipeline: str) -> None:
    transformer = SpacyGraphTransformer(pipeline)
    given = documents()
    graphs = transformer.convert_to_graph_documents(given)
    assert all(isinstance(graph, GraphDocument) for graph in graphs)
    assert [graph.source for graph in graphs] == given
    first = graphs[0]
    assert {(node.id, node.type) for node in first.nodes} == {
        ("Ann Lee", "PERSON"),
        ("Rome", "GPE"),
        ("Bo Lee", "PERSON"),
        ("Red Mill", "ORG"),
        ("Warsaw", "GPE"),
    }
    for relationship in first.relationships:
        assert relationship.type in ("knows", "employer")
        assert relationship.source in first.nodes and relationship.target in first.nodes
        assert relationship.properties["sentence"] in TEXTS[0] and 0 < relationship.properties["score"] <= 1
    assert not graphs[2].nodes and not graphs[3].nodes
    assert asyncio.run(transformer.aconvert_to_graph_documents(given)) == graphs
    # What loaders return from `lazy_load` can only be read once.
    assert transformer.convert_to_graph_documents(iter(given)) == graphs
    assert asyncio.run(transformer.aconvert_to_graph_documents(iter(given))) == graphs


def test_a_failed_document_has_its_error_and_the_others_their_graphs(nlp: Language) -> None:
    given = documents()
    with pytest.warns(UserWarning, match="1 of 6 texts failed"):
        graphs = SpacyGraphTransformer(nlp, labels=["rival"], level="mentions").convert_to_graph_documents(given)
    failed = graphs[2]
    assert failed.source is not None and not failed.nodes
    assert failed.source.metadata == {"page": 2, "relations_error": "RuntimeError: this text is too sad"}
    assert given[2].metadata == {"page": 2}
    assert [bool(graph.nodes) for graph in graphs] == [True, True, False, False, True, True]
    assert {one.type for graph in graphs for one in graph.relationships} == {"rival"}


def test_relations_name_the_id_that_a_graph_gives_to_the_source(pipeline: str) -> None:
    with_id = Document(page_content=TEXTS[1], metadata={"id": "chunk 7"})
    graphs = SpacyGraphTransformer(pipeline).convert_to_graph_documents([with_id, Document(page_content=TEXTS[1])])
    names = [graph.relationships[0].properties["document"] for graph in graphs]
    # `Neo4jGraph.add_graph_documents(…, include_source=True)` uses the MD5 hash of the text if there is no id.
    assert names == ["chunk 7", hashlib.md5(TEXTS[1].encode()).hexdigest()]
