from __future__ import annotations

import json
import pickle
import subprocess
import sys
from functools import partial

import pytest
import spacy
import srsly
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.entity_decisions import EntityDecision, decisions_of, write_decisions
from spacy_slmre.relations import Relation, install_extensions, join_docs, read_records, span_as_doc


@pytest.fixture
def doc() -> Doc:
    install_extensions()
    doc = spacy.blank("en")("Ann Lee was born in Rome. She works for Red Mill.")
    doc.ents = [Span(doc, 0, 2, "PERSON"), Span(doc, 5, 6, "GPE"), Span(doc, 10, 12, "ORG")]
    ann, rome, mill = doc.ents
    doc._.relations = [(ann, rome, "place of birth", 0.5), Relation(ann, mill, "employer", 0.9)]
    doc._.relation_pairs = [(ann, rome, "place of birth"), (rome, ann, "no_relation")]
    doc._.relation_candidates = [(ann, rome), (rome, mill)]
    return doc


def as_text(doc: Doc) -> list[tuple]:
    return [(r.head.text, r.head.label_, r.label, r.tail.text, r.tail.label_, r.score) for r in doc._.relations]


EXPECTED = [
    ("Ann Lee", "PERSON", "employer", "Red Mill", "ORG", 0.9),
    ("Ann Lee", "PERSON", "place of birth", "Rome", "GPE", 0.5),
]


def test_relations_are_sorted_by_score(doc: Doc) -> None:
    assert as_text(doc) == EXPECTED
    assert str(doc._.relations[0]) == "Ann Lee – employer – Red Mill (0.90)"


def test_span_has_the_relations_that_overlap_it(doc: Doc) -> None:
    assert [r.label for r in doc[10:11]._.relations] == ["employer"]
    assert [r.label for r in doc[0:1]._.relations] == ["employer", "place of birth"]
    assert doc[2:4]._.relations == ()


def test_pairs_and_candidates_keep_their_order(doc: Doc) -> None:
    assert [(r.head.text, r.label) for r in doc._.relation_pairs] == [
        ("Ann Lee", "place of birth"),
        ("Rome", "no_relation"),
    ]
    assert [(h.text, t.text) for h, t in doc._.relation_candidates] == [("Ann Lee", "Rome"), ("Rome", "Red Mill")]


def test_entities_keep_their_knowledge_base_id(doc: Doc) -> None:
    doc.ents = [Span(doc, 0, 2, "PERSON", kb_id="Q1"), *doc.ents[1:]]
    assert doc._.relations[0].head.kb_id_ == "Q1"


@pytest.mark.parametrize("way", ["bytes", "docbin", "pickle", "copy"])
def test_relations_survive_serialization(doc: Doc, way: str) -> None:
    vocab = spacy.blank("en").vocab
    if way == "bytes":
        doc = Doc(vocab).from_bytes(doc.to_bytes())
    elif way == "docbin":
        packed = DocBin(docs=[doc], store_user_data=True).to_bytes()
        doc = next(iter(DocBin().from_bytes(packed).get_docs(vocab)))
    elif way == "pickle":
        doc = pickle.loads(pickle.dumps(doc))
    else:
        doc = doc.copy()
    assert as_text(doc) == EXPECTED


def test_retokenization_keeps_relations(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
    assert [(r.head.text, r.tail.text) for r in doc._.relations] == [("Ann Lee", "Red Mill"), ("Ann Lee", "Rome")]
    assert doc[0].text == "Ann Lee"


def test_record_that_no_longer_matches_is_skipped_with_a_warning(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[4:6])
    with pytest.warns(UserWarning, match="1 of 2 relation records were skipped"):
        assert [r.label for r in doc._.relations] == ["employer"]
    record = {
        "head": {"start": 0, "end": 3, "text": "Bob", "type": ""},
        "tail": {"start": 4, "end": 7, "text": "Lee", "type": ""},
    }
    with pytest.warns(UserWarning, match="1 of 1"):
        assert read_records(doc, [record]) == []


def test_relations_are_kept_when_docs_are_split_and_joined(doc: Doc) -> None:
    first = span_as_doc(doc[0:7])
    assert [r.label for r in first._.relations] == ["place of birth"]
    assert len(first._.relation_pairs) == 2
    other = spacy.blank("en")("Nobody is here")
    joined = join_docs([Doc(doc.vocab, words=["Nobody", "here"]), doc, doc])
    assert len(joined._.relations) == 4
    assert {(r.head.text, r.tail.text) for r in joined._.relations} == {("Ann Lee", "Rome"), ("Ann Lee", "Red Mill")}
    assert len({r.head.start for r in joined._.relations}) == 2
    second = span_as_doc(joined[len(joined) - len(doc) :])
    assert as_text(second) == EXPECTED
    assert other._.relations == ()
    start = doc[4].idx
    write_decisions(doc, [EntityDecision(start, start + len(doc[4]), doc[4].text, "", "GPE", 0.9)])
    assert [one["start"] for one in decisions_of(span_as_doc(doc[4:7]))] == [0]
    assert decisions_of(span_as_doc(doc[0:4])) == []
    assert [one["text"] for one in decisions_of(join_docs([first, doc]))] == [doc[4].text]
    with pytest.raises(ValueError, match="no documents"):
        join_docs([])


@pytest.mark.parametrize("has_relations", [True, False])
def test_documents_that_annotate_pairs_are_not_joined_with_others(doc: Doc, has_relations: bool) -> None:
    pairs = spacy.blank("en")("Bo met Di.")
    pairs._.relation_pairs = [(pairs[0:1], pairs[2:3], "met")]
    if has_relations:
        pairs._.relations = []
    relations = spacy.blank("en")("Ann met Bo.")
    relations._.relations = [(relations[0:1], relations[2:3], "met")]
    with pytest.raises(ValueError, match="join them separately"):
        join_docs([pairs, relations])


def as_record(doc: Doc, **head: object) -> dict:
    return {**doc._.relations[0], "head": {**doc._.relations[0]["head"], **head}}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda doc: [(doc[0:1], doc[1:2])], "tuple"),
        (lambda doc: ["relation"], "tuple"),
        (lambda doc: [{"head": {"start": 0, "end": 3}}], 'dict with "head" and "tail"'),
        (lambda doc: [(doc[0:1], doc[1:1], "x")], "empty span"),
        (lambda doc: [(doc[0:1], doc[1:2], "")], "label"),
        (lambda doc: [(doc[0:1], doc[1:2], "x", float("nan"))], "not a finite number"),
        (lambda doc: [(doc[0:1], doc[1:2], "x", "high")], "not a finite number: 'high'"),
        (lambda doc: [as_record(doc, start=1)], "offsets 1 to 7 of an argument are not those of tokens"),
        (lambda doc: [as_record(doc, text="Bo Lee")], 'the text "Bo Lee", but its offsets are those of "Ann Lee"'),
        (lambda doc: [(doc[0:1], spacy.blank("en")("other")[0:1], "x")], "its own document"),
    ],
)
def test_malformed_relations_raise_an_error(doc: Doc, bad, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        doc._.relations = bad(doc)
    assert as_text(doc) == EXPECTED


def test_stored_data_in_another_form_are_an_error(doc: Doc) -> None:
    doc.user_data["spacy_slmre.relations"] = [["Ann", "Rome"]]
    with pytest.raises(ValueError, match=r'The document "Ann Lee.* stores relations in another form'):
        doc._.relations  # noqa: B018


def test_attribute_of_another_package_is_not_overwritten() -> None:
    Doc.set_extension("taken", default=None)
    try:
        with pytest.raises(ValueError, match=r'Doc\._\.taken belongs to another package.*attr="…"'):
            install_extensions("taken")
    finally:
        Doc.remove_extension("taken")
    with pytest.raises(ValueError, match="attribute name"):
        install_extensions("not a name")


def test_relations_are_readable_when_they_are_printed(doc: Doc) -> None:
    text = str(doc._.relations[0])
    assert "employer" in text and str(doc._.relations[:1]) == f"(<Relation: {text}>,)"


def test_relations_are_written_and_read_as_json(doc: Doc) -> None:
    data = json.loads(json.dumps(doc.to_json(underscore=["relations", "relation_pairs"])))
    assert data["_"]["relations"][0]["label"] == "employer" and data["_"]["relations"][0]["head"]["text"] == "Ann Lee"
    again = Doc(doc.vocab).from_json(data)
    assert as_text(again) == EXPECTED and len(again._.relation_pairs) == 2
    again = Doc(doc.vocab).from_json(doc.to_json(underscore=["relations", "relation_pairs"]))
    assert as_text(again) == EXPECTED and len(again._.relation_pairs) == 2
    assert srsly.json_loads(srsly.json_dumps(doc.to_json(underscore=["relations"])))["_"]["relations"]


@pytest.mark.slow
def test_extensions_are_registered_on_import() -> None:
    code = (
        "from spacy.tokens import Doc, Span; Doc.set_extension('relation_pairs', default=1); import spacy_slmre; "
        "assert Doc.has_extension('relations') and Span.has_extension('relations'); "
        "assert Doc.get_extension('relation_pairs')[0] == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_extensions_are_installed_once() -> None:
    install_extensions()
    before = Doc.get_extension("relations")
    install_extensions()
    assert Doc.get_extension("relations") == before
    # As a spawned worker process receives them.
    getter = pickle.loads(pickle.dumps(before[2]))
    assert isinstance(getter, partial)
    Doc.set_extension("relations", getter=getter, setter=before[3], force=True)
    install_extensions()
