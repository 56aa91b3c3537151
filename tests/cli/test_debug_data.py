"""`slmre debug-data` as a user runs it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from tests.corpus.conftest import demo, write

__all__ = ["demo", "write"]


def debug(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(slmre_cli, ["debug-data", *map(str, args)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def splits(demo):
    return [demo / "demo" / f"{split}.spacy" for split in ("train", "dev", "test")]


def test_one_corpus_shows_counts_labels_and_sampled_pairs(splits):
    shown = debug(splits[2], "--label", "born_in", "-n", "5")
    assert "documents 29" in shown and "born_in 2 (1.8%)" in shown
    assert "born_in Livia Moretti → Trieste The astronomer Livia Moretti was born in Trieste." in shown
    assert "born_in Mordecai Fenn → Wexcombe" in shown and "parent_of Olga" not in shown
    assert "→" not in debug(splits[2])


def test_splits_are_compared(splits):
    shown = debug(*splits)
    assert "documents 102 24 29" in shown and "No problems found." in shown
    assert "train and dev have 102 texts in common." in debug(splits[0], splits[0])


def test_json_has_counts_and_findings(splits):
    report = json.loads(debug(*splits, "--json"))
    assert report["corpora"]["test"]["instances"] == 112
    assert report["corpora"]["test"]["labels"]["born_in"] == 2 and report["findings"]


def test_an_unknown_label_and_a_missing_corpus_are_errors(splits, tmp_path):
    assert 'No pair has the label "nothing". The labels are: author_of' in debug(
        splits[2], "--label", "nothing", code=1
    )
    assert "There is no corpus at" in debug(tmp_path / "gone.spacy", code=1)


def test_findings_of_level_error_make_the_exit_code_1(splits, write, tmp_path):
    source = write("s.txt", "[Ann|PER] alone.\n")
    arguments = ["convert", str(source), "-o", str(tmp_path / "s.spacy"), "--format", "demo"]
    assert CliRunner().invoke(slmre_cli, arguments).exit_code == 0
    assert "there are no annotated pairs" in debug(splits[0], tmp_path / "s.spacy", code=1)
