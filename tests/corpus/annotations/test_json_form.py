from __future__ import annotations

import json

import pytest

from spacy_slmre.coreference import find_clusters
from spacy_slmre.corpus.sources import CorpusError
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


def test_invalid_documents_are_counted(export):
    wrong = ROW | {"relations": [{"head": ANN | {"end": 99}, "tail": OSLO, "label": "x"}]}
    found = export(ROW, wrong)
    assert found.rejects == {"malformed record": 1} and len(found.docs) == 1
    with pytest.raises(CorpusError, match=r"relations\.jsonl:1: malformed record: .*a\.txt: entity offsets 0 to 99"):
        export(wrong)
