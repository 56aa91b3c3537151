from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import PropertyGraphIndex
from llama_index.core.graph_stores import SimplePropertyGraphStore
from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY, EntityNode
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import MetadataMode, TextNode
from spacy.language import Language

from spacy_slmre.connectors.llama_index import SpacyPathExtractor
from tests.conftest import TEXTS


def text_nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=f"node{n}", metadata={"file": "a.txt"}) for n, text in enumerate(TEXTS)]


def dump(nodes: Any) -> list[dict[str, Any]]:
    return [
        {key: [one.model_dump() for one in node.metadata[key]] for key in (KG_NODES_KEY, KG_RELATIONS_KEY)}
        for node in nodes
    ]


def test_index_contains_the_relations_and_survives_a_round_trip(pipeline: str, tmp_path: Path) -> None:
    extractor = SpacyPathExtractor(pipeline)
    index = PropertyGraphIndex(nodes=text_nodes(), kg_extractors=[extractor], embed_kg_nodes=False)
    store = index.property_graph_store
    triplets = store.get_triplets(entity_names=["Marie Curie"])
    assert triplets
    for head, relation, tail in triplets:
        types = {node.name: node.label for node in (head, tail) if isinstance(node, EntityNode)}
        assert types["Marie Curie"] == "PERSON" and len(types) == 2
        assert relation.label in ("knows", "employer")
        assert relation.properties["sentence"] in TEXTS and relation.properties["file"] == "a.txt"
        assert relation.properties["triplet_source_id"] == relation.properties["document"]
    store.persist(str(tmp_path / "graph.json"))
    loaded = SimplePropertyGraphStore.from_persist_path(str(tmp_path / "graph.json"))

    def key(triplet: Any) -> tuple[str, ...]:
        return tuple(part.id for part in triplet)

    again = loaded.get_triplets(entity_names=["Marie Curie"])
    assert sorted(map(key, again)) == sorted(map(key, triplets))


def test_an_unknown_setting_is_refused_and_known_ones_are_serialized(pipeline: str) -> None:
    with pytest.raises(TypeError, match="treshold"):
        SpacyPathExtractor(pipeline, treshold=0.5)  # type: ignore[call-arg]
    again = SpacyPathExtractor.from_dict(SpacyPathExtractor(pipeline, labels=["rival"], threshold=0.5).to_dict())
    assert (again.labels, again.threshold, again.level) == (["rival"], 0.5, "facts")


def test_asynchronous_extraction_and_another_process_give_the_same(pipeline: str) -> None:
    extractor = SpacyPathExtractor(pipeline, labels=["rival", "sibling"], threshold=0.1, level="mentions")
    expected = dump(extractor(text_nodes()))
    assert any(one[KG_RELATIONS_KEY] for one in expected)
    assert dump(asyncio.run(extractor.acall(text_nodes()))) == expected
    assert dump(pickle.loads(pickle.dumps(extractor))(text_nodes())) == expected


def test_a_failed_node_has_its_error_which_models_do_not_read(nlp: Language) -> None:
    with pytest.warns(UserWarning, match="1 of 6 texts failed"):
        nodes = SpacyPathExtractor(nlp)(text_nodes())
    failed = nodes[2]
    assert failed.metadata["relations_error"] == "RuntimeError: this text is too sad"
    assert failed.metadata[KG_NODES_KEY] == failed.metadata[KG_RELATIONS_KEY] == []
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert "too sad" not in failed.get_metadata_str(mode=mode)
    assert [bool(node.metadata[KG_RELATIONS_KEY]) for node in nodes] == [True, True, False, False, True, True]


def test_results_of_other_extractors_are_kept(pipeline: str) -> None:
    node = TextNode(text=TEXTS[1])
    other = EntityNode(name="Radium")
    node.metadata[KG_NODES_KEY] = [other]
    (node,) = SpacyPathExtractor(pipeline)([node])  # type: ignore[assignment]
    names = [entity.name for entity in node.metadata[KG_NODES_KEY]]
    assert names[0] == "Radium" and {"Marie Curie", "Pierre Curie"} <= set(names)
    assert all("nodes" not in one.properties for one in node.metadata[KG_RELATIONS_KEY])


def test_the_cache_of_an_ingestion_tells_pipelines_apart(nlp: Language, pipeline: str) -> None:
    first = IngestionPipeline(transformations=[SpacyPathExtractor(nlp)])
    nodes = first.run(nodes=[TextNode(text=TEXTS[1], id_="a")])
    assert {one.label for one in nodes[0].metadata[KG_RELATIONS_KEY]} <= {"knows", "employer"}
    nlp.get_pipe("slm_relations").set_schema(["rival"])  # type: ignore[attr-defined]
    second = IngestionPipeline(transformations=[SpacyPathExtractor(nlp)], cache=first.cache)
    nodes = second.run(nodes=[TextNode(text=TEXTS[1], id_="a")])
    assert {one.label for one in nodes[0].metadata[KG_RELATIONS_KEY]} == {"rival"}
