from __future__ import annotations

import json
from importlib.resources import files

import pytest

from spacy_slmre.export import ExportError
from spacy_slmre.export.rdf import Namespace, wikidata_properties
from spacy_slmre.schema import LabelSchema


def test_labels_become_properties() -> None:
    foaf = "http://xmlns.com/foaf/0.1/knows"
    namespace = Namespace("https://example.org/", {"spouse": "P26", "knows": foaf})
    wikidata = "http://www.wikidata.org/prop/direct/"
    assert namespace.property("P19") == f"{wikidata}P19"
    assert namespace.property("spouse") == f"{wikidata}P26"
    assert namespace.property("knows") == foaf
    assert namespace.property("born in>") == "https://example.org/relation/born%20in%3E"


def test_only_wikidata_ids_and_web_addresses_are_linked_outside_of_the_base() -> None:
    namespace = Namespace("https://example.org/")
    assert namespace.linked("Q42") == "http://www.wikidata.org/entity/Q42"
    assert namespace.linked("https://dbpedia.org/resource/Rome") == "https://dbpedia.org/resource/Rome"
    assert namespace.linked("javascript:alert(1)") == "https://example.org/id/javascript%3Aalert%281%29"


def test_labels_of_the_general_schema_have_wikidata_properties() -> None:
    assert Namespace().property("place of birth") == "http://www.wikidata.org/prop/direct/P19"
    own = Namespace(properties={"place of birth": "https://schema.org/birthPlace"})
    assert own.property("place of birth") == "https://schema.org/birthPlace"
    assert Namespace().property("parent") == "urn:slmre:relation/parent"


def test_table_of_wikidata_properties_is_complete_and_agrees_with_wikidata() -> None:
    # All of Wikidata's properties, with names, as the study uses them.
    table = files("spacy_slmre.study.benchmarks") / "labels" / "wikidata.json"
    ids = {name: id for id, (name, _) in json.loads(table.read_text("utf-8")).items()}
    general = LabelSchema.general().names
    assert wikidata_properties() == {name: ids[name] for name in general if name in ids}


@pytest.mark.parametrize("base", ["example.org/", "https://example.org", "https://a b/", "https://a<b>/", ""])
def test_base_must_be_an_iri(base: str) -> None:
    with pytest.raises(ExportError, match="not a base IRI"):
        Namespace(base)
