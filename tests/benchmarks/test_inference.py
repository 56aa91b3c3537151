"""The inference benchmark runs, and its output becomes tables and plots; speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spacy_slmre.cli import slmre_cli
from tests.benchmarks.scripts import ROOT, run_script

MARKS = "before\n<!-- speed:begin -->\noutdated\n<!-- speed:end -->\n<!-- peers:begin -->\n<!-- peers:end -->\nafter\n"


@pytest.fixture(scope="module")
def measured(tiny_base: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """What a quick run with tiny models wrote."""
    folder = tmp_path_factory.mktemp("speed")
    source, corpus = ROOT / "assets" / "demo_corpus" / "test.txt", folder / "test.spacy"
    slmre_cli(["convert", str(source), "--format", "demo", "-o", str(corpus)], standalone_mode=False)
    models = ("--base", tiny_base, "--encoder", tiny_encoder, "--quick", "--output", folder / "speed.json")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "inference.py"), *map(str, models), "--corpus", corpus],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder / "speed.json", json.loads((folder / "speed.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_part_is_measured(measured: tuple[Path, dict]) -> None:
    parts = {name: part["found"] for name, part in measured[1]["parts"].items()}
    assert parts.keys() == {"contest", "limit", "sizes", "growth", "equality", "peers"}

    contest = parts["contest"]
    systems = {one["title"]: one for one in contest["systems"]}
    assert {one["part"] for one in systems.values()} >= {"ours", "generate", "rel", "encoder"}
    assert "flair" in contest["skipped"]
    works = contest["works"].keys()
    for one in systems.values():
        assert one["works"].keys() == works and one["cold"]["all"] > 0 and one["peak_gb"] > 0
        assert all(work["pairs_s"] > 0 and work["pairs"] > 0 for work in one["works"].values())
    tokens = {title: one["works"]["12 pairs a sentence"]["tokens_a_pair"] for title, one in systems.items()}
    assert 0 < tokens["`slm_relations`"] < tokens["Hugging Face `generate`, one by one"] / 4
    assert systems["Hugging Face `generate`, batch 8"]["to_batch_8"] == 1.0

    limit = parts["limit"]
    assert 0 < limit["tokens_needed"] <= limit["tokens_computed"]
    groups = limit["profile"]["groups"]
    assert sum(groups.values()) == pytest.approx(limit["profile"]["seconds"])
    assert all(groups[name] > 0 for name in ("linear layers", "attention", "tokenization", "head"))

    assert {len(parts["sizes"][by]["rows"]) for by in parts["sizes"]} == {2}
    corpora = {one["component"]: one["readings"][-1] for one in parts["growth"]["corpora"]}
    assert [corpora[name]["documents"] for name in ("slm_relations", "rel_classifier")] == [40, 40]
    exhaustive = parts["equality"]["rows"][0]
    assert exhaustive["equal"] == 1.0 and exhaustive["micro_f1"] == parts["equality"]["micro_f1"]


@pytest.mark.slow
def test_peers_are_measured_from_entities_and_raw_text(measured: tuple[Path, dict]) -> None:
    found = measured[1]["parts"]["peers"]["found"]
    systems = {one["title"]: one for one in found["systems"]}
    assert systems.keys() >= {"`slm_relations`", "`rel_classifier`", "REBEL"}
    peers = {"GLiNER2, base", "GLiNER2.5, base", "GLiNER2.5, small", "GLiNER-Relex, base"}
    assert systems.keys() | found["skipped"].keys() >= peers
    for title, one in systems.items():
        given, raw = ({f"{source}, {n} labels" for n in (5, 20, 50, 100)} for source in ("given entities", "raw text"))
        takes_entities = title.startswith(("`", "GLiNER-Relex"))
        assert one["works"].keys() == (given | raw if takes_entities else raw)
        assert all(work["sentences_s"] > 0 for work in one["works"].values())
    for ours in ("`slm_relations`", "`rel_classifier`"):
        assert systems[ours]["works"]["given entities, 5 labels"]["pairs_a_sentence"] == 12
        assert systems[ours]["works"]["raw text, 100 labels"]["times_by_round"][ours] == [1.0]
    for title, reason in found["skipped"].items():
        print(f"Not measured: {title} ({reason})")
        assert reason.endswith("is not installed")
    if found["skipped"]:
        pytest.skip(f"measured without {', '.join(found['skipped'])}")


@pytest.mark.slow
def test_output_becomes_tables_and_plots(
    measured: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, speed = tmp_path / "docs" / "speed.md", tmp_path / "speed.json"
    document.parent.mkdir()
    document.write_text(MARKS, encoding="utf-8")
    args = ("--document", document)
    with pytest.raises(SystemExit, match="--quick"):
        run_script(monkeypatch, "scripts/readme_table.py", "--speed", measured[0], *args)
    assert document.read_text(encoding="utf-8") == MARKS

    results = json.loads(json.dumps(measured[1]))
    for part in results["parts"].values():
        part["setting"]["quick"] = False
    speed.write_text(json.dumps(results), encoding="utf-8")
    for _ in range(2):
        run_script(monkeypatch, "scripts/readme_table.py", "--speed", speed, *args)
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- speed:begin -->\n") and text.endswith("<!-- peers:end -->\nafter\n")
    assert "**From raw text: sentences/s**" in text.split("<!-- peers:begin -->")[1]
    assert "**Beside others, 40 labels**" not in text.split("<!-- peers:begin -->")[1]
    assert "outdated" not in text and text.count("**Beside others, 40 labels**") == 1
    ours = measured[1]["parts"]["contest"]["found"]["systems"][0]["works"]["12 pairs a sentence"]["pairs_s"]
    shown = f"{ours:,.0f}" if ours >= 100 else f"{ours:.1f}" if ours >= 10 else f"{ours:.2f}"
    assert f"| `slm_relations` | {shown} | 1.00 (1.00–1.00) |" in text
    assert "Where the time goes" in text and "Equal labels" in text
    for name in ("pairs", "labels", "context", "document", "corpus", "memory"):
        plot = document.parent / "images" / f"speed_{name}.svg"
        assert plot.read_text(encoding="utf-8").startswith("<svg")
        assert f'src="images/speed_{name}.svg"' in text

    apart = tmp_path / "apart.json"
    apart.write_text(json.dumps({"parts": {"equality": results["parts"].pop("equality")}}), encoding="utf-8")
    speed.write_text(json.dumps(results), encoding="utf-8")
    run_script(monkeypatch, "scripts/readme_table.py", "--speed", speed, apart, *args)
    text = document.read_text(encoding="utf-8")
    assert text.split("<!-- peers:begin -->")[0].count("medians of") == 2 and "Equal labels" in text


def test_unknown_parts_and_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "benchmarks/inference.py", "--only", "ours,nothing")
    assert "unknown: nothing" in capsys.readouterr().err
    other = tmp_path / "other.json"
    other.write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(SystemExit, match="was not written by this script"):
        run_script(monkeypatch, "benchmarks/inference.py", "--only", "limit", "--output", other)
    assert other.read_text(encoding="utf-8") == '{"rows": []}'
