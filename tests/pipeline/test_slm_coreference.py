"""The component `slm_coreference`, and relations of pronouns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_slmre.candidates import EntityPairs
from spacy_slmre.coreference import find_clusters
from spacy_slmre.gold import gold_pairs
from spacy_slmre.pipeline.slm_coreference import Links, find_mentions
from spacy_slmre.relations import install_extensions

WORDS = [
    "Ann",
    "Lee",
    "lives",
    "in",
    "Rome",
    ".",
    "She",
    "loves",
    "the",
    "city",
    ".",
    "Her",
    "brother",
    "is",
    "Bo",
    ".",
]
PRONOUN = "PronType=Prs|Person=3"


def tagged(nlp: Language) -> Doc:
    """Make a tagged and parsed document with three entities."""
    heads = [1, 2, 2, 2, 3, 2, 7, 7, 9, 7, 7, 12, 13, 13, 13, 13]
    deps = [
        "compound",
        "nsubj",
        "ROOT",
        "prep",
        "pobj",
        "punct",
        "nsubj",
        "ROOT",
        "det",
        "dobj",
        "punct",
        "poss",
        "nsubj",
        "ROOT",
        "attr",
        "punct",
    ]
    pos = [
        "PROPN",
        "PROPN",
        "VERB",
        "ADP",
        "PROPN",
        "PUNCT",
        "PRON",
        "VERB",
        "DET",
        "NOUN",
        "PUNCT",
        "PRON",
        "NOUN",
        "AUX",
        "PROPN",
        "PUNCT",
    ]
    morphs = [""] * len(WORDS)
    morphs[6], morphs[11] = f"{PRONOUN}|Gender=Fem", f"{PRONOUN}|Poss=Yes|Gender=Fem"
    morphs[8] = "Definite=Def|PronType=Art"
    doc = Doc(nlp.vocab, words=WORDS, heads=heads, deps=deps, pos=pos, morphs=morphs)
    doc.ents = [Span(doc, 0, 2, "PERSON"), Span(doc, 4, 5, "GPE"), Span(doc, 14, 15, "PERSON")]
    return doc


@pytest.fixture
def make(tiny_model: dict) -> Callable[..., Language]:
    def make(**config: object) -> Language:
        nlp = spacy.blank("en")
        nlp.add_pipe("slm_coreference", config={"model": tiny_model, **config})
        return nlp

    return make


def clusters(doc: Doc) -> list[list[str]]:
    return [[doc.text[start:end] for start, end in one.mentions] for one in find_clusters(doc)]


def test_mentions_are_entities_pronouns_and_definite_phrases() -> None:
    doc = tagged(spacy.blank("en"))
    assert [span.text for span in find_mentions(doc)] == [
        "Ann Lee",
        "Rome",
        "She",
        "the city",
        "Her",
        "Her brother",
        "Bo",
    ]
    untagged = Doc(doc.vocab, words=WORDS)
    untagged.ents = [Span(untagged, 0, 2, "PERSON"), Span(untagged, 4, 5, "DATE")]
    assert [span.text for span in find_mentions(untagged)] == ["Ann Lee"]


def test_each_mention_is_linked_to_one_before_it(make: Callable[..., Language]) -> None:
    nlp = make(threshold=0.0)
    doc = nlp.get_pipe("slm_coreference")(tagged(nlp))
    found = clusters(doc)
    assert sorted(mention for one in found for mention in one) == sorted({mention for one in found for mention in one})
    linked = {mention for one in found for mention in one}
    # Without a threshold, every pronoun and description is linked.
    assert {"She", "the city", "Her", "Her brother"} <= linked
    assert clusters(make(threshold=1.0).get_pipe("slm_coreference")(tagged(nlp))) == []


def test_a_name_refers_to_a_longer_one_but_not_to_a_namesake(make: Callable[..., Language]) -> None:
    nlp = make(threshold=0.0)
    words = ["Ann", "Lee", "met", "Bo", "Lee", "and", "Dr.", "Lind", ".", "Lee", "knew", "Eva", "Lind", "."]
    doc = Doc(nlp.vocab, words=words, pos=["PROPN"] * len(words))
    doc.ents = [Span(doc, *bounds, "PERSON") for bounds in ((0, 2), (3, 5), (6, 8), (9, 10), (11, 13))]
    found = clusters(nlp.get_pipe("slm_coreference")(doc))
    assert ["Dr. Lind", "Eva Lind"] in found
    assert not any({"Ann Lee", "Bo Lee"} <= set(one) for one in found)
    assert any("Lee" in one for one in found)


def test_the_short_name_of_only_one_person_is_linked_without_asking(make: Callable[..., Language]) -> None:
    # Also beyond the window of sentences, and whatever the model says. "Lee" may be either of two.
    nlp = make(threshold=1.0, max_sentences=1)
    words = ["Grace", "Wanjiru", ".", "Ann", "Lee", ".", "Bo", "Lee", ".", "Wanjiru", ".", "Lee", ".", "Mrs", "Wanjiru"]
    doc = Doc(nlp.vocab, words=words, pos=["PROPN"] * len(words), sent_starts=[n % 3 == 0 for n in range(len(words))])
    doc.ents = [Span(doc, *bounds, "PERSON") for bounds in ((0, 2), (3, 5), (6, 8), (9, 10), (11, 12), (13, 15))]
    assert clusters(nlp.get_pipe("slm_coreference")(doc)) == [["Grace Wanjiru", "Wanjiru", "Mrs Wanjiru"]]


@pytest.mark.parametrize(("gender", "refers"), [("Masc", {"Ann Lee"}), ("Neut", {"Rome"}), ("", {"Ann Lee", "Rome"})])
def test_english_pronouns_agree_with_the_type_of_a_name(
    make: Callable[..., Language], gender: str, refers: set[str]
) -> None:
    nlp = make(threshold=0.0)
    words = ["Ann", "Lee", "saw", "Rome", ".", "PRON", "left", "."]
    morphs = [""] * len(words)
    morphs[5] = f"{PRONOUN}|Gender={gender}" if gender else PRONOUN
    doc = Doc(nlp.vocab, words=words, pos=[*["PROPN"] * 5, "PRON", "VERB", "PUNCT"], morphs=morphs)
    doc.ents = [Span(doc, 0, 2, "PERSON"), Span(doc, 3, 4, "GPE")]
    links = nlp.get_pipe("slm_coreference")._make_links(doc, find_mentions(doc))
    assert {links.mentions[other].text for _, other in links.pairs} == refers


def test_a_mention_is_linked_to_the_most_probable_one_before_it(make: Callable[..., Language]) -> None:
    nlp = make(threshold=0.5)
    doc = tagged(nlp)
    ann, rome, she = find_mentions(doc)[:3]
    links = Links(doc, [ann, rome, she], [(2, 0), (2, 1)], [], {})
    for scores, expected in (((0.9, 0.6), [["Ann Lee", "She"]]), ((0.6, 0.9), [["Rome", "She"]]), ((0.4, 0.3), [])):
        found = nlp.get_pipe("slm_coreference")._cluster(links, np.array(scores))
        assert [[doc.text[start:end] for start, end in one.mentions] for one in found] == expected


def test_clusters_have_the_name_of_their_entity(make: Callable[..., Language]) -> None:
    nlp = make(threshold=0.0)
    doc = nlp.get_pipe("slm_coreference")(tagged(nlp))
    names = [one.name for one in find_clusters(doc)]
    assert "Ann Lee" in names
    # So mentions in clusters and other mentions of that name are one entity, in this document and in others.
    other = Doc(nlp.vocab, words=["Ann", "Lee", "saw", "Bo", "."])
    other.ents = [Span(other, 0, 2, "PERSON"), Span(other, 3, 4, "PERSON")]
    install_extensions()
    other._.relations = [(other.ents[0], other.ents[1], "knows", 1.0)]
    doc._.relations = [(doc.ents[0], doc.ents[1], "lives in", 1.0)]
    assert doc._.facts[0].head.key == other._.facts[0].head.key == "text:ann lee"


def test_windows_limit_what_a_mention_refers_to(make: Callable[..., Language]) -> None:
    nlp = make(threshold=0.0, max_sentences=1)
    doc = nlp.get_pipe("slm_coreference")(tagged(nlp))
    assert all("Ann Lee" not in one for one in clusters(doc))


def test_batches_and_saved_components_find_the_same(make: Callable[..., Language], tmp_path: Path) -> None:
    nlp = make(threshold=0.0, batch_size=3)
    expected = clusters(nlp.get_pipe("slm_coreference")(tagged(nlp)))
    docs = nlp.get_pipe("slm_coreference").pipe([tagged(nlp), nlp.make_doc(""), tagged(nlp)])
    assert [clusters(doc) for doc in docs] == [expected, [], expected]
    with pytest.warns(UserWarning, match="no part-of-speech tags, so pronouns and descriptions are not found"):
        nlp("Ann Lee lives in Rome.")
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert clusters(loaded.get_pipe("slm_coreference")(tagged(loaded))) == expected
    copy = make(threshold=0.0).from_bytes(nlp.to_bytes())
    assert clusters(copy.get_pipe("slm_coreference")(tagged(copy))) == expected


@pytest.mark.parametrize(("setting", "value"), [("threshold", 1.5), ("max_sentences", 0), ("max_antecedents", 0)])
def test_settings_out_of_range_raise_an_error(make: Callable[..., Language], setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"slm_coreference.{setting} = {value}"):
        make(**{setting: value})


def test_pronouns_of_a_cluster_are_candidates_with_the_type_of_its_entity() -> None:
    install_extensions()
    doc = tagged(spacy.blank("en"))
    plain = EntityPairs()(doc, None)
    assert [(head.text, tail.text) for head, tail in plain.pairs] == [("Ann Lee", "Rome"), ("Rome", "Ann Lee")]
    doc.spans["coref_clusters_1"] = [doc[0:2], doc[6:7], doc[11:12]]
    doc.spans["coref_clusters_2"] = [doc[8:10], doc[12:13]]  # without an entity
    with_clusters = EntityPairs()(doc, None)
    found = {(head.text, head.label_, tail.text) for head, tail in with_clusters.pairs}
    assert ("Her", "PERSON", "Bo") in found and not any("city" in str(pair) for pair in found)
    doc.spans["coref_clusters_1"] = [doc[0:2], doc[4:5]]
    same = EntityPairs()(doc, None)
    assert same.pairs == [] and same.skipped["same_entity"] == 2
    assert EntityPairs(clusters=False)(doc, None).pairs == plain.pairs
    # What is annotated does not depend on clusters.
    doc._.relations = []
    assert len(gold_pairs(doc).known_pairs()) == 2
