"""The public data, where they are there: counts as published, and arguments to the letter."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from spacy_slmre.corpus.gold_docs import make_doc
from spacy_slmre.corpus.records import Reject
from spacy_slmre.corpus.summary import Summary
from spacy_slmre.study.benchmarks.card import get_benchmark

# Benchmark, split, file, documents, instances with a relation, negatives, rejects.
CASES = [
    ("conll04", "train", "conll04/train.CoNLL04.json", 922, 1283, 0, {}),
    ("conll04", "dev", "conll04/valid.CoNLL04.json", 231, 343, 0, {}),
    ("conll04", "test", "conll04/test.CoNLL04.json", 288, 422, 0, {}),
    ("conll04_pairs", "test", "conll04/test.CoNLL04.json", 288, 422, 3400, {}),
    ("semeval2010_task8", "train", "semeval2010_task8/TRAIN_FILE.TXT", 8000, 6590, 1410, {}),
    ("semeval2010_task8", "test", "semeval2010_task8/TEST_FILE_FULL.TXT", 2717, 2263, 454, {}),
    ("gids", "dev", "gids/dev.tsv", 1864, 1417, 447, {}),
    ("gids", "test", "gids/test.tsv", 5663, 4307, 1356, {}),
    ("kbp37", "train", "kbp37/train.txt", 15807, 14275, 1532, {"empty argument": 110}),
    ("kbp37", "dev", "kbp37/dev.txt", 1714, 1506, 208, {"empty argument": 10}),
    ("kbp37", "test", "kbp37/test.txt", 3379, 2967, 412, {"empty argument": 26}),
    ("nyt", "dev", "nyt24/val_triples.json", 4983, 8442, 0, {"argument not in the text": 47}),
    ("nyt", "test", "nyt24/test_triples.json", 4979, 8572, 0, {"argument not in the text": 44}),
    ("webnlg", "train", "webnlg/train.json", 5019, 11313, 0, {}),
    ("webnlg", "dev", "webnlg/dev.json", 500, 1224, 0, {}),
    ("webnlg", "test", "webnlg/test.json", 703, 1607, 0, {}),
    ("re_docred", "dev", "re_docred/dev_revised.json", 2502, 7982, 6334, {"entities share no sentence": 9302}),
    ("re_docred", "test", "re_docred/test_revised.json", 2409, 8156, 6466, {"entities share no sentence": 9292}),
    ("rebel", "sample", "rebel_sample/sample.jsonl", 1000, 2868, 0, {}),
    ("crossre", "train", "crossre_literature/literature-train.json", 100, 400, 0, {}),
    ("crossre", "dev", "crossre_literature/literature-dev.json", 400, 1570, 0, {}),
    ("crossre", "test", "crossre_literature/literature-test.json", 416, 1623, 0, {}),
]
CEILINGS = {("nyt", "test"): 0.835, ("re_docred", "test"): 0.795}


@pytest.mark.parametrize(
    ("name", "split", "file", "documents", "positives", "negatives", "rejected"),
    CASES,
    ids=[f"{name}-{split}" for name, split, *_ in CASES],
)
def test_counts(nlp, data, name, split, file, documents, positives, negatives, rejected):
    card = get_benchmark(name)
    if not (data / file).exists():
        pytest.skip(f"{data / file} is not there")
    summary, rejects = Summary(), Counter()
    for item in card.read(data / file, split):
        if isinstance(item, Reject):
            rejects[item.reason] += 1
            continue
        doc, lost = make_doc(nlp, item, card, split)
        rejects.update(reject.reason for reject in lost)
        if item.pairs and len(lost) == len(item.pairs):
            continue
        summary.add(doc)
        # Every pair is in the document with the words that the source gives it.
        texts = [
            (item.text[p.head.start : p.head.end].strip(), item.text[p.tail.start : p.tail.end].strip())
            for p in item.pairs
        ]
        assert [(r.head.text, r.tail.text) for r in doc._.relation_pairs] == texts
    assert (summary.documents, summary.positives, summary.negatives) == (documents, positives, negatives)
    assert rejects == rejected
    official = card.splits[split]
    if name == "re_docred":
        assert summary.positives + rejects.total() == official
    else:
        assert summary.instances + rejects.total() == official
    if ceiling := CEILINGS.get((name, split)):
        assert summary.ceiling == pytest.approx(ceiling, abs=0.0005)


def test_nyt_arguments_are_those_of_the_file(data):
    source = data / "nyt24" / "test_triples.json"
    triples = [[tuple(triple) for triple in row["triple_list"]] for row in json.loads(source.read_text())]
    found = [[] for _ in triples]
    for item in get_benchmark("nyt").read(source, "test"):
        if not isinstance(item, Reject):
            text = item.text
            found[int(item.id.split("-")[1])] = [
                (text[p.head.start : p.head.end], p.label, text[p.tail.start : p.tail.end]) for p in item.pairs
            ]
    assert sum(map(len, found)) == 8616 - 44
    assert all(set(some) <= set(every) for some, every in zip(found, triples, strict=True))
    assert len({(n, head, tail) for n, row in enumerate(triples) for head, _, tail in row}) == 6775


def test_gids_arguments_are_those_of_the_file(data):
    source = data / "gids" / "test.tsv"
    rows = [line.split("\t") for line in source.read_text().splitlines()]
    for row, item in zip(rows, get_benchmark("gids").read(source, "test"), strict=True):
        (pair,) = item.pairs
        shown = [item.text[m.start : m.end] for m in (pair.head, pair.tail)]
        assert shown == [argument.replace("_", " ") for argument in row[2:4]]
