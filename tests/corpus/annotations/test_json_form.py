from __future__ import annotations

import json

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_slmre.coreference import MENTIONS, find_clusters
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.documents import RelationDocument
from spacy_slmre.gold import annotates_pairs
from tests.corpus.annotations.conftest import entities

ANN = {"start": 0, "end": 3, "text": "Ann", "type": "PER"}
OSLO = {"start": 13, "end": 17, "text": "Oslo", "type": "LOC", "kb_id": "Q585"}
ROW = {
    "id": "a.txt",
    "text": "Ann lives in Oslo. Bo left.",
    "sentences": [[0, 18], [19, 27]],
    "entities": [ANN, OSLO],
    "relations": [{"head": ANN, "tail": OSLO, "label": "lives in", "score": 0.8}],
}


@pytest.fixture
def export(write, converted):
    return lambda *rows: converted(write("relations.jsonl", "\n".join(map(json.dumps, rows))))


def test_what_extract_writes_becomes_a_corpus(export):
    found = export(ROW, {"id": "b.txt", "error": "not UTF-8"})
    (doc,) = found.docs
    assert found.format == "json" and found.rejects == {"failed in extraction": 1}
    assert entities(doc) == [("Ann", "PER"), ("Oslo", "LOC")] and doc.ents[1].kb_id_ == "Q585"
    assert found.relations() == [("Ann", "lives in", "Oslo")] and not annotates_pairs(doc.user_data)
    assert [sent.text for sent in doc.sents] == ["Ann lives in Oslo.", "Bo left."]
    assert doc.user_data["slmre.id"] == "a.txt"


def test_predictions_are_not_taken_for_annotations_without_a_warning(export, write, tmp_path):
    predicted = {**ROW, "model": "en_pipeline 1.0.0 slm_relations"}
    with pytest.warns(
        UserWarning, match=r"relations.jsonl: the relations were predicted by en_pipeline 1.0.0"
    ) as warned:
        (doc,) = export(predicted).docs
    assert len(warned) == 1
    # Also where the converted corpus, or the file itself, is read to train on it.
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "corpus.spacy")
    for source in (tmp_path / "corpus.spacy", write("other.jsonl", json.dumps(predicted))):
        with pytest.warns(UserWarning, match="predicted by en_pipeline"):
            assert len(list(relation_corpus(source)(spacy.blank("en")))) == 1
    # What `slmre review` writes is annotated.
    reviewed = {**predicted, "pairs": predicted["relations"]}
    assert export(reviewed).relations() == [("Ann", "lives in", "Oslo")]


def test_coreference_clusters_are_kept(export):
    text = "Ann lives in Oslo. She left."
    found = export(ROW | {"text": text, "clusters": [{"name": "Ann", "mentions": [[0, 3], [19, 22]]}]})
    (cluster,) = find_clusters(found.docs[0])
    assert (cluster.mentions, cluster.name) == (((0, 3), (19, 22)), "Ann")


def test_documents_with_pairs_annotate_pairs(export):
    pairs = [*ROW["relations"], {"head": OSLO, "tail": ANN, "label": "no_relation"}]
    (doc,) = export(ROW | {"pairs": pairs}).docs
    assert [(one.label, one.tail.text) for one in doc._.relation_pairs] == [
        ("lives in", "Oslo"),
        ("no_relation", "Ann"),
    ]
    assert len(doc._.relations) == 1


def test_relations_that_are_not_among_the_pairs_are_pairs_as_well(export):
    negative = {"head": OSLO, "tail": ANN, "label": "no_relation"}
    for pairs in ([], [negative]):
        found = export(ROW | {"pairs": pairs})
        assert annotates_pairs(found.docs[0].user_data) and not found.rejects
        assert found.relations() == [("Ann", "lives in", "Oslo")]
    # A pair that is listed has the listed labels.
    (doc,) = export(ROW | {"pairs": [negative, {**negative, "head": ANN, "tail": OSLO}]}).docs
    assert [one.label for one in doc._.relation_pairs] == ["no_relation", "no_relation"] and not doc._.relations


def test_properties_of_labels_are_kept(export):
    properties = {"inverse_of": {"lives in": "residents"}, "iris": {"lives in": "https://schema.org/address"}}
    read = RelationDocument.from_doc(export(ROW | properties).docs[0])
    assert {"inverse_of": read.inverse_of, "iris": read.iris} == properties


def test_an_argument_without_a_type_is_the_entity_at_its_offsets(export):
    ends = {"head": {"start": 0, "end": 3}, "tail": {"start": 13, "end": 17}}
    (doc,) = export(ROW | {"relations": [{**ends, "label": "lives in"}]}).docs
    assert entities(doc) == [("Ann", "PER"), ("Oslo", "LOC")] and doc.ents[1].kb_id_ == "Q585"
    assert doc._.relations[0].tail.label_ == "LOC" and MENTIONS not in doc.spans


def test_a_sentence_may_begin_with_a_space(export):
    (doc,) = export(ROW | {"sentences": [[0, 18], [18, 27]]}).docs
    assert [sent.text for sent in doc.sents] == ["Ann lives in Oslo.", "Bo left."]


def test_long_texts_are_read(export):
    (doc,) = export(ROW | {"text": ROW["text"] + "x" * 1_000_000}).docs
    assert len(doc.text) > 1_000_000


def test_invalid_documents_are_counted(export):
    wrong = ROW | {"relations": [{"head": ANN | {"end": 99}, "tail": OSLO, "label": "x"}]}
    found = export(ROW, wrong, ROW | {"entities": [ANN | {"start": True, "text": "nn"}]})
    assert found.rejects == {"malformed record": 2} and len(found.docs) == 1
    with pytest.raises(CorpusError, match=r"relations\.jsonl:1: malformed record: .*a\.txt: entity offsets 0 to 99"):
        export(wrong)
