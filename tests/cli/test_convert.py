"""`slmre convert` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli

DEMO = Path(__file__).parents[2] / "assets" / "demo_corpus"
CONLL = {
    "tokens": ["Ann", "of", "Oslo"],
    "entities": [[0, 1, "Peop"], [2, 3, "Loc"]],
    "relations": [[0, 1, 2, 3, "Live_In"]],
}


def convert(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(slmre_cli, ["convert", *map(str, args)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_a_summary_is_printed_and_written(tmp_path):
    shown = convert(DEMO / "dev.txt", "-o", tmp_path / "a.spacy", "--format", "demo", "--split", "dev")
    assert "documents 24" in shown and "instances 64" in shown and "no_relation 36" in shown
    assert f"Corpus: {tmp_path / 'a.spacy'}" in shown
    summary = json.loads((tmp_path / "a.summary.json").read_text())
    assert summary["split"] == "dev" and summary["instances"] == 64


def test_the_format_of_a_table_is_guessed_from_its_columns(tmp_path):
    source = tmp_path / "own.csv"
    source.write_text("text,entity1,entity2,relation\nAnn Lee lives in Oslo.,Ann Lee,Oslo,lives in\n")
    shown = convert(source, "-o", tmp_path / "own.spacy")
    assert "format table" in shown and "lives in 1" in shown


def test_an_ambiguous_or_unknown_format_is_an_error_that_lists_the_formats(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps([CONLL]))
    shown = convert(tmp_path / "c.json", "-o", tmp_path / "c.spacy", code=1)
    assert "could be conll04 or conll04_pairs. Set the format to one of: conll04, conll04_pairs." in shown
    shown = convert(tmp_path / "gone.json", "-o", tmp_path / "a.spacy", code=1)
    assert "There is no file" in shown and "set the format" in shown
    (tmp_path / "notes.txt").write_text("nothing")
    shown = convert(tmp_path / "notes.txt", "-o", tmp_path / "a.spacy", code=1)
    assert "matches no known format" in shown and "demo" in shown and "table" in shown
    for name, content in (("empty.txt", " "), ("empty.json", "[]"), ("header.csv", "text,relation\n")):
        (tmp_path / name).write_text(content)
        assert f"{name} is empty." in convert(tmp_path / name, "-o", tmp_path / "a.spacy", code=1)
    (tmp_path / "other.csv").write_text("text;head;tail;relation\na;b;c;d\n")
    assert "separated by ';': use commas" in convert(tmp_path / "other.csv", "-o", tmp_path / "a.spacy", code=1)
    shown = convert(tmp_path / "notes.txt", "-o", tmp_path / "a.spacy", "--format", "other", code=1)
    assert 'Unknown format "other"' in shown


def test_rejects_are_listed_and_large_outputs_are_folders(tmp_path):
    source = tmp_path / "s.txt"
    source.write_text("[Ann|PER] of [Oslo|LOC].\n  1 dwells_in 2\n\n" + "[Bo|PER] and [Cy|PER].\n  1 x 9\n\n" * 5)
    options = ("--format", "demo", "--rejects", tmp_path / "r.jsonl", "--shard-size", "2")
    shown = convert(source, "-o", tmp_path / "a.spacy", *options)
    assert "unknown label 1" in shown and "malformed relation 5" in shown
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "a.spacy").iterdir())) == 3
    # They are also listed if the corpus itself is up to date.
    (tmp_path / "r.jsonl").unlink()
    convert(source, "-o", tmp_path / "a.spacy", *options)
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 6


def test_exports_of_annotation_tools_are_recognized_and_what_is_dropped_is_listed(tmp_path):
    source, rejects = tmp_path / "admin.jsonl", tmp_path / "r.jsonl"
    entities = [
        {"id": number, "label": label, "start_offset": start, "end_offset": end}
        for number, (label, start, end) in enumerate([("PER", 0, 3), ("LOC", 13, 17), ("LOC", 13, 99)])
    ]
    relations = [{"id": n, "from_id": 0, "to_id": n, "type": "lives in"} for n in (1, 2)]
    row = {"id": 8, "text": "Ann lives in Oslo.", "entities": entities, "relations": relations, "Comments": []}
    source.write_text(json.dumps(row) + "\n")
    shown = convert(source, "-o", tmp_path / "a.spacy", "--rejects", rejects)
    assert "format doccano" in shown and "documents 1" in shown and "lives in 1" in shown
    assert "rejected 2 invalid entity 1 relation of a rejected entity 1" in shown
    listed = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(one["file"], one["line"], one["id"]) for one in listed] == [(str(source), 1, "8")] * 2
    assert "[13:99] is outside of the text, which has 18 characters" in listed[0]["detail"]


def test_folders_of_annotations_are_converted(tmp_path):
    folder = tmp_path / "brat"
    folder.mkdir()
    (folder / "a.txt").write_text("Ann met Bo.")
    (folder / "a.ann").write_text("T1\tPER 0 3\tAnn\nT2\tPER 8 10\tBo\nR1\tmet Arg1:T1 Arg2:T2\n")
    args = (folder, "-o", tmp_path / "a.spacy")
    assert "format brat" in convert(*args)
    assert "format brat" in convert(*args)  # up to date
    (folder / "a.ann").write_text("T1\tPER 0 3\tAnn\n")
    assert "already exists and was not converted from" in convert(*args, code=1)


def test_settings_are_passed_to_the_format(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps([CONLL]))
    args = (tmp_path / "c.json", "-o", tmp_path / "c.spacy", "--format", "conll04_pairs")
    assert "negatives 1" in convert(*args)
    without = ("--set", "negatives=0", "--set", "seed=3")
    assert "Choose another output, or replace it with overwrite" in convert(*args, *without, code=1)
    assert "negatives 0" in convert(*args, *without, "-F")
    assert 'has no setting "ratio"' in convert(*args, "--set", "ratio=1", code=1)
    assert "write NAME=VALUE" in convert(*args, "--set", "negatives", code=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"tokens": ["a"], ', "c.json:2: incomplete or invalid JSON object"),
        (b'[{"tokens": ["\xe9"]}]', "c.json:1: byte 0xe9 is not UTF-8"),
        (b"id,text\n1,a\n", "neither a JSON list nor JSON lines"),
        (b'[{"text": "a"}]', "c.json:1: malformed record: KeyError: 'tokens'"),
    ],
)
def test_an_invalid_source_is_an_error_and_leaves_no_output(tmp_path, content, message):
    (tmp_path / "c.json").write_bytes(content)
    shown = convert(tmp_path / "c.json", "-o", tmp_path / "c.spacy", "--format", "conll04", code=1)
    assert message in shown
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        (DEMO, "a.spacy", "is a folder. Specify a file"),
        ("gone.txt", "a.spacy", "gone.txt cannot be read"),
        (DEMO / "dev.txt", "a.json", "must end in .spacy"),
        (DEMO / "dev.txt", "file/a.spacy", ""),
    ],
)
def test_wrong_paths_are_errors(tmp_path, source, output, message):
    (tmp_path / "file").write_text("")
    assert message in convert(source, "-o", tmp_path / output, "--format", "demo", code=1)
