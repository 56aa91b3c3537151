"""The commands benchmarks, convert, inspect, debug-data and mix, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "assets" / "demo_corpus"


def run(*args, code=0):
    result = CliRunner().invoke(slmre_cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for split in ("train", "dev", "test"):
        run("convert", "demo", DEMO / f"{split}.txt", folder / "demo" / f"{split}.spacy")
    return folder


def test_benchmarks_are_listed():
    shown = run("benchmarks")
    assert all(name in shown for name in ("tacred", "gids", "re_docred", "pg_fiction", "demo"))
    cards = json.loads(CliRunner().invoke(slmre_cli, ["benchmarks", "--json"]).stdout)
    assert {card["name"] for card in cards} >= {"tacred", "webnlg"} and cards[0]["schema"]["labels"][0][
        "definition"
    ]


def test_a_card_is_shown():
    shown = run("benchmarks", "tacred")
    assert "LDC2018T24" in shown and "patch (default none)" in shown and "city of birth" in shown
    card = json.loads(CliRunner().invoke(slmre_cli, ["benchmarks", "gids", "--json"]).stdout)
    assert card["splits"]["test"] == 5663
    assert 'There is no benchmark "nothing"' in run("benchmarks", "nothing", code=1)


def test_convert_sums_up(tmp_path):
    shown = run("convert", "demo", DEMO / "dev.txt", tmp_path / "a.spacy", "--split", "dev")
    assert "documents 24" in shown and "annotated instances 64" in shown and "no_relation 36" in shown
    assert f"Corpus: {tmp_path / 'a.spacy'}" in shown
    summary = json.loads((tmp_path / "a.summary.json").read_text())
    assert summary["split"] == "dev" and summary["instances"] == 64


def test_convert_lists_rejects_and_writes_shards(tmp_path):
    source = tmp_path / "s.txt"
    source.write_text(
        "[Ann|PER] of [Oslo|LOC].\n  1 dwells_in 2\n\n" + "[Bo|PER] and [Cy|PER].\n  1 x 9\n\n" * 5
    )
    shown = run(
        "convert",
        "demo",
        source,
        tmp_path / "a.spacy",
        "--rejects",
        tmp_path / "r.jsonl",
        "--shard-size",
        "2",
    )
    assert "unknown label 1" in shown and "malformed relation 5" in shown
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "a.spacy").iterdir())) == 3


def test_convert_takes_settings(tmp_path):
    row = {
        "tokens": ["Ann", "of", "Oslo"],
        "entities": [[0, 1, "Peop"], [2, 3, "Loc"]],
        "relations": [[0, 1, 2, 3, "Live_In"]],
    }
    (tmp_path / "c.json").write_text(json.dumps([row]))
    args = ("convert", "conll04_pairs", tmp_path / "c.json", tmp_path / "c.spacy")
    assert "negatives 1" in run(*args)
    assert "negatives 0" in run(*args, "--set", "negatives=0", "--set", "seed=3")
    assert 'has no setting "ratio"' in run(*args, "--set", "ratio=1", code=1)
    assert "write NAME=VALUE" in run(*args, "--set", "negatives", code=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"tokens": ["a"], ', "c.json:2: no complete JSON object begins on this line"),
        (b'[{"tokens": ["\xe9"]}]', "c.json:1: byte 0xe9 is not UTF-8"),
        (b"id,text\n1,a\n", "neither a JSON list nor JSON lines"),
        (b'[{"text": "a"}]', "c.json:1: malformed record: KeyError: 'tokens'"),
    ],
)
def test_a_bad_source_is_an_error_and_leaves_nothing(tmp_path, content, message):
    (tmp_path / "c.json").write_bytes(content)
    shown = run("convert", "conll04", tmp_path / "c.json", tmp_path / "c.spacy", code=1)
    assert message in shown
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_other_errors_of_convert(tmp_path):
    assert "is a folder. Give one of the files" in run("convert", "demo", DEMO, tmp_path / "a.spacy", code=1)
    assert "gone.txt cannot be read" in run("convert", "demo", "gone.txt", tmp_path / "a.spacy", code=1)
    assert "must end in .spacy" in run("convert", "demo", DEMO / "dev.txt", tmp_path / "a.json", code=1)
    (tmp_path / "file").write_text("")
    run("convert", "demo", DEMO / "dev.txt", tmp_path / "file" / "a.spacy", code=1)


def test_inspect_shows_counts_and_pairs(corpora):
    shown = run("inspect", corpora / "demo" / "test.spacy", "--label", "born_in", "-n", "5")
    assert "documents 29" in shown and "no_relation" in shown
    assert "born_in Livia Moretti → Trieste The astronomer Livia Moretti was born in Trieste." in shown
    assert "born_in Mordecai Fenn → Wexcombe" in shown and "parent_of Olga" not in shown
    counts = json.loads(run("inspect", corpora / "demo" / "test.spacy", "--json"))
    assert counts["instances"] == 112 and counts["labels"]["born_in"] == 2
    assert 'has the label "nothing"; it has:' in run(
        "inspect", corpora / "demo" / "test.spacy", "--label", "nothing", code=1
    )
    assert "There is no corpus at" in run("inspect", corpora / "gone.spacy", code=1)


def test_debug_data(corpora):
    splits = [corpora / "demo" / f"{split}.spacy" for split in ("train", "dev", "test")]
    assert "Nothing stands out." in run("debug-data", *splits)
    shown = run("debug-data", splits[0], splits[0])
    assert "train and dev share 102 texts." in shown
    report = json.loads(run("debug-data", *splits, "--json"))
    assert report["splits"]["dev"]["documents"] == 24 and report["findings"]


def test_debug_data_fails_on_errors(corpora, tmp_path):
    (tmp_path / "s.txt").write_text("[Ann|PER] alone.\n")
    run("convert", "demo", tmp_path / "s.txt", tmp_path / "s.spacy")
    assert "there is no annotated pair" in run(
        "debug-data", corpora / "demo" / "train.spacy", tmp_path / "s.spacy", code=1
    )


def test_mix(corpora, tmp_path):
    shown = run("mix", ROOT / "configs" / "mixtures" / "demo.cfg", corpora, tmp_path / "m.json")
    assert "train: 200 pairs" in shown and "dev: 50 pairs" in shown
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["splits"]["train"]["pairs"] == 200 and manifest["schemas"]["demo"]["negative_label"]
    gentune = ROOT / "configs" / "mixtures" / "gentune.cfg"
    assert "There is no corpus of tacred" in run("mix", gentune, corpora, tmp_path / "g.json", code=1)
    assert not (tmp_path / "g.json").exists()


def test_mix_tells_what_is_trained_on_a_dev_split(corpora, tmp_path):
    (tmp_path / "demo").mkdir()
    for split, source in (("dev", "dev"), ("test", "dev")):
        (tmp_path / "demo" / f"{split}.spacy").write_bytes(
            (corpora / "demo" / f"{source}.spacy").read_bytes()
        )
    config = ROOT / "configs" / "mixtures" / "demo.cfg"
    shown = run("mix", config, tmp_path, tmp_path / "m.json")
    assert "demo: its dev split is for training, 24 documents that stand in test are left out" in shown
    (tmp_path / "demo" / "test.spacy").unlink()
    shown = run("mix", config, tmp_path, tmp_path / "m.json")
    assert "demo: its dev split is for training; nothing is left out" in shown


def test_convert_all_takes_what_is_there(tmp_path):
    raw = tmp_path / "raw" / "conll04"
    raw.mkdir(parents=True)
    row = {"tokens": ["Ann", "of", "Oslo"], "entities": [[0, 1, "Peop"], [2, 3, "Loc"]]}
    (raw / "test.CoNLL04.json").write_text(json.dumps([row | {"relations": [[0, 1, 2, 3, "Live_In"]]}]))
    shown = run("convert-all", ROOT / "assets", tmp_path / "raw", tmp_path / "out")
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.spacy"))
    assert written == [
        "conll04/test.spacy",
        "conll04_pairs/test.spacy",
        *(f"demo/{s}.spacy" for s in ("dev", "test", "train")),
    ]
    assert "conll04_pairs test 1 documents 2 pairs 1 negatives 0 rejected" in shown


def test_convert_all_goes_on_after_a_bad_file(tmp_path):
    (tmp_path / "raw" / "conll04").mkdir(parents=True)
    (tmp_path / "raw" / "conll04" / "test.CoNLL04.json").write_text("[{")
    shown = run("convert-all", tmp_path / "raw", ROOT / "assets", tmp_path / "out", code=1)
    assert "test.CoNLL04.json:1: no complete JSON object" in shown and "demo train 102 documents" in shown
    assert "2 of 5 files could not be converted." in shown
    assert "No file of gids lies in" in run(
        "convert-all", tmp_path / "raw", tmp_path / "out", "--only", "gids", code=1
    )
