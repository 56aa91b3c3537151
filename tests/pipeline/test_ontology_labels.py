"""Components whose labels are those of an ontology: from the config to RDF with the ontology's own IRIs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rdflib
import spacy
from rdflib import OWL, URIRef
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export import ExportSettings, export, read_documents
from spacy_slmre.relations import join_docs
from tests.conftest import TEXTS
from tests.test_ontology import SCHEMA_ORG

ALUMNI_OF, ALUMNI = (URIRef(f"https://schema.org/{name}") for name in ("alumniOf", "alumni"))


@pytest.fixture
def ontology(tmp_path: Path) -> Path:
    path = tmp_path / "schemaorg.ttl"
    path.write_text(SCHEMA_ORG, encoding="utf-8")
    return path


@pytest.fixture
def nlp(blank: Callable[[], Language], tiny_model: dict, ontology: Path) -> Language:
    nlp = blank()
    schema = {"ontology": str(ontology), "include": ["alumniOf", "alumni"], "negative_label": None}
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": schema})
    return nlp


def test_relations_have_the_labels_types_and_iris_of_the_ontology(nlp: Language, tmp_path: Path) -> None:
    docs = list(nlp.pipe(TEXTS))
    relations = [relation for doc in docs for relation in doc._.relations]
    found = {(relation.head.label_, relation.label, relation.tail.label_) for relation in relations}
    assert found and found <= {("PERSON", "alumniOf", "ORG"), ("ORG", "alumni", "PERSON")}
    for merge in (None, "text"):
        export(docs, tmp_path / "out.ttl", settings=ExportSettings(merge=merge), overwrite=True)
        graph = rdflib.Graph().parse(tmp_path / "out.ttl")
        assert list(graph.subject_objects(ALUMNI_OF)) and (ALUMNI, OWL.inverseOf, ALUMNI_OF) in graph
        assert {(tail, head) for head, tail in graph.subject_objects(ALUMNI_OF)} == set(graph.subject_objects(ALUMNI))
    own = ExportSettings(properties={"alumniOf": "P69"})
    export(docs, tmp_path / "out.ttl", settings=own, overwrite=True)
    graph = rdflib.Graph().parse(tmp_path / "out.ttl")
    assert not list(graph.subject_objects(ALUMNI_OF))


def test_iris_are_kept_in_files_and_joined_documents(nlp: Language, tmp_path: Path) -> None:
    docs = list(nlp.pipe(TEXTS))
    expected = {"alumniOf": str(ALUMNI_OF), "alumni": str(ALUMNI)}
    doc = next(doc for doc in docs if doc._.relations)
    copies = [Doc(nlp.vocab).from_bytes(doc.to_bytes()), join_docs([nlp.make_doc("Before."), doc])]
    copies.append(RelationDocument.from_doc(doc).to_doc(nlp))
    assert [dict(RelationDocument.from_doc(copy).iris) for copy in copies] == [expected] * 3
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(RelationDocument.from_doc(doc).to_dict()), encoding="utf-8")
    (read,) = read_documents([str(path)], sys.stdin)
    assert read == RelationDocument.from_doc(doc) and read.iris == expected


def test_saved_pipelines_do_not_need_the_ontology(nlp: Language, ontology: Path, tmp_path: Path) -> None:
    schema = nlp.get_pipe("slm_relations").schema
    nlp.to_disk(tmp_path / "pipeline")
    ontology.unlink()
    assert spacy.load(tmp_path / "pipeline").get_pipe("slm_relations").schema == schema
    assert schema.iris == {"alumniOf": str(ALUMNI_OF), "alumni": str(ALUMNI)}


def test_a_path_is_enough(blank: Callable[[], Language], tiny_model: dict, ontology: Path) -> None:
    nlp = blank()
    component = nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": str(ontology)})
    assert component.labels[0] == "alumni" and "birthDate" in component.labels
    ontology.write_text("<html>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"schemaorg\.ttl: the file is not an ontology in Turtle"):
        blank().add_pipe("slm_relations", config={"model": tiny_model, "schema": str(ontology)}).set_schema(ontology)
