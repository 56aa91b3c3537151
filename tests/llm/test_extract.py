from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from tests.llm.conftest import ChatServer, failure


@pytest.fixture
def extract(make_nlp: Callable, make_model: Callable, tmp_path: Path) -> Callable[..., Result]:
    make_nlp(make_model(cache=str(tmp_path / "answers.sqlite"))).to_disk(tmp_path / "pipeline")
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"Ann Lee was born in Rome {number} years ago.")
    texts = [str(tmp_path / f"{number}.txt") for number in range(3)]

    def run(*more: str) -> Result:
        options = ["--output", str(tmp_path / "out.jsonl"), "--batch-size", "1"]
        return CliRunner().invoke(slmre_cli, ["extract", str(tmp_path / "pipeline"), *texts, *options, *more])

    return run


def test_extract_with_an_llm(extract: Callable[..., Result], tmp_path: Path) -> None:
    done = extract()
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(line["relations"]) for line in lines] == [2, 2, 2]
    assert lines[0]["model"].endswith(" relations")
    assert "adding slm_relations" not in done.output


def test_run_resumes_after_the_service_ended_it(extract, server: ChatServer, tmp_path: Path) -> None:
    server.script = [None, None, *[failure(429, "no more", "insufficient_quota")] * 2]
    done = extract()
    assert done.exit_code == 1 and "no credit left" in done.output
    assert not (tmp_path / "out.jsonl").exists()
    sent = len(server.requests)
    server.script.clear()  # with concurrent requests, the second refusal may be unused
    done = extract()
    assert done.exit_code == 0 and "Resuming an interrupted run" in done.output
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert len(server.requests) - sent <= 4


def test_a_run_without_any_answer_fails(extract, server: ChatServer, tmp_path: Path) -> None:
    server.always = failure(400, "not with me")
    with pytest.warns(UserWarning, match="a pair was not answered"):
        done = extract()
    assert done.exit_code == 1 and "3 documents failed" in done.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all("the model answered none of its 2 pairs" in line["error"] for line in lines)


def test_a_document_with_some_answers_does_not_fail(extract, server: ChatServer, tmp_path: Path) -> None:
    server.script = [failure(400, "not with me"), *[None] * 5]
    with pytest.warns(UserWarning, match="a pair was not answered"):
        assert extract().exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(len(line["relations"]) for line in lines) == [1, 2, 2]


def test_missing_key_raises_before_anything_is_written(extract, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    done = extract()
    assert done.exit_code == 1 and "environment variable TEST_KEY" in done.output.replace("\n", " ")
    assert not list(tmp_path.glob("out*"))
