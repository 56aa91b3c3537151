from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_slmre.documents import DocumentError, DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.export import export, from_rel, from_relation_items, read_relation_items, to_rel, to_relation_items
from spacy_slmre.export.spacy_projects import install_rel
from spacy_slmre.relations import install_extensions
from tests.conftest import TEXTS
from tests.relation_documents import documents


@pytest.fixture
def doc(blank: Callable[[], Language]) -> Doc:
    install_extensions()
    doc = blank()(TEXTS[0])
    ann, rome, bo, mill, _ = doc.ents
    doc._.relations = [(ann, rome, "born in", 0.9), (bo, mill, "works for", 0.75), (ann, rome, "lived in", 0.5)]
    return doc


def test_relation_items_are_converted_both_ways(doc: Doc) -> None:
    items = to_relation_items(doc)
    assert [(item.dep, item.dest, item.relation) for item in items[:2]] == [(0, 1, "born in"), (2, 3, "works for")]
    found = from_relation_items(doc, items)
    assert [(one.head, one.label, one.tail) for one in found] == [
        (one.head, one.label, one.tail) for one in doc._.relations
    ]
    items[0].dest = 9
    with pytest.raises(DocumentError, match="the document has 5"):
        from_relation_items(doc, items)


def test_tutorial_dict_is_converted_both_ways(doc: Doc) -> None:
    ann, rome, bo, mill, _ = doc.ents
    rel = to_rel(doc)
    assert rel == {
        (ann.start, rome.start): {"born in": 0.9, "lived in": 0.5},
        (bo.start, mill.start): {"works for": 0.75},
    }
    assert set(from_rel(doc, rel)) == set(doc._.relations)
    assert [one.label for one in from_rel(doc, rel, threshold=0.8)] == ["born in"]
    full = to_rel(doc, labels=["born in", "works for", "lived in"])
    assert len(full) == 5 * 4 and full[rome.start, ann.start] == dict.fromkeys(
        ["born in", "works for", "lived in"], 0.0
    )
    with pytest.raises(DocumentError, match="no entity begins"):
        from_rel(doc, {(ann.start, ann.start + 1): {"x": 1.0}})


def test_relations_of_other_spans_are_skipped_with_a_warning(doc: Doc) -> None:
    doc._.relations = [(Span(doc, 2, 4, label="X"), doc.ents[1], "in", 1.0)]
    with pytest.warns(UserWarning, match="1 of 1 relations were skipped"):
        assert to_rel(doc) == {}


@settings(max_examples=12)
@given(docs=documents())
def test_tutorial_file_is_read_back(docs: list[RelationDocument], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rel") / "out.spacy"
    # The tutorial identifies arguments by their first token, which entities of white space do not have.
    docs = [one for one in docs if all(ent.text.strip() == ent.text for ent in one.entities)]
    export(docs, path, "rel")
    install_rel()
    found = list(DocBin().from_disk(path).get_docs(Vocab()))
    assert len(found) == len(docs)
    for doc, expected in zip(found, docs, strict=True):
        best: dict[tuple, float] = {}
        for one in expected.relations:
            key = one.head.start, one.label, one.tail.start
            best[key] = max(one.score, best.get(key, 0.0))
        back = from_rel(doc, doc._.rel, threshold=0.0)
        assert {(one.head.start_char, one.label, one.tail.start_char): one.score for one in back} == best


def test_file_without_relations_is_read_back(doc: Doc, tmp_path: Path) -> None:
    doc._.relations = []
    counts = export(doc, tmp_path / "out.spacy", "rel")
    assert (counts.documents, counts.written) == (1, 0)


def test_relations_of_overlapping_entities_are_counted_as_skipped(tmp_path: Path) -> None:
    long, short, rome = (
        EntityMention(0, 7, "Ann Lee", "PER"),
        EntityMention(4, 7, "Lee", "PER"),
        EntityMention(11, 15, "Rome"),
    )
    rome = replace(rome, kb_id="Q220")
    relations = (DocumentRelation(long, rome, "in"), DocumentRelation(short, rome, "in"))
    document = RelationDocument("a", "Ann Lee in Rome", (long, short, rome), relations)
    counts = export(document, tmp_path / "out.spacy", "rel")
    assert (counts.found, counts.written) == (2, 1)
    assert counts.rejects == {"entity that overlaps another one": 1, "relation of an overlapping entity": 1}
    (doc,) = DocBin().from_disk(tmp_path / "out.spacy").get_docs(Vocab())
    assert [ent.kb_id_ for ent in doc.ents] == ["", "Q220"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dep": -1}, "counted from 0"),
        ({"dep": 2}, "IndexError"),
        ({"end_char": 99}, "1: "),
        ({"start_char": 3, "end_char": 1}, "1: "),
        ({"relation": 5}, "1: "),
    ],
)
def test_malformed_items_raise_an_error(tmp_path: Path, changes: dict, message: str) -> None:
    ent = {"start_char": 0, "end_char": 3, "label": "PER"}
    relation = {"dep": 0, "dest": 1, "relation": "is"}
    for part in (ent, relation):
        part.update({name: value for name, value in changes.items() if name in part})
    line = {"text": "Ann Bo", "ents": [ent, {**ent, "start_char": 4, "end_char": 6}], "relations": [relation]}
    (tmp_path / "x.jsonl").write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(DocumentError, match=message):
        list(read_relation_items(tmp_path / "x.jsonl"))


def test_items_may_have_numbers_as_ids_and_blank_lines_between_them(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 5, "text": "Ann", "ents": [], "relations": []}\n\n', encoding="utf-8")
    assert [document.id for document in read_relation_items(tmp_path / "x.jsonl")] == ["5"]


def test_files_for_the_tutorial_have_none_of_our_attributes(tmp_path: Path, doc: Doc) -> None:
    doc._.relation_pairs = doc._.relations
    export(doc, tmp_path / "out.spacy", "rel")
    (written,) = DocBin().from_disk(tmp_path / "out.spacy").get_docs(Vocab())
    assert not [key for key in written.user_data if "relation" in str(key)]
