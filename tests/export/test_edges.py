from __future__ import annotations

from dataclasses import replace

import pytest

from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.export import ExportError, make_edges, merge_edges
from spacy_slmre.export.edges import mention_node, merged_key, new_nodes
from spacy_slmre.facts import entity_key
from tests.relation_documents import make_document


def merge(docs: list[RelationDocument], by: str = "text") -> dict[tuple[str, str, str], tuple[int, float]]:
    edges = merge_edges(docs, by)
    return {(edge.head.text, edge.label, edge.tail.text): (edge.count, edge.score) for edge in edges}


def test_mentions_with_equal_text_are_merged_across_documents() -> None:
    docs = [
        make_document("a", ["Marie  Curie", "Paris"], ["PER", "LOC"], [(0, 1, "lived in", 0.5)]),
        make_document("b", ["MARIE CURIE", "Paris"], ["PER", "LOC"], [(0, 1, "lived in", 0.9)]),
        make_document("c", ["Marie  Curie", "Ｐａｒｉｓ"], ["PER", "LOC"], [(0, 1, "died in", 0.4)]),
    ]
    assert merge(docs) == {
        ("Marie  Curie", "lived in", "Paris"): (2, 0.9),
        ("Marie  Curie", "died in", "Paris"): (1, 0.4),
    }
    first = merge_edges(docs)[0]
    assert [(source.document, source.score) for source in first.sources] == [("b", 0.9), ("a", 0.5)]


def test_merging_by_type_keeps_namesakes_apart() -> None:
    docs = [
        make_document("a", ["Washington", "x"], ["PER", "LOC"], [(0, 1, "in", 1.0)]),
        make_document("b", ["Washington", "x"], ["LOC", "LOC"], [(0, 1, "in", 1.0)]),
    ]
    assert [count for count, _ in merge(docs).values()] == [2]
    assert len(merge_edges(docs, "type")) == 2


def test_knowledge_base_ids_take_precedence_over_texts() -> None:
    def document(id: str, name: str, kb_id: str) -> RelationDocument:
        head = EntityMention(0, len(name), name, "PER", kb_id)
        tail = EntityMention(len(name) + 1, len(name) + 2, "x")
        return RelationDocument(id, f"{name} x", (head, tail), (DocumentRelation(head, tail, "in"),))

    docs = [document("a", "Mme Curie", "Q7186"), document("b", "Marie Curie", "Q7186"), document("c", "Mme Curie", "")]
    assert sorted(edge.count for edge in merge_edges(docs)) == [1, 2]


def test_separators_in_texts_do_not_make_keys_equal() -> None:
    def key(word: str, type: str = "", by: str = "text", kb_id: str = "") -> str:
        return entity_key(kb_id, word, type if by == "type" else None)

    assert key("b:c", "a", "type") != key("c", "a:b", "type")
    assert len({key("x", "text", "type"), key("x"), key("x", "id", "type"), key("", kb_id="x")}) == 4
    assert merged_key(key("a | r | text:b"), "s", key("c")) != merged_key(key("a"), "r", key("b | s | text:c"))
    assert merged_key(key("a"), "r | text:b", key("c")) != merged_key(key("a | r"), "b", key("c"))
    one, two = EntityMention(0, 1, "x", "t"), EntityMention(0, 1, "x", "")
    assert mention_node("d#char=0,1&type=", one).key != mention_node("d", two).key
    assert key("Zoë & Co.") == "text:zoë %26 co."
    assert merged_key(key("Ann"), "born in", key("Rome")) == "text:ann | born in | text:rome"


def test_each_node_is_new_once_per_document() -> None:
    docs = [make_document(id, ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "in", 1.0), (1, 0, "of", 1.0)]) for id in "ab"]
    found = [[node.text for node in nodes] for _, nodes in new_nodes(make_edges(docs), merged=False)]
    assert found == [["Ann", "Rome"], [], ["Ann", "Rome"], []]
    loop = make_document("c", ["Ann"], ["PER"], [(0, 0, "knows", 1.0)])
    assert [len(nodes) for _, nodes in new_nodes(make_edges([loop]), merged=False)] == [1]


def test_unknown_merge_raises_an_error() -> None:
    with pytest.raises(ExportError, match="Use one of text, type"):
        merge_edges([], "name")


def test_merged_documents_share_their_inverse_labels() -> None:
    # The order of documents, of which only some know that a label is symmetric, makes no difference.
    docs = [
        make_document("a", ["Ann", "Bo"], ["PER", "PER"], [(0, 1, "spouse", 0.5), (0, 1, "parent", 0.4)]),
        make_document("b", ["Bo", "Ann"], ["PER", "PER"], [(0, 1, "spouse", 0.9), (0, 1, "child", 0.6)]),
    ]
    docs[0] = replace(docs[0], inverse_of={"spouse": "spouse", "child": "parent"})
    for order in (docs, docs[::-1]):
        edges = merge_edges(order)
        assert [(edge.head.text, edge.label, edge.tail.text, edge.count, edge.inverse) for edge in edges] == [
            ("Ann", "spouse", "Bo", 2, "spouse"),
            ("Ann", "parent", "Bo", 2, "child"),
        ]
        for edge in edges:
            assert {(source.head.text, source.tail.text) for source in edge.sources} == {("Ann", "Bo")}


def test_documents_with_opposite_main_labels_are_merged() -> None:
    docs = [
        make_document("a", ["Ann", "Bo"], ["PER", "PER"], [(0, 1, "parent", 0.5)]),
        make_document("b", ["Bo", "Ann"], ["PER", "PER"], [(0, 1, "child", 0.9)]),
    ]
    docs = [replace(docs[0], inverse_of={"child": "parent"}), replace(docs[1], inverse_of={"parent": "child"})]
    for order in (docs, docs[::-1]):
        assert [edge.count for edge in merge_edges(order)] == [2]


def test_a_merged_entity_has_the_type_of_its_typed_mentions() -> None:
    relations = [(0, 1, "in", 1.0)]
    docs = [make_document(str(n), ["Ann", "x"], [type, "LOC"], relations) for n, type in enumerate(("PER", "", ""))]
    (edge,) = merge_edges(docs)
    assert (edge.head.type, edge.count) == ("PER", 3)
