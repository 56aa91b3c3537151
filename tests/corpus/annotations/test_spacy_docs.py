from __future__ import annotations

import pytest
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.corpus.formats import get_format
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.documents import ID
from spacy_slmre.gold import annotates_pairs
from tests.corpus.annotations.conftest import entities


@pytest.fixture
def doc(nlp):
    doc = nlp.make_doc("Ann Lee of Oslo met Bo.")
    doc.set_ents([Span(doc, 0, 2, "PER"), Span(doc, 3, 4, "LOC", kb_id="Q585"), Span(doc, 5, 6, "PER")])
    return doc


@pytest.fixture
def export(tmp_path, converted):
    def run(*docs, **settings):
        DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "docs.spacy")
        return converted(tmp_path / "docs.spacy", **settings)

    return run


def test_relations_are_read(doc, export):
    ann, oslo, bo = doc.ents
    doc._.relations = [(ann, oslo, "lives in", 0.7), (ann, bo, "met")]
    found = export(doc)
    (read,) = found.docs
    assert found.format == "spacy" and not annotates_pairs(read.user_data)
    assert entities(read) == entities(doc) and read.ents[1].kb_id_ == "Q585"
    assert sorted(found.relations()) == [("Ann Lee", "lives in", "Oslo"), ("Ann Lee", "met", "Bo")]
    assert {relation.score for relation in read._.relations} == {1.0}


def test_documents_with_pairs_still_annotate_pairs(doc, export):
    ann, oslo, bo = doc.ents
    doc._.relation_pairs = [(ann, oslo, "lives in"), (oslo, bo, "no_relation")]
    (read,) = export(doc).docs
    assert [one.label for one in read._.relation_pairs] == ["lives in", "no_relation"]
    assert [one.label for one in read._.relations] == ["lives in"]


def test_overlapping_mentions_are_kept(doc, export):
    lee = Span(doc, 1, 2, "PER")
    doc.spans[MENTIONS] = [*doc.ents, lee]
    doc._.relations = [(lee, doc.ents[1], "lives in")]
    (read,) = export(doc).docs
    assert ("Lee", "PER") in [(span.text, span.label_) for span in read.spans[MENTIONS]]
    assert read._.relations[0].head.text == "Lee"


def test_the_rel_of_spacys_tutorial_is_read(doc, export):
    Doc.set_extension("rel", default={}, force=True)
    doc._.rel = {(0, 3): {"lives in": 1.0, "met": 0.0}, (0, 5): {"lives in": 0.0, "met": 0.6}, (4, 5): {"met": 1.0}}
    found = export(doc)
    assert sorted(found.relations()) == [("Ann Lee", "lives in", "Oslo"), ("Ann Lee", "met", "Bo")]
    assert found.rejects == {"relation of a missing entity": 1} and not annotates_pairs(found.docs[0].user_data)
    assert export(doc, threshold=0.7).relations() == [("Ann Lee", "lives in", "Oslo")]


def test_a_document_that_loses_all_relations_is_skipped(doc, nlp, export):
    Doc.set_extension("rel", default={}, force=True)
    other = nlp.make_doc("Nothing here.")
    other._.relations = []
    doc._.rel = {(4, 5): {"met": 1.0}}
    found = export(doc, other)
    assert len(found.docs) == 1 and found.rejects == {"relation of a missing entity": 1, "no relation left": 1}


def test_malformed_relations_are_counted(doc, nlp, export):
    Doc.set_extension("rel", default={}, force=True)
    doc._.rel = {(0, 3): {"in": 1.0}, 3: {"in": 1.0}, (0, 5): {"in": "high"}, (0, 3, 5): {"in": 1.0}, (3, 5): ["in"]}
    other = nlp.make_doc("Nothing here.")
    other.user_data["spacy_slmre.relations"] = ["met"]
    found = export(doc, other)
    assert found.relations() == [("Ann Lee", "in", "Oslo")]
    assert found.rejects == {"malformed relation": 4, "malformed record": 1}


def test_stored_relations_that_do_not_match_the_text_are_counted(doc, nlp, export):
    ann, oslo, bo = doc.ents
    doc._.relations = [(ann, oslo, "lives in"), (ann, bo, "met")]
    other = nlp.make_doc("Ann Lee of Rome met Bo.")
    other.user_data |= doc.user_data
    doc.user_data["spacy_slmre.relations"][1]["tail"]["end"] -= 1
    found = export(doc, other)
    assert len(found.docs) == 1 and found.relations() == [("Ann Lee", "lives in", "Oslo")]
    assert found.rejects == {"relation that does not match the text": 3, "no relation left": 1}


def test_documents_without_relation_annotation_are_counted(doc, nlp, export):
    annotated = nlp.make_doc("Nothing here.")
    annotated._.relations = []
    found = export(doc, annotated)
    assert found.rejects == {"document without relation annotation": 1}
    assert [one.text for one in found.docs] == ["Nothing here."]


def test_rejects_have_the_ids_of_their_documents(doc, tmp_path):
    doc.user_data[ID] = "news/7"
    path = tmp_path / "own.spacy"
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    (reject,) = get_format("spacy").read(path, "train")
    assert (reject.line, reject.id, reject.reason) == (1, "news/7", "document without relation annotation")


def test_a_corpus_can_be_converted_again(doc, export):
    doc._.relations = [(doc.ents[0], doc.ents[1], "lives in")]
    first = export(doc)
    assert export(*first.docs).relations() == first.relations() == [("Ann Lee", "lives in", "Oslo")]


def test_a_damaged_file_is_an_error(write, converted):
    with pytest.raises(CorpusError, match=r"docs\.spacy is not a \.spacy file, or is damaged"):
        converted(write("docs.spacy", b"no"))
