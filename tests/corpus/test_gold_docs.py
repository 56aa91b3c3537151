from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.corpus.gold_docs import FORMAT, SPLIT, format_of, make_doc, source_of
from spacy_slmre.corpus.records import Pair, Record
from spacy_slmre.documents import ID, tokenize
from spacy_slmre.instances import Mention, make_instances
from spacy_slmre.study.benchmarks.card import get_benchmark

DEMO = get_benchmark("demo")


def make(nlp, text, *pairs, mentions=(), words=None):
    record = Record("r1", 7, text, tuple(Pair(*pair) for pair in pairs), mentions, words)
    return make_doc(nlp, record, DEMO, "dev")


def test_a_document_has_what_its_record_says(nlp):
    ann, bo, rome = Mention(0, 3, "PER"), Mention(8, 10, "PER"), Mention(14, 18, "LOC")
    pairs = [(ann, bo, "spouse_of"), (bo, ann, "spouse_of"), (ann, rome, "no_relation")]
    doc, rejects = make(nlp, "Ann and Bo in Rome.", *pairs)
    assert not rejects
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ann", "PER"), ("Bo", "PER"), ("Rome", "LOC")]
    assert [(r.head.text, r.label, r.tail.text) for r in doc._.relations] == [
        ("Ann", "spouse_of", "Bo"),
        ("Bo", "spouse_of", "Ann"),
    ]
    assert [r.label for r in doc._.relation_pairs] == ["spouse_of", "spouse_of", "no_relation"]
    assert [doc.user_data[key] for key in (FORMAT, SPLIT, ID)] == ["demo", "dev", "r1"]
    assert format_of(doc) is DEMO
    assert MENTIONS not in doc.spans


def test_only_sentence_numbers_of_benchmarks_are_no_part_of_the_source(nlp):
    doc = nlp("Ann and Bo.")
    for provenance, source in [
        ({FORMAT: "re_docred", SPLIT: "train", ID: "train-12-3"}, "train-12"),
        ({FORMAT: "demo", SPLIT: "train", ID: "train-12"}, "train-12"),
        ({FORMAT: "demo", SPLIT: "news-2024", ID: "news-2024-3"}, "news-2024-3"),
        ({SPLIT: "news", ID: "news-2024-000"}, "news-2024-000"),
        ({}, "Ann and Bo."),
    ]:
        doc.user_data = provenance
        assert source_of(doc) == source


def test_a_pair_with_several_labels_is_several_instances(nlp):
    ann, bo = Mention(0, 3, "PER"), Mention(8, 10, "PER")
    labels = ["parent_of", "teacher_of", "teacher_of"]
    doc, _ = make(nlp, "Ann and Bo.", *[(ann, bo, label) for label in labels])
    assert [r.label for r in doc._.relation_pairs] == labels
    assert [r.label for r in doc._.relations] == ["parent_of", "teacher_of"]


def test_overlapping_and_nested_arguments_are_kept(nlp):
    outer, inner, other = Mention(0, 15, "ORG"), Mention(0, 4, "LOC"), Mention(24, 27, "PER")
    pairs = [(other, outer, "works_for"), (outer, inner, "based_in")]
    doc, rejects = make(nlp, "York University employs Ann.", *pairs)
    assert not rejects
    assert [ent.text for ent in doc.ents] == ["York University", "Ann"]
    assert [(span.text, span.label_) for span in doc.spans[MENTIONS]] == [
        ("York", "LOC"),
        ("York University", "ORG"),
        ("Ann", "PER"),
    ]
    assert [(r.head.text, r.tail.text) for r in doc._.relation_pairs] == [
        ("Ann", "York University"),
        ("York University", "York"),
    ]
    instances = make_instances(doc, [(r.head, r.tail) for r in doc._.relation_pairs], DEMO.schema)
    assert instances[1].text_of(instances[1].tail_mention) == "York"


def test_whitespace_at_the_edges_is_not_part_of_an_argument(nlp):
    doc, rejects = make(nlp, "In  Rome  Ann.", (Mention(2, 10, "LOC"), Mention(9, 13, "PER"), "no_relation"))
    assert not rejects
    assert [ent.text for ent in doc.ents] == ["Rome", "Ann"]


@pytest.mark.parametrize(
    ("mention", "reason"),
    [
        (Mention(8, 99, "PER"), "argument out of bounds"),
        (Mention(-2, 3, "PER"), "argument out of bounds"),
        (Mention(9, 5, "PER"), "argument out of bounds"),
        (Mention(4, 4, "PER"), "empty argument"),
        (Mention(3, 4, "PER"), "empty argument"),
    ],
)
def test_invalid_arguments_are_rejects(nlp, mention, reason):
    good = (Mention(0, 3, "PER"), Mention(8, 10, "PER"), "enemy_of")
    doc, rejects = make(nlp, "Ann and Bo.", (good[0], mention, "enemy_of"), good)
    assert [(reject.reason, reject.line, reject.id) for reject in rejects] == [(reason, 7, "r1")]
    assert len(doc._.relation_pairs) == 1


def test_a_label_that_the_format_does_not_have_is_a_reject(nlp):
    ann, bo = Mention(0, 3, "PER"), Mention(8, 10, "PER")
    doc, rejects = make(nlp, "Ann and Bo.", (ann, bo, "cousin_of"), (ann, bo, "Parent Of"))
    assert [reject.reason for reject in rejects] == ["unknown label"]
    assert "'cousin_of' is not a label of demo" in rejects[0].detail
    assert [r.label for r in doc._.relations] == ["parent_of"]


def test_source_tokens_are_kept(nlp):
    words = ("Ann", "'s", "pre-war", "house")
    doc, _ = make(nlp, "Ann 's pre-war house", words=words, mentions=(Mention(11, 14, "DATE"),))
    assert doc.text == "Ann 's pre-war house"
    assert [token.text for token in doc][:2] == ["Ann", "'s"]
    assert [ent.text for ent in doc.ents] == ["war"]


TEXTS = st.text(st.sampled_from("ab .,'-\n\té—(1)"), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.data())
def test_every_argument_keeps_its_place_and_its_text(nlp, text, data):
    offsets = st.integers(0, len(text))
    pairs = data.draw(st.lists(st.tuples(offsets, offsets, offsets, offsets), min_size=1, max_size=4))
    annotated = [(Mention(a, b, "PER"), Mention(c, d, "LOC"), "born_in") for a, b, c, d in pairs]
    doc, rejects = make(nlp, text, *annotated)
    assert doc.text == text
    kept = [pair for pair in annotated if all(m.start < m.end and text[m.start : m.end].strip() for m in pair[:2])]
    assert len(rejects) == len(annotated) - len(kept)
    assert [(r.head.text, r.tail.text) for r in doc._.relation_pairs] == [
        tuple(text[m.start : m.end].strip() for m in pair[:2]) for pair in kept
    ]
    for relation, (head, _, _) in zip(doc._.relation_pairs, kept, strict=True):
        assert head.start <= relation.head.start_char and relation.head.end_char <= head.end


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.data())
def test_source_tokens_are_split_at_the_edges_of_mentions(nlp, text, data):
    words = tuple(text.split(" "))
    if "" in words:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    doc = tokenize(nlp, text, [Mention(start, end, "PER")], words)
    assert doc.text == text
    if not text[start].isspace() and not text[end - 1].isspace():
        assert doc.char_span(start, end).text == text[start:end]
