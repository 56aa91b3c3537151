from __future__ import annotations

from pathlib import Path

import pytest

from spacy_slmre.corpus.checks import check_corpora
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.study.benchmarks.card import get_benchmark

TYPES = {
    "born_in": ("PER", "LOC"),
    "lives_in": ("PER", "LOC"),
    "works_for": ("PER", "ORG"),
    "parent_of": ("PER", "PER"),
    "spouse_of": ("PER", "PER"),
    "sibling_of": ("PER", "PER"),
    "teacher_of": ("PER", "PER"),
    "enemy_of": ("PER", "PER"),
    "founder_of": ("PER", "ORG"),
    "based_in": ("ORG", "LOC"),
    "located_in": ("LOC", "LOC"),
    "author_of": ("PER", "WORK"),
}
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def docs(demo, nlp):
    return {split: list(read_docs(demo / "demo" / f"{split}.spacy", nlp.vocab)) for split in SPLITS}


def test_it_has_150_sentences_and_every_label_in_every_split(docs):
    assert sum(map(len, docs.values())) >= 150
    for split in SPLITS:
        labels = {relation.label for doc in docs[split] for relation in doc._.relation_pairs}
        assert labels == set(get_benchmark("demo").schema.names) == {*TYPES, "no_relation"}


def test_relations_join_the_right_types(docs):
    for doc in (doc for split in SPLITS for doc in docs[split]):
        for relation in doc._.relations:
            assert (relation.head.label_, relation.tail.label_) == TYPES[relation.label], (doc.text, relation)


def test_no_markup_is_left_in_the_texts(docs):
    assert not [doc.text for split in SPLITS for doc in docs[split] if any(c in doc.text for c in "[]|")]


def test_the_splits_share_no_text(demo):
    _, findings = check_corpora({split: Path(demo / "demo" / f"{split}.spacy") for split in SPLITS})
    assert not [finding for finding in findings if finding.level != "info"]
