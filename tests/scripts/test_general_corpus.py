"""The corpus of the shipped adapter: properties become labels, doubtful pairs are left out."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import spacy

from spacy_slmre.corpora.shards import read_docs
from spacy_slmre.relations import install_extensions

ROOT = Path(__file__).parents[2]


def entity(name: str, kind: str, start: int, sentence: int = 0) -> list[dict]:
    return [{"name": name, "sent_id": sentence, "pos": [start, start + 1], "type": kind}]


DOCUMENT = {
    "title": "Ann",
    "sents": [
        ["Ann", "married", "Bo", "in", "Rome", ",", "Italy", ",", "and", "sang", "Dawn", "for", "Acme", "."]
    ],
    "vertexSet": [
        entity("Ann", "PER", 0),
        entity("Bo", "PER", 2),
        entity("Rome", "LOC", 4),
        entity("Italy", "LOC", 6),
        entity("Dawn", "MISC", 10),
        entity("Acme", "ORG", 12),
    ],
    "labels": [
        {"h": 0, "t": 1, "r": "P26", "evidence": [0]},
        {"h": 3, "t": 2, "r": "P36", "evidence": []},
        {"h": 4, "t": 0, "r": "P175", "evidence": []},
        {"h": 4, "t": 1, "r": "P50", "evidence": []},
        {"h": 2, "t": 3, "r": "P131", "evidence": []},
    ],
}


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch) -> dict[tuple[str, str], set[str]]:
    """What becomes of the document: (head, tail) → labels."""
    raw = tmp_path / "raw" / "re_docred"
    raw.mkdir(parents=True)
    (raw / "train_revised.json").write_text(json.dumps([DOCUMENT]))
    corpus = tmp_path / "general"
    arguments = [str(tmp_path / "raw"), str(corpus), "--demo", str(ROOT / "assets" / "demo_corpus")]
    monkeypatch.setattr(sys, "argv", ["general_corpus.py", *arguments, "--semeval", "0"])
    runpy.run_path(str(ROOT / "scripts" / "general_corpus.py"), run_name="__main__")
    install_extensions()
    found: dict[tuple[str, str], set[str]] = {}
    for split in ("train", "dev"):
        for doc in read_docs(corpus / f"{split}.spacy", spacy.blank("en").vocab):
            if doc.user_data["slmre.benchmark"] == "re_docred":
                for pair in doc._.relation_pairs:
                    found.setdefault((pair.head.text, pair.tail.text), set()).add(pair.label)
    return found


def test_properties_become_labels_in_their_direction(pairs) -> None:
    assert pairs["Ann", "Bo"] == pairs["Bo", "Ann"] == {"spouse"}
    assert pairs["Rome", "Italy"] == {"located in"}  # of P131, and of P36 the other way round
    assert pairs["Italy", "Rome"] == {"no_relation"}
    assert pairs["Dawn", "Bo"] == {"author"}  # what has an author is a work


def test_pairs_without_a_relation_are_negatives_and_doubtful_ones_are_not(pairs) -> None:
    assert pairs["Ann", "Acme"] == {"no_relation"}
    assert ("Dawn", "Ann") not in pairs  # a performer is near to an author
    assert ("Acme", "Dawn") not in pairs  # no label of the schema joins these types
