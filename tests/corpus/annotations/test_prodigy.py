from __future__ import annotations

import json

import pytest

from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.gold import annotates_pairs
from tests.corpus.annotations.conftest import entities

TEXT = "Ann Lee of Oslo met Bo."
WORDS = ["Ann", "Lee", "of", "Oslo", "met", "Bo", "."]


def tokens():
    position = 0
    for number, word in enumerate(WORDS):
        position = TEXT.index(word, position)
        yield {"text": word, "start": position, "end": position + len(word), "id": number, "ws": word != "Bo"}
        position += len(word)


TOKENS = list(tokens())


def span(first, last, label):
    """A span as Prodigy writes it: `token_end` is its last token."""
    return {
        "start": TOKENS[first]["start"],
        "end": TOKENS[last]["end"],
        "token_start": first,
        "token_end": last,
        "label": label,
    }


ANN, OSLO, BO = span(0, 1, "PER"), span(3, 3, "LOC"), span(5, 5, "PER")


def example(*relations, spans=(ANN, OSLO, BO), **more):
    return {
        "text": TEXT,
        "tokens": TOKENS,
        "spans": list(spans),
        "relations": list(relations),
        "_view_id": "relations",
        "answer": "accept",
    } | more


def relation(head, child, label, **spans):
    return {"head": head, "child": child, "label": label, "color": "#ffd882"} | spans


@pytest.fixture
def export(write, converted):
    return lambda *rows: converted(write("rel.jsonl", "\n".join(map(json.dumps, rows))))


def test_spans_are_found_by_their_offsets(export):
    found = export(example(relation(1, 3, "lives in", head_span=ANN, child_span=OSLO), meta={"id": "a.txt"}))
    (doc,) = found.docs
    assert found.format == "prodigy" and not found.rejects
    assert entities(doc) == [("Ann Lee", "PER"), ("Oslo", "LOC"), ("Bo", "PER")]
    assert found.relations() == [("Ann Lee", "lives in", "Oslo")]
    assert not annotates_pairs(doc.user_data) and doc.user_data["slmre.id"] == "a.txt"


@pytest.mark.parametrize("head", [0, 1])
def test_spans_are_found_by_their_tokens(export, head):
    assert export(example(relation(head, 3, "lives in"))).relations() == [("Ann Lee", "lives in", "Oslo")]


def test_relations_may_connect_single_tokens(export):
    single = {**span(4, 4, None)}
    found = export(example(relation(4, 6, "a"), relation(1, 4, "b", head_span=ANN, child_span=single)))
    assert found.relations() == [("met", "a", "."), ("Ann Lee", "b", "met")]
    assert ("met", "ENTITY") in entities(found.docs[0])


def test_of_nested_spans_the_one_that_ends_at_the_token_is_meant(export):
    nested = (span(0, 3, "ORG"), span(1, 1, "PER"))
    found = export(example(relation(1, 3, "in"), spans=nested))
    assert found.relations() == [("Lee", "in", "Ann Lee of Oslo")]
    # Both spans contain "Ann", and neither ends there.
    ambiguous = example(relation(0, 5, "x"), relation(5, 3, "y"), spans=(span(0, 3, "ORG"), span(0, 1, "PER")))
    found = export(ambiguous)
    assert found.rejects == {"ambiguous or missing argument": 1}
    assert found.relations() == [("Bo", "y", "Ann Lee of Oslo")]


def test_a_text_whose_only_relation_has_no_argument_is_skipped(export):
    found = export(example(), example(relation(1, 70, "in")))
    assert len(found.docs) == 1 and found.rejects == {"ambiguous or missing argument": 1, "no relation left": 1}


def test_rejected_and_ignored_examples_are_counted(export):
    rows = [example(relation(1, 3, "in")), example(answer="reject"), example(answer="ignore"), example(answer="?")]
    found = export(*rows)
    assert len(found.docs) == 1
    assert found.rejects == {"rejected by the annotator": 1, "ignored by the annotator": 1, "unknown answer": 1}


def test_an_accepted_example_without_relations_is_negative(export):
    found = export(example())
    assert found.docs[0]._.relations == () and not found.rejects


def test_invalid_examples_are_counted(export):
    wrong = [{**TOKENS[0], "text": "Bo"}, *TOKENS[1:]]
    missing = example()
    del missing["relations"]
    found = export(example(relation(1, 3, "in"), relation(1, 70, "in")), example(tokens=wrong), example(text=""))
    assert found.rejects == {"ambiguous or missing argument": 1, "malformed record": 2}
    with pytest.raises(CorpusError, match="matches no known format"):
        export(missing)


def test_an_invalid_line_is_an_error_with_its_number(write, converted):
    source = write("rel.jsonl", json.dumps(example()) + '\n{"text": ')
    with pytest.raises(CorpusError, match=r"rel\.jsonl:2: the line is not a JSON object"):
        converted(source)
