"""Reports of evaluation runs: the page, the Markdown and CSV files, and the command."""

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
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.evaluation.report import Report, ReportOptions, make_report, rerun_command
from spacy_slmre.evaluation.results import find_runs
from spacy_slmre.evaluation.runs import EvaluationError, read_run
from tests.evaluation.run_folders import NEGATIVE, write_run
from tests.relation_documents import HOSTILE


def report(folder: Path, **options: Any) -> Report:
    return make_report(*find_runs([folder]), ReportOptions(**options))


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


def test_the_page_has_every_score_and_loads_no_resources(made: Report, runs: Path) -> None:
    for run in find_runs([runs])[0]:
        micro, interval = run.metrics["micro"], run.metrics["interval"]
        for value in (f"{micro['f']:.3f}", f"[{interval['low']:.3f}, {interval['high']:.3f}]"):
            assert value in made.html and value.replace("[", "\\[").replace("]", "\\]") in made.markdown
    assert not re.search(r"<(link|img|iframe|object)|\b(src|srcset)=|@import|url\((?!#)", made.html)
    assert len(re.findall("<svg ", made.html)) == len(re.findall('<svg role="img" aria-label="[^"]{10}', made.html))
    ids = re.findall(r' id="([^"]+)"', made.html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:aria-labelledby="|href="#|url\(#)([^")]+)', made.html)
    assert set(used) <= set(ids)
    # Plots contain text, in the page's colors.
    assert ">SmolLM2-360M<" in made.html and not re.search("#0[1-5]0[0-9a-f]{3}", made.html)


def test_reports_are_reproducible(made: Report, runs: Path) -> None:
    assert report(runs, command="python -m spacy slmre report RUNS") == made


def test_systems_are_compared(made: Report) -> None:
    assert "Encoder – SmolLM2-360M" in made.html and "p, Holm" in made.markdown


def test_systems_without_scores_have_no_reliability_plot(tmp_path: Path) -> None:
    write_run(tmp_path, kind="llm", params=None)
    html = report(tmp_path).html
    assert "Reliability" not in html and "The model wrote" in html


def test_sample_errors_can_be_omitted(runs: Path, made: Report) -> None:
    assert "nobody in town" in made.html and "Sample errors" in made.html
    without = report(runs, samples=0)
    assert "nobody in town" not in without.html and "Sample errors" not in without.html
    assert "nobody in town" not in made.markdown + made.csv
    with pytest.raises(EvaluationError, match="samples = -1"):
        ReportOptions(samples=-1)


@pytest.mark.parametrize(
    ("info", "title", "notice"),
    [
        ({"corpus": "conll04", "corpus_format": "conll04"}, "CoNLL04", True),
        ({"corpus": "conll04-facts", "corpus_format": "conll04", "level": "facts"}, "CoNLL04, facts", True),
        ({"corpus": "conll04", "corpus_format": None}, "conll04", False),  # a user's file of this name
        ({"corpus": "demo"}, "Demo corpus", False),
    ],
)
def test_the_license_of_the_corpus_is_shown(tmp_path: Path, info: dict, title: str, notice: bool) -> None:
    run = read_run(write_run(tmp_path, **info))
    assert run.title == title
    assert ("does not permit redistributing" in report(tmp_path).html) == notice


def test_the_csv_file_has_a_row_per_run(made: Report, runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(made.csv)))
    ours = [row for row in rows if row["source"] == "run"]
    scores = {run.info["corpus"] + run.info["system"]: run.metrics for run in find_runs([runs])[0]}
    for row in ours:
        metrics = scores[row["corpus"] + row["system"]]
        assert float(row["f"]) == metrics["micro"]["f"] and float(row["low"]) == metrics["interval"]["low"]
    assert len(ours) == 4 and next(row["cost"] for row in ours if row["name"] == "LLM") == "0.42"


def test_special_characters_are_escaped(tmp_path: Path) -> None:
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


def test_a_run_can_be_repeated_with_its_command(tmp_path: Path) -> None:
    settings = {"name": "My system", "component": None, "pairs": "annotated", "top": 3, "limit": 0}
    settings["allow_missing"] = True
    folder = write_run(tmp_path / "runs" / "a", pipeline="my model", corpus_path="test.spacy", settings=settings)
    assert rerun_command(read_run(folder)) == (
        f"python -m spacy slmre evaluate 'my model' test.spacy --output {tmp_path / 'runs'} "
        "--name 'My system' --pairs annotated --top 3 --allow-missing"
    )
    assert rerun_command(read_run(write_run(tmp_path / "b"))) == ""


@pytest.fixture
def run_command(tmp_path: Path) -> Callable[..., CliResult]:
    return lambda *args: CliRunner().invoke(slmre_cli, ["report", *map(str, args)], catch_exceptions=False)


def test_the_command_writes_page_markdown_and_csv(run_command: Callable[..., CliResult], tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b.part").mkdir()
    (tmp_path / "runs" / "b.part" / "predictions.jsonl").touch()
    result = run_command(tmp_path / "runs", "-o", tmp_path / "out" / "r.html", "--title", "My <runs>")
    assert result.exit_code == 0, result.output
    assert "1 run →" in result.output and "is not finished" in result.output
    assert sorted(os.listdir(tmp_path / "out")) == ["r.csv", "r.html", "r.md"]
    page = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    assert "<title>My &lt;runs&gt;</title>" in page and "--title &#39;My &lt;runs&gt;&#39;" in page
    assert (tmp_path / "out" / "r.md").read_text(encoding="utf-8").startswith("# My")


def test_bad_input_gets_one_clear_error_and_changes_nothing(
    run_command: Callable[..., CliResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, page = write_run(tmp_path / "runs"), tmp_path / "page.html"
    (tmp_path / "page.md").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[tuple, str]] = [
        ((runs, "-o", page), "page.md already exists"),
        ((runs, "-o", tmp_path / "page.txt"), "must end in .html"),
        ((tmp_path / "empty", "-o", page, "--overwrite"), "no complete evaluation run in"),
        ((tmp_path / "none", "-o", page, "--overwrite"), "none does not exist"),
        ((runs, "-o", page, "--overwrite", "--theme", "blue"), 'must be one of "auto", "light", "dark"'),
    ]
    for args, says in cases:
        result = run_command(*args)
        assert result.exit_code == 1 and says in result.output, (args, result.output)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run_command(runs, "-o", page, "--overwrite")
    assert result.exit_code == 1 and "pip install 'spacy-slmre[report]'" in result.output
    lines = (runs / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (runs / "predictions.jsonl").write_text("".join(["{}\n", *lines[1:]]), encoding="utf-8")
    monkeypatch.undo()
    result = run_command(runs, "-o", page, "--overwrite")
    assert result.exit_code == 1 and "predictions.jsonl:1" in result.output
    assert not page.exists() and (tmp_path / "page.md").read_text(encoding="utf-8") == "mine"


def test_no_relation_is_shown_as_the_negative_label(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert f"Gold: <b>{NEGATIVE}</b>" in report(tmp_path).html
