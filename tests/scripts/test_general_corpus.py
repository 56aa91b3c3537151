"""The corpus of the shipped adapter: properties become labels, unclear pairs are skipped."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import spacy

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.relations import install_extensions

ROOT = Path(__file__).parents[2]


def entity(name: str, kind: str, start: int, sentence: int = 0) -> list[dict]:
    return [{"name": name, "sent_id": sentence, "pos": [start, start + 1], "type": kind}]


DOCUMENT = {
    "title": "Ann",
    "sents": [["Ann", "married", "Bo", "in", "Rome", ",", "Italy", ",", "and", "sang", "Dawn", "for", "Acme", "."]],
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
def make(tmp_path: Path, monkeypatch):
    """Run the script with options and return the labels of Re-DocRED's pairs by head and tail."""
    install_extensions()
    raw = tmp_path / "raw" / "re_docred"
    raw.mkdir(parents=True)
    names = {"train": '"Bea"', "dev": '"Bo"', "test": '"Ben"'}
    for split, name in names.items():
        # Each split has different documents.
        document = json.loads(json.dumps(DOCUMENT).replace('"Bo"', name))
        (raw / f"{split}_revised.json").write_text(json.dumps([document]))

    def make(*options: str) -> dict[tuple[str, str], set[str]]:
        corpus = tmp_path / "general"
        arguments = [str(tmp_path / "raw"), str(corpus), "--demo", str(ROOT / "assets" / "demo_corpus")]
        monkeypatch.setattr(sys, "argv", ["general_corpus.py", *arguments, "--semeval", "0", *options])
        runpy.run_path(str(ROOT / "scripts" / "general_corpus.py"), run_name="__main__")
        found: dict[tuple[str, str], set[str]] = {}
        for split in ("train", "dev"):
            for doc in read_docs(corpus / f"{split}.spacy", spacy.blank("en").vocab):
                if doc.user_data["slmre.format"] == "re_docred":
                    for pair in doc._.relation_pairs:
                        found.setdefault((pair.head.text, pair.tail.text), set()).add(pair.label)
        return found

    return make


@pytest.fixture
def pairs(make) -> dict[tuple[str, str], set[str]]:
    """The pairs of the document."""
    return make()


def test_the_train_split_is_only_used_on_request(make, tmp_path: Path, capsys) -> None:
    assert ("Ann", "Bo") in make() and ("Ann", "Bea") not in make()
    found = make("--splits", "train", "dev")
    assert {("Ann", "Bo"), ("Ann", "Bea")} <= found.keys() and ("Ann", "Ben") not in found
    (tmp_path / "raw" / "re_docred" / "train_revised.json").unlink()
    with pytest.raises(SystemExit):
        make("--splits", "train", "dev")
    assert "train_revised.json. Download it with: python -m spacy project assets" in capsys.readouterr().err


def test_the_test_split_comes_from_re_docred(make, tmp_path: Path) -> None:
    make()
    docs = list(read_docs(tmp_path / "general" / "test.spacy", spacy.blank("en").vocab))
    assert {doc.user_data["slmre.format"] for doc in docs} == {"re_docred"}
    assert any(ent.text == "Ben" for doc in docs for ent in doc.ents)
    assert not any(ent.text in ("Bo", "Bea") for doc in docs for ent in doc.ents)


def test_properties_become_labels_in_their_direction(pairs) -> None:
    assert pairs["Ann", "Bo"] == pairs["Bo", "Ann"] == {"spouse"}
    assert pairs["Rome", "Italy"] == {"located in"}  # from P131, and from P36 in the other direction
    assert pairs["Italy", "Rome"] == {"no_relation"}
    assert pairs["Dawn", "Bo"] == {"author"}  # an entity with an author is a work


def test_pairs_without_a_relation_are_negative_and_unclear_ones_are_skipped(pairs) -> None:
    assert pairs["Ann", "Acme"] == {"no_relation"}
    assert ("Dawn", "Ann") not in pairs  # a performer is similar to an author
    assert ("Acme", "Dawn") not in pairs  # no label of the schema allows these types
