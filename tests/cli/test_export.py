from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import spacy_slmre.cli.export
from spacy_slmre.cli import slmre_cli
from spacy_slmre.export import FORMATS

LINE = {
    "id": "a.txt",
    "text": "Ann Lee was born in Rome.",
    "entities": [{"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"}],
    "relations": [
        {
            "head": {"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"},
            "tail": {"start": 20, "end": 24, "text": "Rome", "type": "GPE"},
            "label": "place of birth",
            "score": 0.97,
        }
    ],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [LINE, {"id": "b.txt", "error": "not UTF-8"}, LINE | {"id": "c.txt"}]
    path = tmp_path / "relations.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["export", *map(str, args)], catch_exceptions=False)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_and_listed_in_the_help(name: str, source: Path, tmp_path: Path) -> None:
    output = tmp_path / f"out{FORMATS[name].suffix or '_folder'}"
    result = run(source, "--format", name, "-o", output)
    assert result.exit_code == 0, result.output
    assert "3 documents with 2 relations → 2 relations in" in result.output
    assert "Not exported: failed in extraction: 1" in result.output
    assert output.exists() and name in spacy_slmre.cli.export.FORMATS
    assert run(source, "--format", name, "-o", output).exit_code == 1
    assert run(source, "--format", name, "-o", output, "-F").exit_code == 0
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, source.name])


def test_what_is_not_exported_is_listed(source: Path, tmp_path: Path) -> None:
    rejects, output = tmp_path / "rejects.jsonl", tmp_path / "out.jsonl"
    arguments = (source, "--format", "prodigy", "-o", output, "--rejects", rejects)
    result = run(*arguments)
    assert f"failed in extraction: 1 (listed in {rejects})" in " ".join(result.output.split())
    assert json.loads(rejects.read_text()) == {"id": "b.txt", "reason": "failed in extraction", "detail": "not UTF-8"}
    output.unlink()
    assert run(*arguments).exit_code == 0  # rejects of an earlier command are replaced, but no other file
    output.unlink()
    for other in (source, tmp_path / "thesis.txt"):
        (tmp_path / "thesis.txt").write_text("years")
        result = run(*arguments[:-1], other)
        assert result.exit_code == 1 and not output.exists(), result.output
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_relations_are_merged_selected_and_mapped_to_properties(source: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"place of birth": "P19"}', encoding="utf-8")
    output = tmp_path / "out.ttl"
    result = run(source, "-o", output, "--merge", "text", "--properties", tmp_path / "map.json", "--model", "m 1")
    assert "1 facts in" in result.output
    text = output.read_text(encoding="utf-8")
    assert "<http://www.wikidata.org/prop/direct/P19>" in text and 'rdfs:label "m 1"' in text
    result = run(source, "-o", output, "--overwrite", "--min-score", "0.99")
    assert result.exit_code == 0 and "No relation matches" in result.output


def test_labels_that_do_not_occur_are_reported(source: Path, tmp_path: Path) -> None:
    labels = ["--label", "place of brith", "--label", "place of birth"]
    result = run(source, "-o", tmp_path / "out.csv", *labels)
    assert result.exit_code == 0 and "2 relations in" in result.output
    assert "No relation has the label place of brith. The labels of the input: place of birth." in result.output


def test_bad_input_gets_one_clear_error_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text("mine", encoding="utf-8")
    (tmp_path / "broken.jsonl").write_text(json.dumps(LINE) + "\n{", encoding="utf-8")
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "bad.json").write_text("[", encoding="utf-8")
    cases = [
        ((source, "-o", tmp_path / "x.txt"), "matches no format"),
        ((source, "-o", tmp_path / "x.txt", "-f", "xml"), 'Unknown format "xml". Use one of jsonl, csv'),
        ((source, "-o", kept), "already exists"),
        ((source, source, "-o", tmp_path / "x.csv"), "relations.jsonl is named more than once"),
        ((source, "-o", source, "--overwrite"), "would replace the input"),
        ((source, "-o", source / "x.csv"), "cannot be written"),
        ((tmp_path / "no.jsonl", "-o", tmp_path / "x.csv"), "no.jsonl does not exist"),
        ((tmp_path / "bad.json", "-o", tmp_path / "x.csv"), "unknown suffix"),
        ((tmp_path / "broken.jsonl", "-o", kept, "--overwrite"), "broken.jsonl:2: invalid JSON"),
        ((source, "-o", tmp_path / "x.csv", "--merge", "name"), 'must be one of null, "text", "type"'),
        ((source, "-o", tmp_path / "x.spacy", "--merge", "text"), "does not support merged relations"),
        ((source, "-o", tmp_path / "x.ttl", "--base", "nowhere"), "is not a base IRI"),
        ((source, "-o", tmp_path / "x.csv", "--base", "urn:x:"), "--base has no effect with this format"),
        ((source, "-o", tmp_path / "x.ttl", "--lang", "en"), "--lang has no effect with this format"),
        ((source, "-o", tmp_path / "x.spacy", "--lang", "zz"), "is not a language of spaCy"),
        ((source, "-o", tmp_path / "x.ttl", "--properties", tmp_path / "bad.json"), "is not a JSON file"),
    ]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine", encoding="utf-8")
    cases.append(((source, "-o", tmp_path / "folder", "-f", "neo4j", "--overwrite"), "will not be replaced"))
    cases.append(((source, "-o", tmp_path / "folder", "-f", "csv", "--overwrite"), "will not be replaced"))
    before = sorted(os.listdir(tmp_path))
    for args, says in cases:
        result = run(*args)
        assert result.exit_code == 1 and says in result.output, (args, result.output)
    assert sorted(os.listdir(tmp_path)) == before and kept.read_text(encoding="utf-8") == "mine"
    result = run(tmp_path / "none.jsonl", "-o", tmp_path / "x.csv")
    assert result.exit_code == 0 and "The input has no relations" in result.output
