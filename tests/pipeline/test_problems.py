"""A pipeline that scores no pair because of its settings or components says so, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from tests.conftest import PATTERNS, TEXTS

LABELS = ["born in", "knows"]
TYPED = {"labels": [{"name": "owns", "types": [["PER", "ORG"]]}], "negative_label": None}


@pytest.fixture
def make(tiny_model: dict) -> Callable[..., Language]:
    def make(nlp: Language, **config: object) -> Language:
        nlp.add_pipe("slm_relations", config={"model": tiny_model, **config})
        return nlp

    return make


def with_types(nlp: Language, *types: str) -> Doc:
    doc = nlp.make_doc("A and B and C")
    doc.ents = [Span(doc, 2 * n, 2 * n + 1, label) for n, label in enumerate(types)]
    return doc


def test_a_pipeline_without_entities_is_a_warning(make: Callable[..., Language]) -> None:
    nlp = make(spacy.blank("en"), labels=LABELS)
    with pytest.warns(UserWarning, match="no component before this one finds entities") as caught:
        nlp.get_pipe("slm_relations").predict([nlp.make_doc(TEXTS[0])])
        list(nlp.pipe(TEXTS))
        nlp(TEXTS[0])
    assert len(caught) == 1


def test_a_component_before_the_one_that_finds_entities_is_a_warning(tiny_model: dict) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    nlp.add_pipe("slm_relations", first=True, config={"model": tiny_model, "labels": LABELS})
    with pytest.warns(UserWarning, match="slm_relations: no pair was scored, because no component before"):
        assert nlp(TEXTS[0]).ents


def test_a_missing_span_group_is_a_warning_that_lists_the_others(make: Callable[..., Language]) -> None:
    candidates = {"@misc": "spacy-slmre.EntityPairs.v1", "spans_key": "sc"}
    nlp = make(spacy.blank("en"), labels=LABELS, candidates=candidates)
    doc = nlp.make_doc(TEXTS[0])
    doc.spans["mine"] = []
    with pytest.warns(UserWarning, match=r'no span group "sc" \(candidates\.spans_key\)\. Its groups: "mine"'):
        nlp(doc)


def test_types_that_no_label_allows_are_a_warning(make: Callable[..., Language]) -> None:
    nlp = make(spacy.blank("en"), schema=TYPED)
    message = r"all 6 pairs .* no label allows Firm, GENE\. The labels allow ORG, PER\. .*type_map.*\"Firm\": \"ORG\""
    with pytest.warns(UserWarning, match=message) as caught:
        nlp(with_types(nlp, "PERSON", "Firm", "GENE"))
        nlp(with_types(nlp, "PERSON", "Firm", "GENE"))
    assert len(caught) == 1
    nlp = make(spacy.blank("en"), schema=TYPED, type_map={"firm": "ORGANIZATION"})
    assert len(nlp(with_types(nlp, "PERSON", "Firm", "GENE"))._.relations) == 1


def test_documents_without_pairs_are_no_reason_to_warn(blank: Callable[[], Language], make) -> None:
    nlp = make(blank(), schema=TYPED)
    # No entity, no allowed combination of known types, no text; warnings are errors in this test suite.
    assert not any(doc._.relations for doc in nlp.pipe([TEXTS[2], TEXTS[1], ""]))
    nlp = make(spacy.blank("en"), schema=TYPED)
    assert nlp(with_types(nlp, "PERSON", "ORG"))._.relations
    assert nlp(with_types(nlp, "DATE", "MONEY"))._.relations == ()


def test_given_pairs_without_any_are_a_warning(blank: Callable[[], Language], make) -> None:
    nlp = make(blank(), labels=LABELS, candidates={"@misc": "spacy-slmre.GivenPairs.v1"})
    with pytest.warns(UserWarning, match=r"doc\._\.relation_candidates is not set"):
        nlp(TEXTS[0])


def test_an_attribute_overwritten_by_another_package_is_a_warning(blank: Callable[[], Language], make) -> None:
    nlp = make(blank(), labels=LABELS, negative_label=None, attr="linked")
    Doc.set_extension("linked", default="theirs", force=True)
    with pytest.warns(UserWarning, match=r'another package has overwritten doc\._\.linked.*attr="…"'):
        assert nlp(TEXTS[0])._.linked == "theirs"
    for owner, name in ((Doc, "linked"), (Span, "linked"), (Doc, "linked_report")):
        owner.remove_extension(name)


def test_two_components_with_one_attribute_are_refused(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    config = {"model": tiny_model, "labels": LABELS}
    nlp.add_pipe("slm_relations", name="one", config=config)
    with pytest.raises(ValueError, match=r'"two" and "one" both write to doc\._\.relations.*attr="…"'):
        nlp.add_pipe("slm_relations", name="two", config=config)
    nlp.add_pipe("slm_relations", name="three", config={**config, "attr": "others"})
