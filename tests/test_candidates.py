from __future__ import annotations

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from spacy_slmre.candidates import EntityPairs, GivenPairs
from spacy_slmre.relations import install_extensions
from spacy_slmre.schema import LabelSchema

ANY = LabelSchema.from_labels(["knows"])
VOCAB = Vocab()


@pytest.fixture
def doc() -> Doc:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp("Ann met Bo in Rome. Cy slept. Dee met Eva.")
    ents = {"Ann": "PERSON", "Bo": "PERSON", "Rome": "GPE", "Cy": "PERSON", "Dee": "PERSON", "Eva": "PERSON"}
    doc.ents = [Span(doc, t.i, t.i + 1, ents[t.text]) for t in doc if t.text in ents]
    return doc


def pairs(doc: Doc, schema: LabelSchema = ANY, **settings: object) -> tuple[set[str], dict[str, int]]:
    found = EntityPairs(**settings)(doc, schema)
    assert found.considered == len(found.pairs) + sum(found.skipped.values())
    return {f"{head.text}-{tail.text}" for head, tail in found.pairs}, dict(found.skipped)


def test_pairs_are_in_the_same_sentence_by_default(doc: Doc) -> None:
    found, skipped = pairs(doc)
    assert found == {"Ann-Bo", "Bo-Ann", "Ann-Rome", "Rome-Ann", "Bo-Rome", "Rome-Bo", "Dee-Eva", "Eva-Dee"}
    assert skipped == {"sentence": 22}


def test_max_sentences_widens_the_window(doc: Doc) -> None:
    assert "Rome-Cy" in pairs(doc, max_sentences=2)[0] and "Rome-Dee" not in pairs(doc, max_sentences=2)[0]
    assert len(pairs(doc, max_sentences=3)[0]) == 30


def test_max_distance_skips_distant_pairs(doc: Doc) -> None:
    found, skipped = pairs(doc, max_distance=1)
    assert found == {"Ann-Bo", "Bo-Ann", "Bo-Rome", "Rome-Bo", "Dee-Eva", "Eva-Dee"}
    assert skipped["distance"] == 2


def test_types_are_mapped_before_constraints_apply(doc: Doc) -> None:
    schema = LabelSchema.from_dict({"labels": [{"name": "born in", "types": [["PER", "LOC"]]}, "no_relation"]})
    found, skipped = pairs(doc, schema)
    assert found == {"Ann-Rome", "Bo-Rome"} and skipped["type"] == 6


def test_max_pairs_keeps_the_closest(doc: Doc) -> None:
    found, skipped = pairs(doc, max_pairs=4, max_sentences=3)
    assert len(found) == 4 and skipped["cap"] == 26
    assert "Ann-Eva" not in found


def test_span_group_may_have_overlapping_and_repeated_spans(doc: Doc) -> None:
    doc.spans["args"] = [Span(doc, 0, 3, "X"), Span(doc, 2, 3, "Y"), Span(doc, 2, 3, "Z")]
    found, skipped = pairs(doc, spans_key="args")
    assert found == {"Ann met Bo-Bo", "Bo-Ann met Bo"} and skipped == {"same_span": 2}
    assert pairs(doc, spans_key="absent") == (set(), {})


def test_docs_without_sentences_entities_or_text() -> None:
    nlp = spacy.blank("en")
    doc = nlp("Ann met Bo. Cy met Dee.")
    assert pairs(doc) == (set(), {})
    doc.ents = [Span(doc, 0, 1, "A"), Span(doc, 6, 7, "B")]
    assert len(pairs(doc)[0]) == 2
    assert pairs(nlp("")) == (set(), {})


def test_mentions_with_the_same_id_are_no_pair_and_those_with_different_ids_are(doc: Doc) -> None:
    doc.ents = [
        Span(doc, ent.start, ent.end, ent.label_, kb_id={"Ann": "Q1", "Bo": "Q1"}.get(ent.text, "")) for ent in doc.ents
    ]
    found, skipped = pairs(doc)
    assert found == {"Ann-Rome", "Rome-Ann", "Bo-Rome", "Rome-Bo", "Dee-Eva", "Eva-Dee"}
    assert skipped == {"sentence": 22, "same_entity": 2}
    doc.spans["coref_clusters_1"] = [doc[9:10], doc[11:12]]  # Dee and Eva
    assert not {"Dee-Eva", "Eva-Dee"} & pairs(doc)[0]
    doc.ents = [Span(doc, ent.start, ent.end, ent.label_, kb_id=ent.text) for ent in doc.ents]
    assert {"Ann-Bo", "Dee-Eva"} <= pairs(doc)[0]


@pytest.mark.parametrize("setting", ["max_sentences", "max_pairs"])
def test_limits_out_of_range_raise_an_error(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"candidates\.{setting} = 0"):
        EntityPairs(**{setting: 0})


def test_given_pairs_are_proposed_without_type_constraints(doc: Doc) -> None:
    install_extensions()
    doc._.relation_candidates = [(doc[0:1], doc[2:3])]
    found = GivenPairs()(doc, LabelSchema.general())
    assert [(h.text, t.text) for h, t in found.pairs] == [("Ann", "Bo")] and not found.typed


def test_a_pair_that_is_given_twice_is_proposed_once(doc: Doc) -> None:
    install_extensions()
    doc._.relation_candidates = [(doc[0:1], doc[2:3]), (doc[2:3], doc[0:1]), (doc[0:1], doc[2:3])]
    found = GivenPairs()(doc, ANY)
    assert [(h.text, t.text) for h, t in found.pairs] == [("Ann", "Bo"), ("Bo", "Ann")] and found.considered == 2


@given(st.data())
def test_agrees_with_a_plain_count_of_all_pairs(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 25))
    starts = [True, *(data.draw(st.booleans()) for _ in range(length - 1))]
    doc = Doc(VOCAB, words=["w"] * length, sent_starts=starts)
    spans = data.draw(st.sets(st.tuples(st.integers(0, length - 1), st.integers(1, 4)), max_size=8))
    doc.spans["s"] = [Span(doc, s, min(s + n, length), "T") for s, n in spans]
    window = data.draw(st.integers(1, 3))
    sentence = [sum(starts[: i + 1]) for i in range(length)]
    expected = sum(
        a is not b
        and (a.start, a.end) != (b.start, b.end)
        and max(sentence[a.end - 1], sentence[b.end - 1]) - min(sentence[a.start], sentence[b.start]) < window
        for a in doc.spans["s"]
        for b in doc.spans["s"]
    )
    found = EntityPairs(spans_key="s", max_sentences=window)(doc, ANY)
    assert len(found.pairs) == expected
    assert found.considered == len(found.pairs) + sum(found.skipped.values())
