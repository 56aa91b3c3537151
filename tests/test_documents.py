from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.documents import DocumentError, DocumentRelation, EntityMention, RelationDocument, set_provenance
from spacy_slmre.export.edges import merge_edges
from spacy_slmre.relations import install_extensions, write_report
from tests.relation_documents import documents

TEXT = "Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw."


@pytest.fixture
def doc(blank: Callable[[], Language]) -> Doc:
    install_extensions()
    doc = blank()(TEXT)
    ann, rome, bo, mill, _ = doc.ents
    doc.set_ents([Span(doc, rome.start, rome.end, "GPE", kb_id="Q220")], default="unmodified")
    rome = doc.ents[1]
    doc._.relations = [(ann, rome, "born in", 0.9), (bo, mill, "works for", 0.8), (ann, bo, "sibling", 0.7)]
    set_provenance(doc, "first", "en_blank 1.0 slm_relations")
    return doc


def test_json_form_has_the_documented_fields(doc: Doc) -> None:
    write_report(doc, {"scored": 3})
    data = RelationDocument.from_doc(doc).to_dict()
    assert list(data) == ["id", "text", "sentences", "entities", "relations", "report", "model"]
    assert (data["id"], data["text"], data["model"]) == ("first", TEXT, "en_blank 1.0 slm_relations")
    assert data["sentences"] == [[0, 25], [26, 74]] and data["report"] == {"scored": 3}
    assert data["relations"][0] == {
        "head": {"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"},
        "tail": {"start": 20, "end": 24, "text": "Rome", "type": "GPE", "kb_id": "Q220"},
        "label": "born in",
        "score": 0.9,
    }
    assert RelationDocument("b", "", error="too long").to_dict() == {"id": "b", "error": "too long"}


def test_arguments_have_the_id_of_their_entity(blank: Callable[[], Language]) -> None:
    # The mention in `doc.spans` has the id, the argument is another span with the same offsets and type.
    install_extensions()
    doc = blank()("Ann Lee was born in Rome.")
    ann, rome = doc.ents
    doc.spans[MENTIONS] = [Span(doc, rome.start, rome.end, rome.label_, kb_id="Q220")]
    doc._.relations = [(ann, rome, "born in", 0.9)]
    found = RelationDocument.from_doc(doc)
    assert found.relations[0].tail.kb_id == "Q220"
    assert found == RelationDocument.from_dict(found.to_dict())


def test_document_survives_json(doc: Doc) -> None:
    write_report(doc, {"scored": 3})
    expected = RelationDocument.from_doc(doc)
    assert expected.relations[0].tail == EntityMention(20, 24, "Rome", "GPE", "Q220")
    assert expected.sentences == ((0, 25), (26, 74))
    assert RelationDocument.from_dict(json.loads(json.dumps(expected.to_dict()))) == expected
    failed = RelationDocument("b", "", error="too long")
    assert RelationDocument.from_dict(failed.to_dict()) == failed


@settings(max_examples=25)
@given(docs=documents())
def test_arbitrary_documents_survive_json(docs: list[RelationDocument]) -> None:
    for document in docs:
        found = RelationDocument.from_dict(json.loads(json.dumps(document.to_dict())))
        assert found.to_dict() == document.to_dict()


def test_document_survives_conversion_to_a_doc(doc: Doc, blank: Callable[[], Language]) -> None:
    document = RelationDocument.from_doc(doc)
    made = document.to_doc(blank())
    assert RelationDocument.from_doc(made) == document
    assert MENTIONS not in made.spans and [ent.kb_id_ for ent in made.ents] == ["", "Q220", "", "", ""]


def test_tokens_are_split_at_mention_boundaries_and_overlapping_mentions_are_kept(
    blank: Callable[[], Language],
) -> None:
    long, short = EntityMention(0, 8, "post-war", "DATE"), EntityMention(5, 8, "war")
    document = RelationDocument("a", "post-war", (long, short), (DocumentRelation(short, long, "in"),))
    made = document.to_doc(blank())
    assert [ent.text for ent in made.ents] == ["post-war"]
    assert [(span.text, span.label_) for span in made.spans[MENTIONS]] == [("post-war", "DATE"), ("war", "ENTITY")]
    assert [(one.head.text, one.tail.text) for one in made._.relations] == [("war", "post-war")]


def test_mentions_may_begin_and_end_with_a_space(blank: Callable[[], Language]) -> None:
    ann, bo, space = (EntityMention(*bounds, "PER") for bounds in ((0, 4, "Ann "), (7, 10, " Bo"), (10, 11, " ")))
    relations = (DocumentRelation(ann, bo, "met", 0.5), DocumentRelation(bo, space, "met", 0.5))
    document = RelationDocument("a", "Ann met Bo .", (ann, bo, space), relations, ((0, 12),))
    made = document.to_doc(blank())
    assert made.text == document.text and [token.text for token in made] == ["Ann", " ", "met", " ", "Bo", " ", "."]
    assert RelationDocument.from_doc(made).relations == relations


def test_the_id_of_an_entity_ruler_identifies_an_entity_without_kb_id() -> None:
    nlp = spacy.blank("en")
    patterns = [("Ann Lee", "ann"), ("Ms Lee", "ann"), ("Rome", "rome")]
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PER", "pattern": pattern, "id": id} for pattern, id in patterns])
    doc = nlp("Ann Lee knows Rome, and Ms Lee likes Rome.")
    ann, rome, again, town = doc.ents
    doc.ents = [ann, rome, again, Span(doc, town.start, town.end, "PER", kb_id="Q220", span_id="rome")]
    doc._.relations = [(ann, rome, "knows"), (again, rome, "knows")]
    document = RelationDocument.from_doc(doc)
    assert [entity.kb_id for entity in document.entities] == ["ann", "rome", "ann", "Q220"]
    (edge,) = merge_edges([document])
    assert edge.count == 2 and edge.head.kb_id == "ann"


def test_a_wikidata_iri_of_an_entity_ruler_is_shortened_like_that_of_a_linker() -> None:
    nlp = spacy.blank("en")
    iri = "http://www.wikidata.org/entity/Q220"
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "LOC", "pattern": "Rome", "id": iri}])
    document = RelationDocument.from_doc(nlp("She left Rome."))
    assert [entity.kb_id for entity in document.entities] == ["Q220"]
    assert RelationDocument.from_dict(document.to_dict()) == document


def test_annotated_pairs_are_read(blank: Callable[[], Language]) -> None:
    mentions = [{"start": 0, "end": 3, "type": "PER"}, {"start": 8, "end": 12, "type": "LOC"}]
    pair = {"head": mentions[0], "tail": mentions[1], "label": "no relation"}
    document = RelationDocument.from_dict({"text": "Ann and Rome", "relations": [], "pairs": [pair]})
    made = document.to_doc(blank())
    assert [(one.head.text, one.label) for one in made._.relation_pairs] == [("Ann", "no relation")]
    assert not made._.relations and document.to_dict()["pairs"][0]["label"] == "no relation"


def test_failed_document_cannot_become_a_doc(blank: Callable[[], Language]) -> None:
    with pytest.raises(DocumentError, match="failed in extraction: too long"):
        RelationDocument("b", "", error="too long").to_doc(blank())


def test_relation_across_sentences_spans_both(doc: Doc) -> None:
    document = RelationDocument.from_doc(doc)
    assert [document.sentence_of(one) for one in document.relations] == [(0, 25), (26, 74), (0, 74)]


def test_unknown_sentences_are_split_at_punctuation(doc: Doc) -> None:
    data = RelationDocument.from_doc(doc).to_dict()
    del data["sentences"]
    document = RelationDocument.from_dict(data)
    assert document.sentences is None and document.sentence_bounds == ((0, 25), (26, 74))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, 'expected a JSON object with "text"'),
        ({"relations": [{"head": {"start": 0, "end": 3}, "label": "x"}]}, "'tail' is missing"),
        ({"entities": [{"start": 0, "end": 999}]}, "entity offsets 0 to 999 are invalid in a text of 7 characters"),
        ({"entities": [{"start": 0, "end": 3, "text": "Bob"}]}, 'text[0:3] is "Ann"'),
        ({"relations": 3}, '"relations" must be a list, not 3'),
        ({"sentences": [[0, 99]]}, "sentence offsets 0 to 99 are invalid"),
        ({"sentences": [[3, 3]]}, "sentence offsets 3 to 3 are invalid"),
        ({"pairs": [{}]}, "'label' is missing"),
        ({"relations": None}, '"relations" must be a list, not None'),
        ({"relations": ["born in"]}, "a relation must be an object"),
        ({"entities": "Ann"}, "\"entities\" must be a list, not 'Ann'"),
        ({"entities": ["Ann"]}, 'an entity must be an object with "start" and "end"'),
        ({"sentences": [[0, 5, 6]]}, "a sentence must be a list of start and end, not [0, 5, 6]"),
        ({"report": 5}, '"report" must be an object, not 5'),
        ({"clusters": [1]}, 'a cluster must be an object with "mentions"'),
        ({"iris": "x"}, '"iris" must be an object'),
        ({"limits": {"x": 5}}, '"x" must be an object'),
    ],
)
def test_malformed_data_raise_an_error_with_their_source(change: dict[str, Any], message: str) -> None:
    data = {"id": "a", "text": "Ann Lee", "entities": [], "relations": []} | change
    with pytest.raises(DocumentError, match=r"^x\.jsonl:1: ") as caught:
        RelationDocument.from_dict(data, "x.jsonl:1")
    assert message in str(caught.value)


def test_lone_surrogates_become_replacement_characters() -> None:
    data = json.loads(b'{"id": "a", "text": "x \\ud800", "relations": []}')
    assert RelationDocument.from_dict(data).text == "x \ufffd"
    failed = RelationDocument.from_dict(json.loads(b'{"id": "a\\ud800", "error": "b\\udfff"}'))
    assert (failed.id, failed.error) == ("a\ufffd", "b\ufffd")


def test_entity_that_the_linker_could_not_link_has_no_id(doc: Doc) -> None:
    rome = doc.ents[1]
    doc.set_ents([Span(doc, rome.start, rome.end, "GPE", kb_id="NIL")], default="unmodified")
    doc._.relations = [(doc.ents[0], doc.ents[1], "born in", 0.9)]
    document = RelationDocument.from_doc(doc)
    assert {one.kb_id for one in (*document.entities, document.relations[0].tail)} == {""}
    data = document.to_dict()
    data["entities"][1]["kb_id"] = "NIL"
    assert RelationDocument.from_dict(data) == document


def test_entities_and_sentences_are_sorted(doc: Doc) -> None:
    document = RelationDocument.from_doc(doc)
    data = document.to_dict()
    data |= {"entities": data["entities"][::-1], "sentences": data["sentences"][::-1]}
    assert RelationDocument.from_dict(data) == document


def test_heads_and_tails_get_the_id_of_their_entity_and_wikidata_iris_are_shortened(doc: Doc) -> None:
    document = RelationDocument.from_doc(doc)
    data = document.to_dict()
    data["entities"][1]["kb_id"] = "http://www.wikidata.org/entity/Q220"
    del data["relations"][0]["tail"]["kb_id"]
    assert RelationDocument.from_dict(data) == document
