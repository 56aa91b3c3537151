"""Reports of evaluation runs: what is shown beside what, what is left out, and that texts stay texts."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as CliResult
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.evaluation.errors import error_of, mark, sample_errors
from spacy_slmre.evaluation.report import Report, ReportOptions, make_report, rerun_command
from spacy_slmre.evaluation.results import make_results, means
from spacy_slmre.evaluation.runs import EvaluationError, Prediction, read_run
from spacy_slmre.evaluation.selection import select_runs
from spacy_slmre.evaluation.tables import Table, benchmark_table, side_by_side, study_table
from spacy_slmre.study.published import GROUPS, neighbours, published_results
from tests.evaluation.run_folders import NEGATIVE, write_run
from tests.relation_documents import HOSTILE


def report(folder: Path, **options: Any) -> Report:
    return make_report(select_runs([folder]), ReportOptions(**options))


def cells(table: Table, row: str) -> dict[str, str]:
    found = next(row_ for rows in table.bodies.values() for row_ in rows if row_[0].text == row)
    return {name: cell.text for name, cell in zip(table.header, found, strict=True)}


def about(**info: Any) -> dict[str, Any]:
    plain = {"kind": "slm", "params": 135e6, "regime": "GenTune", "style": "2-shot", "benchmark": "conll04"}
    return {"system": "mine", "substitute_for": None, **plain, **info}


# What was published


def test_published_averages_are_plain_means() -> None:
    rows = published_results()
    assert len(rows) == 34 and {row.flag for row in rows} == {"", "think", "schema"}
    for row in rows:
        for group, average in row.averages.items():
            scores = [row.scores[column] for column in GROUPS[group]]
            assert average == pytest.approx(sum(scores) / len(scores), abs=0.0011)


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({"system": "smollm2-360m, ours"}, ["SmolLM2-360M GenTune 2-shot"]),
        ({"system": "Qwen2.5 0.5B", "style": "0-shot"}, ["Qwen2.5-0.5B GenTune 0-shot"]),
        ({}, ["SmolLM2-360M GenTune 2-shot"]),
        ({"regime": "", "style": ""}, ["SmolLM2-360M GenTune 2-shot"]),
        ({"params": 3.1e9, "benchmark": "pg_fiction", "regime": "LitTune"}, ["Llama-3.2-3B LitTune 2-shot"]),
        ({"kind": "encoder", "benchmark": "nyt"}, ["RoBERTa-base", "RoBERTa-large"]),
        ({"kind": "encoder", "benchmark": "biographical"}, ["RoBERTa-base"]),
        ({"kind": "llm", "params": None}, ["GPT-5.4", "Claude Sonnet 4.6"]),
        ({"kind": "external", "params": None, "system": "gpt-5.4 again"}, ["GPT-5.4"]),
        ({"kind": "external", "params": None}, []),
        ({"benchmark": "crossre"}, []),
        ({"benchmark": "tacred", "substitute_for": "tacred"}, []),
    ],
)
def test_nearest_published_rows(info: dict, names: list[str]) -> None:
    assert [one.result.name for one in neighbours(about(**info))] == names


def test_nearest_row_says_what_it_shares() -> None:
    (near,) = neighbours(about(system="SmolLM2-360M", style="0-shot"))
    assert near.why == "same base model, regime and style" and near.score == 0.9061
    assert neighbours(about())[0].why == "nearest in size, same regime and style"


# Which runs


def test_unfinished_and_damaged_runs_are_left_out_with_a_word(tmp_path: Path) -> None:
    write_run(tmp_path / "deep" / "er" / "good")
    write_run(tmp_path / "damaged", "B").joinpath("metrics.json").write_text("{", encoding="utf-8")
    (write_run(tmp_path / "part", "C") / "run.json").unlink()
    selection = select_runs([tmp_path])
    assert [run.folder.name for run in selection.runs] == ["good"]
    assert len(selection.notes) == 2
    assert "damaged holds no complete evaluation run" in selection.notes[0]
    assert "part was left out: its evaluation is not finished" in selection.notes[1]


def test_no_run_says_what_was_looked_for(tmp_path: Path) -> None:
    (write_run(tmp_path / "a") / "run.json").unlink()
    with pytest.raises(EvaluationError, match=r"run\.json, metrics\.json.*a was left out.*slmre evaluate"):
        select_runs([tmp_path])
    with pytest.raises(EvaluationError, match=r"no folder .*nowhere"):
        select_runs([tmp_path / "nowhere"])


def test_of_doubles_the_larger_and_then_the_newer_run_is_shown(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", seed=1), write_run(tmp_path / "new", seed=2)
    os.utime(old / "run.json", (1, 1))
    assert [run.folder for run in select_runs([tmp_path]).runs] == [new.resolve()]
    (note,) = select_runs([tmp_path]).notes
    assert "old was left out" in note and "is older" in note and "SmolLM2-135M, demo, test" in note
    write_run(new, seed=2, pairs=30, limit=30)
    selection = select_runs([tmp_path])
    assert [run.folder for run in selection.runs] == [old.resolve()] and "has fewer pairs" in selection.notes[
        0
    ]


def test_systems_of_one_name_are_told_apart_by_how_they_were_asked(tmp_path: Path) -> None:
    for style in ("0-shot", "2-shot"):
        write_run(tmp_path / style, style=style, params=None)
    results = make_results(select_runs([tmp_path]).runs)
    assert sorted(one.name for one in results) == ["SmolLM2-135M (0-shot)", "SmolLM2-135M (2-shot)"]


def test_other_data_are_warned_of(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "A")
    write_run(tmp_path / "b", "B", data_sha256="cd" * 32)
    (note,) = select_runs([tmp_path]).notes
    assert "demo test" in note and "abababababab: A; cdcdcdcdcdcd: B" in note
    assert note in report(tmp_path, samples=0).html


# Tables


def test_averages_stand_beside_the_study_only_when_all_benchmarks_are_there(tmp_path: Path) -> None:
    for benchmark in ("biographical", "pg_fiction", "conll04", "nyt"):
        write_run(tmp_path / benchmark, benchmark=benchmark, pairs=40)
    write_run(tmp_path / "part", benchmark="gids", limit=40, pairs=40)
    write_run(tmp_path / "dev", benchmark="rebel", split="dev", pairs=40)
    write_run(tmp_path / "stand-in", benchmark="retacred", substitute_for="tacred", pairs=40)
    results = make_results(select_runs([tmp_path]).runs)
    found = {one.group: one for one in means(results)}
    assert found["literary"].complete and not found["general"].complete
    assert found["general"].columns == ("conll04", "nyt11")
    scores = {one.info["benchmark"]: one.f for one in results}
    assert found["literary"].value == (scores["biographical"] + scores["pg_fiction"]) / 2
    row = cells(study_table(results, means(results)), "SmolLM2-135M")
    assert row["Literary average"] == f"{found['literary'].value:.3f}" and row["General average"] == "–"
    assert row["TACRED"] == "–" and row["GIDS"] == f"{scores['gids']:.3f}"
    html = report(tmp_path, samples=0).html
    for words in ("only 40 pairs", "stands in for tacred", "split &#34;dev&#34;", "mean of 2 of 7 general"):
        assert words in html


def test_scores_stand_beside_the_nearest_published_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "SmolLM2-360M", "conll04")
    write_run(tmp_path / "b", "Ours", "conll04", kind="encoder", limit=120)
    results = make_results(select_runs([tmp_path]).runs)
    table = benchmark_table(results)
    ours = cells(table, "SmolLM2-360M")
    score = next(one.f for one in results if one.name == "SmolLM2-360M")
    assert ours["Published, nearest"] == "SmolLM2-360M GenTune 2-shot 0.972"
    assert ours["Difference"] == f"{score - 0.9716:+.3f}".replace("-", "−")
    # A part of the test set is no whole one.
    assert cells(table, "Ours")["Difference"] == "–" and "422 instances" in table.caption


def test_failed_published_configurations_are_flagged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "Qwen2.5-3B", "conll04", style="0-shot")
    made = report(tmp_path, samples=0)
    words = "failed in the study: answers in another label set"
    assert words in made.html and words in made.markdown and words in made.csv


@pytest.mark.parametrize(
    ("aspect", "values"),
    [("style", ("0-shot", "2-shot")), ("regime", ("GenTune", "MixTune")), ("dapt", (False, True))],
)
def test_runs_that_differ_in_one_aspect_stand_side_by_side(
    aspect: str, values: tuple, tmp_path: Path
) -> None:
    for value in values:
        write_run(tmp_path / str(value), f"system {value}", **{aspect: value})
    write_run(tmp_path / "other", "other size", params=1)
    write_run(tmp_path / "unknown", "unknown size", params=None, **{aspect: values[1]})
    write_run(tmp_path / "also", "also unknown", params=None, **{aspect: values[0]})
    results = make_results(select_runs([tmp_path]).runs)
    rows = side_by_side(results, aspect).bodies[""]
    assert [[cell.text for cell in row[1:3]] for row in rows] == [[f"system {value}" for value in values]]
    first, second = (next(one.f for one in results if one.name == f"system {value}") for value in values)
    assert rows[0][-1].number == pytest.approx(second - first)


# The page, Markdown and CSV


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "slm", "SmolLM2-360M", "conll04", 0.7)
    write_run(folder / "encoder", "Encoder", "conll04", 0.8, kind="encoder", style="", regime="in-domain")
    write_run(folder / "llm", "LLM", "conll04", 0.5, kind="llm", params=None, cost=0.42)
    write_run(folder / "demo", "SmolLM2-360M", "demo", 0.6)
    return folder


@pytest.fixture(scope="module")
def made(runs: Path) -> Report:
    return report(runs, command="python -m spacy slmre report RUNS")


def test_page_has_every_score_and_needs_nothing_else(made: Report, runs: Path) -> None:
    for run in select_runs([runs]).runs:
        micro, interval = run.metrics["micro"], run.metrics["interval"]
        for value in (f"{micro['f']:.3f}", f"[{interval['low']:.3f}, {interval['high']:.3f}]"):
            assert value in made.html and value.replace("[", "\\[").replace("]", "\\]") in made.markdown
    assert not re.search(r"<(link|img|iframe|object)|\b(src|srcset)=|@import|url\((?!#)", made.html)
    assert len(re.findall("<svg ", made.html)) == len(
        re.findall('<svg role="img" aria-label="[^"]{10}', made.html)
    )
    ids = re.findall(r' id="([^"]+)"', made.html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:aria-labelledby="|href="#|url\(#)([^")]+)', made.html)
    assert set(used) <= set(ids)
    # Text is text, in the page's colours.
    assert ">SmolLM2-360M<" in made.html and not re.search("#0[1-5]0[0-9a-f]{3}", made.html)


def test_report_is_the_same_every_time(made: Report, runs: Path) -> None:
    assert report(runs, command="python -m spacy slmre report RUNS") == made


def test_comparisons_are_shown(made: Report) -> None:
    assert "Encoder – SmolLM2-360M" in made.html and "p, Holm" in made.markdown


def test_systems_without_confidence_have_no_reliability(tmp_path: Path) -> None:
    write_run(tmp_path, kind="llm", params=None)
    html = report(tmp_path).html
    assert "Reliability" not in html and "Written by the model" in html


def test_samples_can_be_left_out(runs: Path, made: Report) -> None:
    assert "nobody in town" in made.html and "Sample errors" in made.html
    without = report(runs, samples=0)
    assert "nobody in town" not in without.html and "Sample errors" not in without.html
    assert "nobody in town" not in made.markdown + made.csv
    with pytest.raises(EvaluationError, match="--samples -1"):
        ReportOptions(samples=-1)


def test_csv_has_runs_and_published_scores(made: Report, runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(made.csv)))
    ours = [row for row in rows if row["source"] == "run"]
    scores = {run.info["benchmark"] + run.info["system"]: run.metrics for run in select_runs([runs]).runs}
    for row in ours:
        metrics = scores[row["benchmark"] + row["system"]]
        assert float(row["f"]) == metrics["micro"]["f"] and float(row["low"]) == metrics["interval"]["low"]
    assert len(ours) == 4 and next(row["cost"] for row in ours if row["name"] == "LLM") == "0.42"
    published = [row for row in rows if row["source"] == "arXiv 2606.22606"]
    assert len(published) == sum(len(row.scores) for row in published_results())


def test_hostile_texts_are_words(tmp_path: Path) -> None:
    for place, text in enumerate(HOSTILE):
        labels = [f"{text} {number}" for number in range(2)]
        write_run(tmp_path / str(place), f"{text} system", "demo", labels=labels, pairs=12, params=None)
    made = report(tmp_path)
    assert "<script>alert" not in made.html and "<img" not in made.html
    assert "&lt;script&gt;alert" in made.html and "{{ 7 * 7 }}" in made.html
    rows = list(csv.DictReader(io.StringIO(made.csv)))
    assert not [row["name"] for row in rows if re.match(r"[=+\-@]", row["name"])]
    lines = [line for line in made.markdown.splitlines() if line.startswith("| ")]
    assert all(re.fullmatch(r"\|( (\\.|[^\\|])* \|)+", line) for line in lines)


def test_command_makes_a_run_again(tmp_path: Path) -> None:
    settings = {"name": "My system", "component": None, "pairs": "annotated", "top": 3, "limit": 0}
    folder = write_run(tmp_path / "runs" / "a", pipeline="my model", corpus="test.spacy", settings=settings)
    assert rerun_command(read_run(folder)) == (
        f"python -m spacy slmre evaluate 'my model' test.spacy --output {tmp_path / 'runs'} "
        "--name 'My system' --pairs annotated --top 3"
    )
    assert rerun_command(read_run(write_run(tmp_path / "b"))) == ""


# Sample errors


TEXT = "Ada Brandt met Otto Reiss in Uppsala."


def prediction(gold: tuple[str, ...] = (), predicted: str | None = None, **more: Any) -> Prediction:
    spans = {"head": (0, 10), "tail": (15, 25), **more}
    return Prediction(
        "d/0", "d", TEXT, **spans, head_type="PER", tail_type="", gold=gold, predicted=predicted
    )


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (prediction(), None),
        (prediction(("a", "b"), "b"), None),
        (prediction((), "a"), "false positive"),
        (prediction(("a",)), "missed"),
        (prediction(("a",), "b"), "wrong label"),
        (prediction(answered=False), "unanswered"),
    ],
)
def test_kinds_of_errors(one: Prediction, kind: str | None) -> None:
    assert error_of(one) == kind


def test_sample_is_counted_and_seeded(tmp_path: Path) -> None:
    predictions = list(read_run(write_run(tmp_path, pairs=300)).predictions())
    first, again, other = (sample_errors(predictions, 3, seed) for seed in (0, 0, 1))
    assert first == again != other
    for kind, (count, sample) in first.items():
        assert count == sum(error_of(one) == kind for one in predictions) and len(sample) == min(3, count)
        assert all(error_of(one) == kind for one in sample)


span = st.tuples(st.integers(0, 500), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(span, span)
def test_marked_text_is_the_text(head: tuple[int, int], tail: tuple[int, int]) -> None:
    text = "".join(chr(0x4E00 + place) for place in range(600))
    one = Prediction("d/0", "d", text, head, tail, "PER", "LOC", (), None)
    parts = mark(one)
    shown = "".join(part.text for part in parts)
    assert shown.strip("… ") in text
    for role, (start, end) in (("head", head), ("tail", tail)):
        assert "".join(part.text for part in parts if role in part.roles) == text[start:end]
        assert [part for part in parts if role in [name for name, _ in part.ends]] == [
            part for part in parts if role in part.roles
        ][-1:]


# Commands


@pytest.fixture
def run_command(tmp_path: Path) -> Callable[..., CliResult]:
    return lambda *args: CliRunner().invoke(slmre_cli, ["report", *map(str, args)], catch_exceptions=False)


def test_command_writes_page_markdown_and_csv(run_command: Callable[..., CliResult], tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b.part").mkdir()
    (tmp_path / "runs" / "b.part" / "predictions.jsonl").touch()
    result = run_command(tmp_path / "runs", "-o", tmp_path / "out" / "r.html", "--title", "My <runs>")
    assert result.exit_code == 0, result.output
    assert "1 runs" not in result.output and "1 run →" in result.output and "is not finished" in result.output
    assert sorted(os.listdir(tmp_path / "out")) == ["r.csv", "r.html", "r.md"]
    page = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    assert "<title>My &lt;runs&gt;</title>" in page and "--title &#39;My &lt;runs&gt;&#39;" in page
    assert (tmp_path / "out" / "r.md").read_text(encoding="utf-8").startswith("# My")


def test_bad_input_says_what_to_do_and_loses_nothing(
    run_command: Callable[..., CliResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, page = write_run(tmp_path / "runs"), tmp_path / "page.html"
    (tmp_path / "page.md").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[tuple, str]] = [
        ((runs, "-o", page), "page.md is there already: give --overwrite"),
        ((runs, "-o", tmp_path / "page.txt"), "must end with .html"),
        ((tmp_path / "empty", "-o", page, "--overwrite"), "no complete evaluation run in"),
        ((tmp_path / "none", "-o", page, "--overwrite"), "There is no folder"),
        ((runs, "-o", page, "--overwrite", "--theme", "blue"), "Use one of auto, light, dark"),
    ]
    for args, says in cases:
        result = run_command(*args)
        assert result.exit_code == 1 and says in result.output, (args, result.output)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run_command(runs, "-o", page, "--overwrite")
    assert result.exit_code == 1 and "pip install 'spacy-slmre[report]'" in result.output
    (runs / "predictions.jsonl").write_text("{}\n", encoding="utf-8")
    monkeypatch.undo()
    result = run_command(runs, "-o", page, "--overwrite")
    assert result.exit_code == 1 and "predictions.jsonl:1" in result.output
    assert not page.exists() and (tmp_path / "page.md").read_text(encoding="utf-8") == "mine"


def test_negative_label_names_what_is_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert f"Gold: <b>{NEGATIVE}</b>" in report(tmp_path).html
