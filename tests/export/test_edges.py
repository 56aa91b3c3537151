from __future__ import annotations

import pytest

from spacy_slmre.documents import DocumentRelation, EntityMention
from spacy_slmre.export import ExportError, RelationDocument, make_edges, merge_edges
from spacy_slmre.export.edges import entity_key, joined_key, mention_node
from spacy_slmre.export.rdf import Vocabulary, default_properties
from tests.relation_documents import make_document


def merged(docs: list[RelationDocument], by: str = "text") -> dict[tuple[str, str, str], tuple[int, float]]:
    edges = merge_edges(make_edges(docs), by)
    return {(edge.head.text, edge.label, edge.tail.text): (edge.count, edge.score) for edge in edges}


def test_equal_texts_are_joined_over_documents() -> None:
    docs = [
        make_document("a", ["Marie  Curie", "Paris"], ["PER", "LOC"], [(0, 1, "lived in", 0.5)]),
        make_document("b", ["MARIE CURIE", "Paris"], ["PER", "LOC"], [(0, 1, "lived in", 0.9)]),
        make_document("c", ["Marie  Curie", "Ｐａｒｉｓ"], ["PER", "LOC"], [(0, 1, "died in", 0.4)]),
    ]
    assert merged(docs) == {
        ("Marie  Curie", "lived in", "Paris"): (2, 0.9),
        ("Marie  Curie", "died in", "Paris"): (1, 0.4),
    }
    first = merge_edges(make_edges(docs))[0]
    assert [(source.document, source.score) for source in first.sources] == [("b", 0.9), ("a", 0.5)]


def test_type_keeps_namesakes_apart() -> None:
    docs = [
        make_document("a", ["Washington", "x"], ["PER", "LOC"], [(0, 1, "in", 1.0)]),
        make_document("b", ["Washington", "x"], ["LOC", "LOC"], [(0, 1, "in", 1.0)]),
    ]
    assert [count for count, _ in merged(docs).values()] == [2]
    assert len(merge_edges(make_edges(docs), "type")) == 2


def test_knowledge_base_ids_come_before_texts() -> None:
    def document(id: str, name: str, kb_id: str) -> RelationDocument:
        head, tail = (
            EntityMention(0, len(name), name, "PER", kb_id),
            EntityMention(len(name) + 1, len(name) + 2, "x"),
        )
        return RelationDocument(id, f"{name} x", (head, tail), (DocumentRelation(head, tail, "in"),))

    docs = [
        document("a", "Mme Curie", "Q7186"),
        document("b", "Marie Curie", "Q7186"),
        document("c", "Mme Curie", ""),
    ]
    assert sorted(edge.count for edge in merge_edges(make_edges(docs))) == [1, 2]


def test_keys_tell_apart_what_separators_could_confuse() -> None:
    def key(word: str, type: str = "", by: str = "text", kb_id: str = "") -> str:
        return entity_key(EntityMention(0, len(word), word, type, kb_id), by)

    assert key("b:c", "a", "type") != key("c", "a:b", "type")
    assert len({key("x", "text", "type"), key("x"), key("x", "id", "type"), key("", kb_id="x")}) == 4
    assert joined_key(key("a | r | text:b"), "s", key("c")) != joined_key(
        key("a"), "r", key("b | s | text:c")
    )
    assert joined_key(key("a"), "r | text:b", key("c")) != joined_key(key("a | r"), "b", key("c"))
    one, two = EntityMention(0, 1, "x", "t"), EntityMention(0, 1, "x", "")
    assert mention_node("d#char=0,1&type=", one).key != mention_node("d", two).key
    assert key("Zoë & Co.") == "text:zoë %26 co." and joined_key(key("Ann"), "born in", key("Rome")) == (
        "text:ann | born in | text:rome"
    )


def test_unknown_merge_is_refused() -> None:
    with pytest.raises(ExportError, match="text, type"):
        merge_edges([], "name")


def test_property_iris() -> None:
    vocabulary = Vocabulary(
        "https://example.org/", {"spouse": "P26", "knows": "http://xmlns.com/foaf/0.1/knows"}
    )
    wikidata = "http://www.wikidata.org/prop/direct/"
    assert vocabulary.property("P19") == f"{wikidata}P19"
    assert vocabulary.property("spouse") == f"{wikidata}P26"
    assert vocabulary.property("knows") == "http://xmlns.com/foaf/0.1/knows"
    assert vocabulary.property("born in>") == "https://example.org/relation/born%20in%3E"
    assert vocabulary.identified("Q42") == "http://www.wikidata.org/entity/Q42"
    assert vocabulary.identified("javascript:alert(1)").startswith("https://example.org/id/")


def test_general_labels_have_properties_of_wikidata() -> None:
    assert len(default_properties()) == 17
    assert Vocabulary().property("place of birth") == "http://www.wikidata.org/prop/direct/P19"
    own = Vocabulary(properties={"place of birth": "https://schema.org/birthPlace"})
    assert own.property("place of birth") == "https://schema.org/birthPlace"
    assert Vocabulary().property("parent") == "urn:slmre:relation/parent"


@pytest.mark.parametrize("base", ["example.org/", "https://example.org", "https://a b/", "https://a<b>/", ""])
def test_base_must_be_an_iri(base: str) -> None:
    with pytest.raises(ExportError, match="base IRI"):
        Vocabulary(base)
