"""Finding the runs of a report, and naming their systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spacy_slmre.evaluation.results import find_runs, make_results
from spacy_slmre.evaluation.runs import EvaluationError
from tests.evaluation.run_folders import write_run


def test_unfinished_and_damaged_runs_are_skipped_with_a_note(tmp_path: Path) -> None:
    write_run(tmp_path / "deep" / "er" / "good")
    write_run(tmp_path / "damaged", "B").joinpath("metrics.json").write_text("{", encoding="utf-8")
    (write_run(tmp_path / "part", "C") / "run.json").unlink()
    runs, notes = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"] and len(notes) == 2
    assert "damaged is not a complete evaluation run" in notes[0]
    assert "part: the evaluation is not finished" in notes[1]


def test_the_error_without_runs_says_what_was_expected(tmp_path: Path) -> None:
    (write_run(tmp_path / "a") / "run.json").unlink()
    with pytest.raises(EvaluationError, match=r"run\.json, metrics\.json.*Skipped .*a: the evaluation.*slmre evaluate"):
        find_runs([tmp_path])
    with pytest.raises(EvaluationError, match=r"folder .*nowhere does not exist"):
        find_runs([tmp_path / "nowhere"])


def test_a_folder_without_a_run_is_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "texts").mkdir()
    runs, notes = find_runs([tmp_path / "runs", tmp_path / "texts"])
    assert len(runs) == 1 and notes == [f"There is no evaluation run in {tmp_path / 'texts'}."]


def test_of_duplicates_the_larger_and_then_the_newer_run_is_kept(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old", seed=1), write_run(tmp_path / "new", seed=2)
    os.utime(old / "run.json", (1, 1))
    runs, (note,) = find_runs([tmp_path])
    assert [run.folder for run in runs] == [new]
    assert "Skipped" in note and "old, which is older" in note and "SmolLM2-135M, demo, test" in note
    write_run(new, seed=2, pairs=30, limit=30)
    runs, (note,) = find_runs([tmp_path])
    assert [run.folder for run in runs] == [old] and "new, which has fewer pairs" in note


def test_systems_of_the_same_name_are_named_by_their_differences(tmp_path: Path) -> None:
    for style in ("0-shot", "2-shot"):
        write_run(tmp_path / style, style=style, params=None)
    results = make_results(find_runs([tmp_path])[0])
    assert sorted(one.name for one in results) == ["SmolLM2-135M (0-shot)", "SmolLM2-135M (2-shot)"]


def test_different_pipelines_of_the_same_name_are_both_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, pipeline=f"{name}/model", key={"pipeline": name * 16})
        write_run(tmp_path / f"{name} again", pipeline=f"{name}/model", key={"pipeline": name * 16}, pairs=30)
    write_run(tmp_path / "c", "C")
    runs, notes = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["a", "b", "c"] and len(notes) == 2
    names = sorted(one.name for one in make_results(runs))
    assert names == ["C", "SmolLM2-135M (a/model aaaaaaa)", "SmolLM2-135M (b/model bbbbbbb)"]


def test_a_system_may_have_one_pipeline_for_each_corpus(tmp_path: Path) -> None:
    for corpus in ("a", "b"):
        write_run(tmp_path / corpus, corpus=corpus, pipeline=corpus, key={"pipeline": corpus * 16})
    first, second = make_results(find_runs([tmp_path])[0])
    assert first.name == second.name == "SmolLM2-135M" and first.series == second.series


def test_different_data_are_reported(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "A")
    write_run(tmp_path / "b", "B", data_sha256="cd" * 32)
    _, (note,) = find_runs([tmp_path])
    assert "demo test" in note and "abababababab: A; cdcdcdcdcdcd: B" in note
