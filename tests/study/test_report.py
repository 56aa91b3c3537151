"""The comparison with the study in reports."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from spacy_slmre.evaluation.report import Report, ReportOptions, make_report
from spacy_slmre.evaluation.results import Result, find_runs, make_results
from spacy_slmre.evaluation.tables import Table, corpus_table
from spacy_slmre.study.published import FLAGS, GROUPS, closest_results, published_results
from spacy_slmre.study.report import STUDY_SECTION, contrast_table, group_means, study_table
from tests.evaluation.run_folders import write_run


def report(folder: Path) -> Report:
    return make_report(*find_runs([folder]), ReportOptions(samples=0))


def read_results(folder: Path) -> list[Result]:
    return make_results(find_runs([folder])[0], [STUDY_SECTION])


def cells(table: Table, row: str) -> dict[str, str]:
    found = next(row_ for rows in table.bodies.values() for row_ in rows if row_[0].text == row)
    return {name: cell.text for name, cell in zip(table.header, found, strict=True)}


def about(**info: Any) -> dict[str, Any]:
    plain = {"kind": "slm", "params": 135e6, "regime": "GenTune", "style": "2-shot", "corpus": "conll04"}
    return {"system": "mine", **plain, **info}


def test_published_averages_are_plain_means() -> None:
    rows = published_results()
    assert len(rows) == 34 and {row.flag for row in rows} == {"", *FLAGS.values()}
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
        ({"params": 3.1e9, "corpus": "pg_fiction", "regime": "LitTune"}, ["Llama-3.2-3B LitTune 2-shot"]),
        ({"kind": "encoder", "corpus": "nyt"}, ["RoBERTa-base", "RoBERTa-large"]),
        ({"kind": "encoder", "corpus": "biographical"}, ["RoBERTa-base"]),
        ({"kind": "llm", "params": None}, ["GPT-5.4", "Claude Sonnet 4.6"]),
        ({"kind": "external", "params": None, "system": "gpt-5.4 again"}, ["GPT-5.4"]),
        ({"kind": "external", "params": None}, []),
        *(({"kind": "external", "params": None, "system": name}, []) for name in ("gpt-5.4-mini", "xlm-roberta-base")),
        ({"corpus": "crossre"}, []),
        ({"corpus": "kbp37"}, []),
    ],
)
def test_the_closest_published_results_are_chosen(info: dict, names: list[str]) -> None:
    assert [one.name for one in closest_results(about(**info))] == names


def test_a_reference_says_what_it_has_in_common() -> None:
    (closest,) = closest_results(about(system="SmolLM2-360M", style="0-shot"))
    assert closest.reason == "same base model, regime and style" and closest.score == 0.9061
    assert closest_results(about())[0].reason == "closest in size, same regime and style"


def test_averages_need_all_benchmarks_of_a_group(tmp_path: Path) -> None:
    for benchmark in ("biographical", "pg_fiction", "conll04", "nyt"):
        write_run(tmp_path / benchmark, corpus=benchmark, pairs=40)
    write_run(tmp_path / "part", corpus="gids", limit=40, pairs=40)
    write_run(tmp_path / "dev", corpus="rebel", split="dev", pairs=40)
    write_run(tmp_path / "substitute", corpus="kbp37", pairs=40)
    results = read_results(tmp_path)
    found = {one.group: one for one in group_means(results)}
    assert found["literary"].is_complete and not found["general"].is_complete
    assert found["general"].benchmarks == ("conll04", "nyt")
    scores = {one.info["corpus"]: one.f for one in results}
    assert found["literary"].value == (scores["biographical"] + scores["pg_fiction"]) / 2
    row = cells(study_table(results, group_means(results)), "SmolLM2-135M")
    assert row["Literary average"] == f"{found['literary'].value:.3f}" and row["General average"] == "–"
    assert row["TACRED"] == "–" and row["GIDS"] == f"{scores['gids']:.3f}"
    html = report(tmp_path).html
    for words in ("only 40 pairs", "substitute for tacred", "split &#34;dev&#34;", "mean of 2 of 7 general"):
        assert words in html


def test_scores_are_shown_next_to_the_closest_published_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "SmolLM2-360M", "conll04")
    write_run(tmp_path / "b", "Ours", "conll04", kind="encoder", limit=120)
    results = read_results(tmp_path)
    table = corpus_table(results)
    ours = cells(table, "SmolLM2-360M")
    score = next(one.f for one in results if one.name == "SmolLM2-360M")
    assert ours["Published, closest"] == "SmolLM2-360M GenTune 2-shot 0.972"
    assert ours["Difference"] == f"{score - 0.9716:+.3f}".replace("-", "−")
    # A part of the test set cannot be compared.
    assert cells(table, "Ours")["Difference"] == "–"


def test_failed_published_configurations_are_flagged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "Qwen2.5-3B", "conll04", style="0-shot")
    made = report(tmp_path)
    words = "failed in the study: answers from another label set"
    assert words in made.html and words in made.markdown and words in made.csv


@pytest.mark.parametrize(
    ("aspect", "values"), [("style", ("0-shot", "2-shot")), ("regime", ("GenTune", "MixTune")), ("dapt", (False, True))]
)
def test_runs_that_differ_in_one_aspect_are_contrasted(aspect: str, values: tuple, tmp_path: Path) -> None:
    for value in values:
        write_run(tmp_path / str(value), f"system {value}", **{aspect: value})
    write_run(tmp_path / "other", "other size", params=1)
    write_run(tmp_path / "unknown", "unknown size", params=None, **{aspect: values[1]})
    write_run(tmp_path / "also", "also unknown", params=None, **{aspect: values[0]})
    results = read_results(tmp_path)
    rows = contrast_table(results, aspect).bodies[""]
    assert [[cell.text for cell in row[1:3]] for row in rows] == [[f"system {value}" for value in values]]
    first, second = (next(one.f for one in results if one.name == f"system {value}") for value in values)
    assert rows[0][-1].number == pytest.approx(second - first)


def test_published_scores_are_in_the_csv_file(tmp_path: Path) -> None:
    write_run(tmp_path, corpus="conll04")
    rows = list(csv.DictReader(io.StringIO(report(tmp_path).csv)))
    published = [row for row in rows if row["source"] == "arXiv 2606.22606"]
    assert len(published) == sum(len(row.scores) for row in published_results()) == len(rows) - 1


def test_the_study_does_not_appear_on_other_data(tmp_path: Path) -> None:
    write_run(tmp_path / "run", corpus="my own corpus")
    made = report(tmp_path)
    for text in (made.html, made.markdown, made.csv):
        assert "study" not in text.lower() and "2606.22606" not in text and "ublished" not in text
