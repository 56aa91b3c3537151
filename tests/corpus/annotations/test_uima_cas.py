from __future__ import annotations

import json
import sys

import pytest

from spacy_slmre.coreference import CLUSTERS
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.util.extras import MissingExtraError
from tests.corpus.annotations.conftest import entities

SENTENCE = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Sentence"
COREFERENCE = "de.tudarmstadt.ukp.dkpro.core.api.coref.type.Coreference"
TEXT = "😀 Ann Lee of Oslo. She left."
ANNOTATION = "uima.tcas.Annotation"


def annotation(id, type, begin, end, **features):
    # Offsets count UTF-16 code units, so the emoji is two.
    return {"%ID": id, "%TYPE": type, "@sofa": 1, "begin": begin, "end": end} | features


STRUCTURES = [
    {
        "%ID": 1,
        "%TYPE": "uima.cas.Sofa",
        "sofaNum": 1,
        "sofaID": "_InitialView",
        "mimeType": "text",
        "sofaString": TEXT,
    },
    annotation(2, SENTENCE, 0, 19),
    annotation(3, SENTENCE, 20, 29),
    annotation(4, "custom.Span", 3, 10, label="PER"),
    annotation(5, "custom.Span", 14, 18, label="LOC"),
    annotation(6, "custom.Relation", 14, 18, label="lives in", **{"@Governor": 4, "@Dependent": 5}),
    annotation(7, f"{COREFERENCE}Link", 3, 10, **{"@next": 8}),
    annotation(8, f"{COREFERENCE}Link", 20, 23),
    {"%ID": 9, "%TYPE": f"{COREFERENCE}Chain", "@first": 7},
]


def feature(range):
    return {"%RANGE": range}


def cas(structures=STRUCTURES, base="custom.Span", **types):
    definitions = {
        SENTENCE: {},
        "custom.Span": {"label": feature("uima.cas.String")},
        "custom.Relation": {"Governor": feature(base), "Dependent": feature(base), "label": feature("uima.cas.String")},
        f"{COREFERENCE}Link": {"next": feature(f"{COREFERENCE}Link")},
        f"{COREFERENCE}Chain": {"%SUPER_TYPE": "uima.cas.AnnotationBase", "first": feature(f"{COREFERENCE}Link")},
        **types,
    }
    return {
        "%TYPES": {name: {"%NAME": name, "%SUPER_TYPE": ANNOTATION} | type for name, type in definitions.items()},
        "%FEATURE_STRUCTURES": list(structures),
        "%VIEWS": {"_InitialView": {"%SOFA": 1, "%MEMBERS": [one["%ID"] for one in structures[1:]]}},
    }


@pytest.fixture
def export(write, converted):
    pytest.importorskip("cassis")
    return lambda data, **settings: converted(write("doc.json", json.dumps(data, indent=1)), **settings)


def test_entities_relations_sentences_and_chains_are_read(export):
    found = export(cas())
    (doc,) = found.docs
    assert found.format == "uima_cas" and not found.rejects
    assert doc.text == TEXT and doc.user_data["slmre.id"] == "doc"
    assert entities(doc) == [("Ann Lee", "PER"), ("Oslo", "LOC")]
    assert found.relations() == [("Ann Lee", "lives in", "Oslo")]
    assert [sent.text for sent in doc.sents] == ["😀 Ann Lee of Oslo.", "She left."]
    assert [span.text for span in doc.spans[f"{CLUSTERS}_1"]] == ["Ann Lee", "She"]


def test_layers_without_a_label_feature_name_their_annotations(export):
    structures = [
        *STRUCTURES[:3],
        annotation(4, "webanno.custom.Person", 3, 10),
        annotation(5, "webanno.custom.City", 14, 18),
        annotation(6, "webanno.custom.LivesIn", 14, 18, **{"@Governor": 4, "@Dependent": 5}),
    ]
    types = {
        "webanno.custom.Person": {},
        "webanno.custom.City": {},
        "webanno.custom.LivesIn": {"Governor": feature(ANNOTATION), "Dependent": feature(ANNOTATION)},
    }
    found = export(cas(structures, **types))
    assert entities(found.docs[0]) == [("Ann Lee", "Person"), ("Oslo", "City")]
    assert found.relations() == [("Ann Lee", "LivesIn", "Oslo")]
    assert export(cas(structures, **types), relations="LivesIn").relations() == found.relations()
    assert export(cas(structures, **types), relations="Relation").relations() == []
    with pytest.raises(
        CorpusError, match=r"there is no relation layer Causes\. Relation layers: .*webanno\.custom\.LivesIn"
    ):
        export(cas(structures, **types), relations="Causes")


def test_whatever_is_dropped_is_counted_by_reason(export):
    relations = [
        annotation(10, "custom.Relation", 3, 10, **{"@Governor": 5, "@Dependent": 4}),
        annotation(11, "custom.Relation", 3, 10, label="x", **{"@Governor": 5}),
        annotation(12, "custom.Relation", 3, 10, label="x", **{"@Governor": 1, "@Dependent": 4}),  # the text itself
    ]
    found = export(cas([*STRUCTURES, *relations]))
    assert found.rejects == {"relation without a label": 1, "relation of a missing entity": 2}
    assert found.relations() == [("Ann Lee", "lives in", "Oslo")]


def test_slots_are_counted(export):
    link = {"%SUPER_TYPE": "uima.cas.TOP", "role": feature("uima.cas.String"), "target": feature("custom.Span")}
    event = {"kind": feature("uima.cas.String"), "who": feature("custom.WhoLink[]")}
    structures = [
        *STRUCTURES,
        {"%ID": 10, "%TYPE": "custom.WhoLink", "role": "tenant", "@target": 4},
        {"%ID": 11, "%TYPE": "uima.cas.FSArray", "%ELEMENTS": [10]},
        annotation(12, "custom.Event", 11, 13, kind="stay", **{"@who": 11}),
    ]
    found = export(cas(structures, **{"custom.WhoLink": link, "custom.Event": event}))
    assert found.rejects == {"slot of an annotation": 1}
    assert found.relations() == [("Ann Lee", "lives in", "Oslo")]


def test_a_folder_is_read_without_the_initial_documents(tmp_path, converted):
    pytest.importorskip("cassis")
    folder = tmp_path / "annotation" / "a.txt"
    folder.mkdir(parents=True)
    for name in ("ann.json", "INITIAL_CAS.json"):
        (folder / name).write_text(json.dumps(cas()))
    found = converted(tmp_path / "annotation")
    assert [doc.user_data["slmre.id"] for doc in found.docs] == ["a.txt/ann"]
    assert found.rejects == {"document without annotation": 1}


def test_invalid_files_are_errors(write, converted):
    pytest.importorskip("cassis")
    with pytest.raises(CorpusError, match=r"doc\.json:3: invalid JSON"):
        converted(write("doc.json", '{\n"%TYPES": {},\n"%VIEWS": }'))
    broken = cas()
    broken["%FEATURE_STRUCTURES"][3] = annotation(4, "custom.Unknown", 3, 10)
    with pytest.raises(CorpusError, match=r"doc\.json: not a UIMA CAS in JSON \(TypeNotFoundError: .*custom\.Unknown"):
        converted(write("doc.json", json.dumps(broken)))


def test_the_missing_package_is_named(write, converted, monkeypatch):
    monkeypatch.setitem(sys.modules, "cassis", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spacy-slmre\[inception\]'"):
        converted(write("doc.json", json.dumps(cas())))
