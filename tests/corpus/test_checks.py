from __future__ import annotations

import pytest

from spacy_slmre.corpus.checks import diagnose
from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import ShardWriter, read_docs
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


def test_duplicates_leaks_and_conflicts(corpus):
    train = corpus(
        "train", ANN + "  1 teacher_of 2\n\n" + ANN + "\n[Cy|PER] of [Oslo|LOC].\n  1 lives_in 2\n"
    )
    dev = corpus("dev", ANN + "  2 teacher_of 1\n\n[Di|PER] alone.\n")
    summaries, findings = diagnose({"train": train, "dev": dev})
    assert summaries["train"].documents == 3 and summaries["dev"].instances == 2
    warnings = messages(findings, "warning")
    assert "train: 1 documents repeat the text of another one." in warnings
    assert (
        "train: 1 pairs have several labels; with one answer a pair micro-F1 cannot pass 1.000." in warnings
    )
    assert "train and dev share 1 texts." in warnings
    assert "train and dev label 2 pairs of the same text differently." in warnings
    assert "dev: 1 labels of the other splits do not occur." in warnings
    assert "dev: 1 documents have no annotated pair." in messages(findings, "info")
    assert not messages(findings, "error")


def test_arguments_out_of_bounds_are_errors(corpus, nlp, tmp_path):
    (doc,) = read_docs(corpus("train", ANN), nlp.vocab)
    record = dict(doc.user_data["spacy_slmre.relation_pairs"][0])
    record["tail"] = {**record["tail"], "start": 40, "end": 44}
    doc.user_data["spacy_slmre.relation_pairs"] = (record,)
    with ShardWriter(tmp_path / "bad.spacy") as writer:
        writer.add(doc)
    _, findings = diagnose({"train": tmp_path / "bad.spacy"})
    assert (
        findings[0].level == "error"
        and "1 documents have arguments that do not lie on" in findings[0].message
    )
    assert findings[0].examples[0].startswith("train-1: ")


def test_a_corpus_without_pairs_is_an_error(corpus):
    _, findings = diagnose({"train": corpus("train", "[Di|PER] alone.\n")})
    assert messages(findings, "error") == ["train: there is no annotated pair."]


def test_many_negatives_are_a_warning(corpus):
    people = "[A|PER], [B|PER], [C|PER], [D|PER] and [E|PER].\n"
    _, findings = diagnose({"train": corpus("train", people + "  1 teacher_of 2\n")})
    assert "train: 95% of the pairs are negatives." in messages(findings, "warning")
