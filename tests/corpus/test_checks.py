from __future__ import annotations

import pytest
from spacy.tokens import Doc

from spacy_slmre.corpus.checks import check_corpora, sample_pairs
from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import DocBinWriter, read_docs
from spacy_slmre.study.benchmarks.card import get_benchmark


@pytest.fixture
def corpus(write, tmp_path):
    def corpus(name, text):
        output = tmp_path / f"{name}.spacy"
        convert(get_benchmark("demo"), write(f"{name}.txt", text), output, split=name)
        return output

    return corpus


def messages(findings, level):
    return [finding.message for finding in findings if finding.level == level]


ANN = "[Ann|PER] knows [Bo|PER].\n"


def test_duplicates_leaks_and_conflicts_are_warnings(corpus):
    train = corpus("train", ANN + "  1 teacher_of 2\n\n" + ANN + "\n[Cy|PER] of [Oslo|LOC].\n  1 lives_in 2\n")
    dev = corpus("dev", ANN + "  2 teacher_of 1\n\n[Di|PER] alone.\n")
    summaries, findings = check_corpora({"train": train, "dev": dev})
    assert summaries["train"].documents == 3 and summaries["dev"].instances == 2
    warnings = messages(findings, "warning")
    assert "train: 1 document with the same text as another one." in warnings
    several = "train: 1 pair with several labels, so micro-F1 with one answer per pair is at most 1.000."
    assert several in warnings
    assert "train and dev have 1 text in common." in warnings
    assert "train and dev label 2 pairs of the same text differently." in warnings
    assert "dev: 1 label of the other corpora missing." in warnings
    assert "dev: 1 document without annotated pairs." in messages(findings, "info")
    assert not messages(findings, "error")


def test_arguments_out_of_bounds_are_an_error(corpus, nlp, tmp_path):
    (doc,) = read_docs(corpus("train", ANN), nlp.vocab)
    record = dict(doc.user_data["spacy_slmre.relation_pairs"][0])
    record["tail"] = {**record["tail"], "start": 40, "end": 44}
    doc.user_data["spacy_slmre.relation_pairs"] = (record,)
    with DocBinWriter(tmp_path / "bad.spacy") as writer:
        writer.add(doc)
    _, findings = check_corpora({"train": tmp_path / "bad.spacy"})
    assert findings[0].level == "error" and "1 document with arguments that do not match" in findings[0].message
    assert findings[0].examples[0].startswith("train-1: ")


def test_a_corpus_without_pairs_is_an_error(corpus):
    _, findings = check_corpora({"train": corpus("train", "[Di|PER] alone.\n")})
    (message,) = messages(findings, "error")
    assert message.startswith("train: there are no annotated pairs. Convert your annotations")


def test_many_negatives_are_a_warning(corpus):
    people = "[A|PER], [B|PER], [C|PER], [D|PER] and [E|PER].\n"
    _, findings = check_corpora({"train": corpus("train", people + "  1 teacher_of 2\n")})
    assert "train: 95% of the pairs are negative." in messages(findings, "warning")


def test_a_sample_is_seeded_and_has_the_wanted_label(corpus):
    train = corpus("train", "[A|PER], [B|PER] and [C|PER].\n  1 teacher_of 2\n  2 teacher_of 3\n")
    assert {(pair.head.text, pair.tail.text) for pair in sample_pairs(train, 9, "teacher_of")} == {
        ("A", "B"),
        ("B", "C"),
    }
    drawn = [str(pair) for pair in sample_pairs(train, 2, seed=1)]
    assert len(drawn) == 2 and drawn == [str(pair) for pair in sample_pairs(train, 2, seed=1)]


def test_without_a_format_a_pair_is_negative_if_it_is_not_a_relation(nlp, tmp_path):
    doc = Doc(nlp.vocab, words=["Ann", "and", "Bo"])
    ann, bo = doc[0:1], doc[2:3]
    doc._.relation_pairs = [(ann, bo, "friend"), (bo, ann, "nothing")]
    doc._.relations = [(ann, bo, "friend")]
    only_relations = Doc(nlp.vocab, words=["Ann", "and", "Bo"])
    only_relations._.relations = [(only_relations[0:1], only_relations[2:3], "friend")]
    with DocBinWriter(tmp_path / "own.spacy") as writer:
        writer.add(doc)
        writer.add(only_relations)
    summaries, _ = check_corpora({"own": tmp_path / "own.spacy"})
    assert (summaries["own"].positives, summaries["own"].negatives) == (2, 1)
