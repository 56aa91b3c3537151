"""Label schemas from ontologies. The texts are excerpts of published vocabularies, with their own IRIs and labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import rdflib

from spacy_slmre.schema import LabelSchema

# schema.org 12.0 (CC BY-SA 3.0), as its Turtle file.
SCHEMA_ORG = """
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix schema: <https://schema.org/> .

schema:Text a schema:DataType, rdfs:Class .
schema:Date a schema:DataType, rdfs:Class .
schema:URL a rdfs:Class ; rdfs:subClassOf schema:Text .
schema:Person a rdfs:Class ; rdfs:subClassOf schema:Thing .
schema:Organization a rdfs:Class ; rdfs:subClassOf schema:Thing .
schema:LocalBusiness a rdfs:Class ; rdfs:subClassOf schema:Organization, schema:Place .
schema:EducationalOrganization a rdfs:Class ; rdfs:subClassOf schema:CivicStructure, schema:Organization .
schema:CivicStructure a rdfs:Class ; rdfs:subClassOf schema:Place .
schema:Place a rdfs:Class ; rdfs:subClassOf schema:Thing .
schema:CreativeWork a rdfs:Class ; rdfs:subClassOf schema:Thing .
schema:Movie a rdfs:Class ; rdfs:subClassOf schema:CreativeWork .
schema:ProgramMembership a rdfs:Class ; rdfs:subClassOf schema:Intangible .

schema:alumni a rdf:Property ; rdfs:label "alumni" ; rdfs:comment "Alumni of an organization." ;
    schema:domainIncludes schema:EducationalOrganization, schema:Organization ;
    schema:inverseOf schema:alumniOf ; schema:rangeIncludes schema:Person .
schema:alumniOf a rdf:Property ; rdfs:label "alumniOf" ;
    rdfs:comment "An organization that the person is an alumni of." ;
    schema:domainIncludes schema:Person ;
    schema:rangeIncludes schema:EducationalOrganization, schema:Organization .
schema:birthDate a rdf:Property ; rdfs:label "birthDate" ; rdfs:comment "Date of birth." ;
    schema:domainIncludes schema:Person ; schema:rangeIncludes schema:Date .
schema:branchOf a rdf:Property ; rdfs:label "branchOf" ;
    schema:domainIncludes schema:LocalBusiness ; schema:rangeIncludes schema:Organization .
schema:countryOfOrigin a rdf:Property ; rdfs:label "countryOfOrigin" ;
    rdfs:comment \"\"\"The country of origin of something, including products as well as creative  works such as
movie and TV content.\\\\n\\\\nIn the case of TV and movie, this would be the country of the principle offices of
the production company or individual responsible for the movie.\"\"\" ;
    schema:domainIncludes schema:CreativeWork, schema:Movie ; schema:rangeIncludes schema:Place .
schema:knowsAbout a rdf:Property ; rdfs:label "knowsAbout" ; rdfs:comment
    "Of a [[Person]], and less typically of an [[Organization]], to indicate a topic that is known about." ;
    schema:domainIncludes schema:Organization, schema:Person ;
    schema:rangeIncludes schema:Text, schema:Thing, schema:URL .
schema:memberOf a rdf:Property ; rdfs:label "memberOf" ;
    schema:domainIncludes schema:Organization, schema:Person ;
    schema:rangeIncludes schema:Organization, schema:ProgramMembership .
schema:members a rdf:Property ; rdfs:label "members" ; schema:supersededBy schema:member ;
    schema:domainIncludes schema:Organization ; schema:rangeIncludes schema:Organization, schema:Person .
schema:name a rdf:Property ; rdfs:label "name" ; schema:domainIncludes schema:Thing ; schema:rangeIncludes schema:Text .
schema:sameAs a rdf:Property ; schema:domainIncludes schema:Thing ; schema:rangeIncludes schema:URL .
"""

# FOAF 0.99 (CC BY 1.0), as its RDF/XML file.
FOAF = """<!-- This is the FOAF formal vocabulary description, expressed using W3C RDFS and OWL markup. -->
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#"
  xmlns:owl="http://www.w3.org/2002/07/owl#" xmlns:vs="http://www.w3.org/2003/06/sw-vocab-status/ns#">
  <rdfs:Class rdf:about="http://xmlns.com/foaf/0.1/Person" rdfs:label="Person">
    <rdfs:subClassOf><owl:Class rdf:about="http://xmlns.com/foaf/0.1/Agent"/></rdfs:subClassOf>
  </rdfs:Class>
  <rdfs:Class rdf:about="http://xmlns.com/foaf/0.1/Document" rdfs:label="Document">
    <owl:equivalentClass rdf:resource="http://schema.org/CreativeWork"/>
  </rdfs:Class>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/knows" vs:term_status="stable" rdfs:label="knows"
    rdfs:comment="A person known by this person (indicating some level of reciprocated interaction between
    the parties).">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
    <rdfs:domain rdf:resource="http://xmlns.com/foaf/0.1/Person"/>
    <rdfs:range rdf:resource="http://xmlns.com/foaf/0.1/Person"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/based_near" vs:term_status="testing" rdfs:label="based near">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
    <rdfs:domain rdf:resource="http://www.w3.org/2003/01/geo/wgs84_pos#SpatialThing"/>
    <rdfs:range rdf:resource="http://www.w3.org/2003/01/geo/wgs84_pos#SpatialThing"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/maker" rdfs:label="maker"
    rdfs:comment="An agent that made this thing.">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
    <rdfs:domain rdf:resource="http://www.w3.org/2002/07/owl#Thing"/>
    <rdfs:range rdf:resource="http://xmlns.com/foaf/0.1/Agent"/>
    <owl:inverseOf rdf:resource="http://xmlns.com/foaf/0.1/made"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/made" rdfs:label="made">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/primaryTopic" rdfs:label="primary topic">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#FunctionalProperty"/>
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
    <rdfs:domain rdf:resource="http://xmlns.com/foaf/0.1/Document"/>
    <rdfs:range rdf:resource="http://www.w3.org/2002/07/owl#Thing"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/isPrimaryTopicOf" rdfs:label="is primary topic of">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#InverseFunctionalProperty"/>
    <owl:inverseOf rdf:resource="http://xmlns.com/foaf/0.1/primaryTopic"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/fundedBy" vs:term_status="archaic" rdfs:label="funded by">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#ObjectProperty"/>
    <rdfs:range rdf:resource="http://www.w3.org/2002/07/owl#Thing"/>
  </rdf:Property>
  <rdf:Property rdf:about="http://xmlns.com/foaf/0.1/age" rdfs:label="age">
    <rdf:type rdf:resource="http://www.w3.org/2002/07/owl#DatatypeProperty"/>
    <rdfs:domain rdf:resource="http://xmlns.com/foaf/0.1/Agent"/>
    <rdfs:range rdf:resource="http://www.w3.org/2000/01/rdf-schema#Literal"/>
  </rdf:Property>
</rdf:RDF>
"""

# PROV-O (W3C), as JSON-LD.
PROV_O = json.dumps(
    {
        "@context": {
            "prov": "http://www.w3.org/ns/prov#",
            "owl": "http://www.w3.org/2002/07/owl#",
            "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
            "xsd": "http://www.w3.org/2001/XMLSchema#",
        },
        "@graph": [
            {
                "@id": "prov:actedOnBehalfOf",
                "@type": "owl:ObjectProperty",
                "rdfs:label": "actedOnBehalfOf",
                "rdfs:comment": {
                    "@language": "en",
                    "@value": "An object property to express the accountability of an agent towards another agent. "
                    "The subordinate agent acted on behalf of the responsible agent in an actual activity. ",
                },
                "rdfs:domain": {"@id": "prov:Agent"},
                "rdfs:range": {"@id": "prov:Agent"},
            },
            # The inverses of PROV-O have no type, domain and range of their own.
            {"@id": "prov:hadDelegate", "rdfs:label": "had delegate", "owl:inverseOf": {"@id": "prov:actedOnBehalfOf"}},
            {"@id": "prov:alternateOf", "@type": "owl:ObjectProperty", "owl:inverseOf": {"@id": "prov:alternateOf"}},
            {
                "@id": "prov:atLocation",
                "@type": "owl:ObjectProperty",
                "rdfs:label": "atLocation",
                "rdfs:domain": {
                    "@type": "owl:Class",
                    "owl:unionOf": {"@list": [{"@id": "prov:Person"}, {"@id": "prov:Organization"}]},
                },
                "rdfs:range": {"@id": "prov:Location"},
            },
            {
                "@id": "prov:startedAtTime",
                "@type": ["owl:DatatypeProperty", "owl:FunctionalProperty"],
                "rdfs:domain": {"@id": "prov:Activity"},
                "rdfs:range": {"@id": "xsd:dateTime"},
            },
            {"@id": "prov:value", "@type": "owl:DatatypeProperty", "rdfs:domain": {"@id": "prov:Entity"}},
        ],
    }
)

# CIDOC CRM 7.1 (CC BY 4.0), as Turtle.
CIDOC = """
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix crm: <http://www.cidoc-crm.org/cidoc-crm/> .
crm:E67_Birth rdfs:subClassOf crm:E63_Beginning_of_Existence .
crm:E63_Beginning_of_Existence rdfs:subClassOf crm:E5_Event .
crm:P98_brought_into_life a rdf:Property ; rdfs:domain crm:E67_Birth ; rdfs:range crm:E21_Person ;
    rdfs:label "P98 brought into life"@en, "P98 brachte zur Welt"@de .
crm:P7_took_place_at a rdf:Property ; rdfs:domain crm:E5_Event ; rdfs:range crm:E53_Place ;
    rdfs:label "fand statt in"@de .
crm:P4_has_time-span a rdf:Property ; rdfs:domain crm:E67_Birth ; rdfs:range crm:E52_Time-Span ;
    rdfs:label "Has Time-Span"@en-GB .
crm:P14_carried_out_by a rdf:Property ; rdfs:label "carried out by" ; rdfs:range crm:E39_Actor .
crm:P22_transferred_title_to a rdf:Property ; rdfs:subPropertyOf crm:P14_carried_out_by .
"""


def read(folder: Path, text: str, suffix: str, **options: object) -> dict[str, dict]:
    path = folder / f"vocabulary{suffix}"
    path.write_text(text, encoding="utf-8")
    schema = LabelSchema.from_ontology(path, **options)  # type: ignore[arg-type]
    assert schema.labels[-1].name == schema.negative_label == "no_relation"
    return {label.pop("name"): label for label in schema.to_dict()["labels"][:-1]}


def test_schema_org_in_turtle(tmp_path: Path) -> None:
    labels = read(tmp_path, SCHEMA_ORG, ".ttl")
    assert list(labels) == ["alumni", "alumniOf", "birthDate", "branchOf", "countryOfOrigin", "knowsAbout", "memberOf"]
    assert labels["alumniOf"] == {
        "wording": "alumni of",
        "definition": "An organization that the person is an alumni of",
        "types": [["PER", "ORG"]],
        "inverse": "alumni",
        "iri": "https://schema.org/alumniOf",
    }
    assert labels["alumni"]["inverse"] == "alumniOf"
    assert labels["birthDate"]["types"] == [["PER", "DATE"]]
    assert labels["branchOf"]["types"] == [["LOC", "ORG"], ["ORG", "ORG"]]
    assert labels["countryOfOrigin"]["types"] == [["WORK", "LOC"]]
    assert labels["countryOfOrigin"]["definition"].endswith("such as movie and TV content")
    assert labels["knowsAbout"]["definition"].startswith("Of a Person, and less")
    # Whatever a class without an entity type contains is allowed.
    assert labels["knowsAbout"]["types"] == [["ORG", "*"], ["PER", "*"]] == labels["memberOf"]["types"]


def test_foaf_in_rdf_xml(tmp_path: Path) -> None:
    labels = read(tmp_path, FOAF, ".rdf")
    assert list(labels) == ["based_near", "isPrimaryTopicOf", "knows", "made", "maker", "primaryTopic"]
    assert labels["knows"]["types"] == [["PER", "PER"]] and labels["based_near"]["types"] == []
    assert labels["knows"]["definition"].startswith("A person known by this person (indicating some level")
    assert labels["maker"]["types"] == [["*", "ORG"], ["*", "PER"]]
    assert labels["made"]["types"] == [["ORG", "*"], ["PER", "*"]]
    assert labels["made"]["inverse"] == "maker" and labels["maker"]["inverse"] == "made"
    assert labels["primaryTopic"]["types"] == [["WORK", "*"]] and labels["primaryTopic"]["max_per_head"] == 1
    assert labels["isPrimaryTopicOf"]["types"] == [["*", "WORK"]] and labels["isPrimaryTopicOf"]["max_per_tail"] == 1
    assert labels["isPrimaryTopicOf"]["iri"] == "http://xmlns.com/foaf/0.1/isPrimaryTopicOf"


def test_prov_o_in_json_ld(tmp_path: Path) -> None:
    labels = read(tmp_path, PROV_O, ".jsonld")
    assert list(labels) == ["actedOnBehalfOf", "alternateOf", "atLocation", "hadDelegate", "startedAtTime"]
    agents = [["ORG", "ORG"], ["ORG", "PER"], ["PER", "ORG"], ["PER", "PER"]]
    assert labels["actedOnBehalfOf"]["types"] == labels["hadDelegate"]["types"] == agents
    assert labels["actedOnBehalfOf"]["definition"].endswith("of an agent towards another agent")
    assert labels["hadDelegate"]["inverse"] == "actedOnBehalfOf"
    assert labels["alternateOf"]["symmetric"] is True and "inverse" not in labels["alternateOf"]
    assert labels["atLocation"]["types"] == [["ORG", "LOC"], ["PER", "LOC"]]
    assert labels["startedAtTime"] | {"types": [["*", "DATE"]], "max_per_head": 1} == labels["startedAtTime"]


def test_cidoc_crm_with_codes_and_other_languages(tmp_path: Path) -> None:
    labels = read(tmp_path, CIDOC, ".ttl")
    assert {name: label["wording"] for name, label in labels.items()} == {
        "P14_carried_out_by": "carried out by",
        "P22_transferred_title_to": "p22 transferred title to",
        "P4_has_time-span": "has time-span",
        "P7_took_place_at": "fand statt in",
        "P98_brought_into_life": "brought into life",
    }
    assert labels["P98_brought_into_life"]["types"] == [["EVENT", "PER"]]
    assert labels["P4_has_time-span"]["types"] == [["EVENT", "DATE"]]
    assert labels["P22_transferred_title_to"]["types"] == [["*", "ORG"], ["*", "PER"]]


def test_only_the_named_properties_are_read_in_their_order(tmp_path: Path) -> None:
    labels = read(tmp_path, SCHEMA_ORG, ".ttl", include=["https://schema.org/memberOf", "alumniOf", "members"])
    assert list(labels) == ["memberOf", "alumniOf", "members"]  # a deprecated one only on request
    assert "inverse" not in labels["alumniOf"]


def test_classes_get_the_entity_types_of_the_type_map(tmp_path: Path) -> None:
    labels = read(tmp_path, SCHEMA_ORG, ".ttl", type_map={"ProgramMembership": "PROGRAM", "localbusiness": "LOC"})
    assert labels["memberOf"]["types"] == [[head, tail] for head in ("ORG", "PER") for tail in ("ORG", "PROGRAM")]
    assert labels["branchOf"]["types"] == [["LOC", "ORG"]]


@pytest.mark.parametrize("format", ["xml", "json-ld", "nt", "n3"])
def test_all_formats_give_the_same_labels(format: str, tmp_path: Path) -> None:
    suffix = {"xml": ".owl", "json-ld": ".jsonld", "nt": ".nt", "n3": ".n3"}[format]
    text = rdflib.Graph().parse(data=SCHEMA_ORG, format="turtle").serialize(format=format)
    assert read(tmp_path, text, suffix) == read(tmp_path, SCHEMA_ORG, ".ttl") == read(tmp_path, SCHEMA_ORG, ".owl")


def test_equal_labels_are_told_apart_by_their_names(tmp_path: Path) -> None:
    text = SCHEMA_ORG.replace('"alumniOf"', '"Graduates"').replace('"memberOf"', '"graduates"')
    labels = read(tmp_path, text, ".ttl", include=["alumniOf", "memberOf"])
    assert [label["wording"] for label in labels.values()] == ["alumni of", "member of"]


def test_relative_names_have_no_iri(tmp_path: Path) -> None:
    text = "@prefix : <#> . @prefix owl: <http://www.w3.org/2002/07/owl#> . :knows a owl:ObjectProperty ."
    assert read(tmp_path, text, ".ttl") == {"knows": {"wording": "knows", "definition": "", "types": []}}
    # An anonymous inverse is not a label.
    assert list(read(tmp_path, f"{text} [] owl:inverseOf :knows .", ".ttl")) == ["knows"]


OTHER_NAMES = """<http://x.org/members> a rdf:Property ; rdfs:range schema:Person ."""


@pytest.mark.parametrize(
    ("suffix", "text", "include", "error"),
    [
        (".ttl", "<html><body>404</body></html>", None, "is not an ontology in Turtle"),
        (".rdf", "<?xml version='1.0'?><rdf:RDF", None, "is not an ontology in RDF/XML"),
        (".jsonld", "{", None, "is not an ontology in JSON-LD"),
        (".jsonld", '{"@context": "https://schema.org", "@id": "x"}', None, "context is not in the file, but at https"),
        (".jsonld", '[{"a": {"@context": ["https://x.org", {}]}}]', None, "context is not in the file, but at https"),
        (".ttl", "", None, "no object properties"),
        (".ttl", SCHEMA_ORG, ["alumnyOf"], "such as alumniOf"),
        (".ttl", SCHEMA_ORG, ["name"], '"name" in `include` is not a relation'),
        (".ttl", SCHEMA_ORG, [], "label set is empty"),
        (".ttl", SCHEMA_ORG + OTHER_NAMES, ["members"], "several meanings; use one of http://x.org/members, https:"),
        (".ttl", SCHEMA_ORG + OTHER_NAMES.replace("members", "alumni"), None, 'two properties have the name "alumni"'),
    ],
)
def test_errors_name_the_file_and_the_reason(
    suffix: str, text: str, include: list[str] | None, error: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=error) as raised:
        read(tmp_path, text, suffix, include=include)
    assert f"vocabulary{suffix}" in str(raised.value) and "\n" not in str(raised.value)


def test_missing_files_and_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"none\.ttl cannot be read: No such file"):
        LabelSchema.from_any(tmp_path / "none.ttl")
    with pytest.raises(ValueError, match=r"suffix is not one of an ontology: \.ttl"):
        LabelSchema.from_ontology(tmp_path / "schema.json")
    monkeypatch.setitem(sys.modules, "rdflib", None)
    with pytest.raises(ValueError, match=r"pip install 'spacy-slmre\[ontology\]'"):
        read(tmp_path, SCHEMA_ORG, ".ttl")


def test_schemas_refer_to_ontologies(tmp_path: Path) -> None:
    read(tmp_path, SCHEMA_ORG, ".ttl")
    path = str(tmp_path / "vocabulary.ttl")
    expected = LabelSchema.from_ontology(path, include=["memberOf"], type_map={"ProgramMembership": "ORG"})
    settings = {"ontology": path, "include": ["memberOf"], "type_map": {"ProgramMembership": "ORG"}}
    assert LabelSchema.from_any(settings) == expected
    (tmp_path / "schema.json").write_text(json.dumps(settings), encoding="utf-8")
    assert LabelSchema.from_any(tmp_path / "schema.json") == expected
    assert LabelSchema.from_any(path) == LabelSchema.from_ontology(path)
    # The type map also applies to the entities of a pipeline, and the schema does not depend on the file.
    assert expected.map_type("ProgramMembership") == "ORG"
    assert LabelSchema.from_dict(expected.to_dict()) == expected


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"labels": ["a"]}, 'Unknown keys next to "ontology": labels'),
        ({"include": "spouse"}, '"include" a list'),
        ({"type_map": ["a"]}, '"type_map" an object'),
    ],
)
def test_wrong_references_to_ontologies_raise_errors(more: dict, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LabelSchema.from_dict({"ontology": "x.ttl", **more})


@pytest.mark.parametrize("iri", ["spouse", "https://a b", 3])
def test_the_iri_of_a_label_must_be_absolute(iri: object) -> None:
    with pytest.raises(ValueError, match='"iri" of the label "a" must be an absolute IRI'):
        LabelSchema.from_dict({"labels": [{"name": "a", "iri": iri}]})
