"""The commands benchmarks, convert-all and mix as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from spacy_slmre.study.commands import study_cli

ROOT = Path(__file__).parents[2]


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(study_cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_benchmarks_are_listed():
    shown = run("benchmarks")
    assert all(name in shown for name in ("tacred", "gids", "re_docred", "pg_fiction", "demo"))
    cards = json.loads(CliRunner().invoke(study_cli, ["benchmarks", "--json"]).stdout)
    assert {card["name"] for card in cards} >= {"tacred", "webnlg"}
    assert cards[0]["schema"]["labels"][0]["definition"]


def test_a_card_is_shown():
    shown = run("benchmarks", "tacred")
    assert "LDC2018T24" in shown and "patch (default none)" in shown and "city of birth" in shown
    card = json.loads(CliRunner().invoke(study_cli, ["benchmarks", "gids", "--json"]).stdout)
    assert card["splits"]["test"] == 5663
    assert 'There is no benchmark "nothing"' in run("benchmarks", "nothing", code=1)


def test_convert_all_converts_the_files_that_exist(tmp_path):
    raw = tmp_path / "raw" / "conll04"
    raw.mkdir(parents=True)
    row = {"tokens": ["Ann", "of", "Oslo"], "entities": [[0, 1, "Peop"], [2, 3, "Loc"]]}
    (raw / "test.CoNLL04.json").write_text(json.dumps([row | {"relations": [[0, 1, 2, 3, "Live_In"]]}]))
    shown = run("convert-all", ROOT / "assets", tmp_path / "raw", "-o", tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.spacy"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == [
        "conll04/test.spacy",
        "conll04_pairs/test.spacy",
        *(f"demo/{s}.spacy" for s in ("dev", "test", "train")),
    ]
    assert "conll04_pairs test 1 documents 2 pairs 1 negatives 0 rejected" in shown
    times = [path.stat().st_mtime_ns for path in files]
    run("convert-all", ROOT / "assets", tmp_path / "raw", "-o", tmp_path / "out")
    assert [path.stat().st_mtime_ns for path in files] == times  # nothing is converted again


def test_convert_all_continues_after_an_invalid_file(tmp_path):
    (tmp_path / "raw" / "conll04").mkdir(parents=True)
    (tmp_path / "raw" / "conll04" / "test.CoNLL04.json").write_text("[{")
    shown = run("convert-all", tmp_path / "raw", ROOT / "assets", "-o", tmp_path / "out", code=1)
    assert "test.CoNLL04.json:1: incomplete or invalid JSON object" in shown and "demo train 102 documents" in shown
    assert "2 of 5 files could not be converted." in shown
    only = ("-o", tmp_path / "out", "--benchmark", "gids")
    assert "There is no file of gids in" in run("convert-all", tmp_path / "raw", *only, code=1)


def test_mix_writes_a_manifest(demo, tmp_path):
    arguments = (ROOT / "configs" / "mixtures" / "demo.cfg", demo, "-o", tmp_path / "m.json")
    shown = run("mix", *arguments)
    assert "train: 200 pairs" in shown and "dev: 50 pairs" in shown
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["splits"]["train"]["pairs"] == 200 and manifest["schemas"]["demo"]["negative_label"]
    assert "m.json (unchanged)" in run("mix", *arguments)
    (tmp_path / "m.json").write_text("mine")
    assert "Replace it with --overwrite" in run("mix", *arguments, code=1)
    assert (tmp_path / "m.json").read_text() == "mine"
    run("mix", *arguments, "--overwrite")
    assert json.loads((tmp_path / "m.json").read_text()) == manifest
    gentune = ROOT / "configs" / "mixtures" / "gentune.cfg"
    assert "There is no corpus of tacred" in run("mix", gentune, demo, "-o", tmp_path / "g.json", code=1)
    assert not (tmp_path / "g.json").exists()


def test_mix_reports_dev_splits_used_for_training(demo, tmp_path):
    (tmp_path / "demo").mkdir()
    for split in ("dev", "test"):
        (tmp_path / "demo" / f"{split}.spacy").write_bytes((demo / "demo" / "dev.spacy").read_bytes())
    arguments = (ROOT / "configs" / "mixtures" / "demo.cfg", tmp_path, "-o", tmp_path / "m.json", "-F")
    assert "without 24 documents that also occur in its test split" in run("mix", *arguments)
    (tmp_path / "demo" / "test.spacy").unlink()
    assert "its test split is not converted, so no document is excluded" in run("mix", *arguments)
