"""`slmre evaluate` with an LLM on a local server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.docbin import DocBinWriter
from spacy_slmre.corpus.gold_docs import FORMAT, ID, SPLIT
from spacy_slmre.evaluation.runs import read_run
from spacy_slmre.relations import install_extensions
from tests.llm.conftest import ChatServer, failure

TEXTS = {"born_in": "Ann Lee was born in Rome.", "works_for": "Bo Lee works for Acme.", "no_relation": "Ed saw Oslo."}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    install_extensions()
    nlp = spacy.blank("en")
    with DocBinWriter(tmp_path / "test.spacy") as writer:
        for number, (label, text) in enumerate(TEXTS.items()):
            doc = nlp(text)
            spans = [doc[0:1] if number == 2 else doc[0:2], doc[-2:-1]]
            doc.set_ents([spacy.tokens.Span(doc, one.start, one.end, label="X") for one in spans])
            doc._.relation_pairs = [(*doc.ents, label)]
            doc.user_data |= {FORMAT: "demo", SPLIT: "test", ID: f"test-{number}"}
            writer.add(doc)
    return tmp_path / "test.spacy"


@pytest.fixture
def config(tmp_path: Path, make_model: Callable[..., dict[str, Any]]) -> Path:
    model = make_model(input_price=2.0, output_price=8.0)
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in model.items())
    file = tmp_path / "llm.cfg"
    file.write_text(f"""
[nlp]
lang = "en"
pipeline = ["relations"]

[components]

[components.relations]
factory = "llm"

[components.relations.task]
@llm_tasks = "spacy-slmre.RelationClassification.v1"

[components.relations.model]
{lines}
""")
    return file


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(slmre_cli, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def answer(question: str) -> str:
    if "Ann Lee" in question:
        return "Born in"
    return "a colleague" if "Bo Lee" in question else "no relation"


def test_llm_chooses_from_the_labels_of_the_benchmark(
    server: ChatServer, config: Path, corpus: Path, tmp_path: Path
) -> None:
    server.answer = answer
    shown = run(config, corpus, "-o", tmp_path / "runs")
    # The cost is shown before the results.
    assert shown.index("US dollars") < shown.index("all (micro)")
    found = read_run(tmp_path / "runs" / "llm-demo-test")
    assert found.info["kind"] == "llm" and (found.info["system"], found.info["model"]) == ("llm", "some-model")
    assert found.info["prompt"] == "schema" and found.info["cost"] > 0
    born, works, none = found.predictions()
    assert (born.predicted, born.answer) == ("born_in", "Born in")
    assert works.predicted == "a colleague" and none.predicted is None
    assert found.metrics["out_of_schema"] == 1
    assert (found.metrics["micro"]["tp"], found.metrics["micro"]["fp"], found.metrics["micro"]["fn"]) == (1, 1, 1)


def test_generic_prompt_lists_no_labels(server: ChatServer, config: Path, corpus: Path, tmp_path: Path) -> None:
    run(config, corpus, "--prompt", "generic", "--limit", 1)
    (_, _, body) = server.requests[0]
    assert body["messages"][0]["role"] == "system"
    assert "born in" not in body["messages"][0]["content"]


def test_unavailable_service_leaves_no_run(server: ChatServer, config: Path, corpus: Path, tmp_path: Path) -> None:
    server.always = failure(500, "down")
    with pytest.warns(UserWarning, match="not answered"):
        assert "repeat the command to resume" in run(config, corpus, "-o", tmp_path / "runs", code=1)
    assert not (tmp_path / "runs" / "llm-demo-test").exists()
    server.always, server.answer = None, answer
    run(config, corpus, "-o", tmp_path / "runs")
    assert read_run(tmp_path / "runs" / "llm-demo-test").metrics["unanswered"] == 0


def test_service_that_refuses_every_request_leaves_no_run(
    server: ChatServer, config: Path, corpus: Path, tmp_path: Path
) -> None:
    server.always = failure(400, "temperature is not supported")
    with pytest.warns(UserWarning, match="temperature is not supported"):
        assert "refused all 3 requests" in run(config, corpus, "-o", tmp_path / "runs", code=1)
    assert not (tmp_path / "runs" / "llm-demo-test").exists()


def test_no_speed_is_reported_for_cached_answers(
    server: ChatServer, config: Path, corpus: Path, tmp_path: Path
) -> None:
    server.answer = answer
    text = config.read_text()
    assert "cache = null" in text
    config.write_text(text.replace("cache = null", f'cache = "{tmp_path / "answers.sqlite"}"'))
    assert "pairs/s," in run(config, corpus, "-o", tmp_path / "first")
    assert "pairs/s," not in run(config, corpus, "-o", tmp_path / "second")
    first, second = (read_run(tmp_path / name / "llm-demo-test") for name in ("first", "second"))
    assert first.info["usage"]["requests"] == 3 and first.info["seconds"] > 0
    assert second.info["usage"]["cached"] == 3 and second.info["seconds"] == 0 and second.info["cost"] == 0


def test_lone_surrogates_in_answers_are_replaced(
    server: ChatServer, config: Path, corpus: Path, tmp_path: Path
) -> None:
    server.answer = lambda question: "born \ud83d"
    run(config, corpus, "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "llm-demo-test")
    assert [one.answer for one in found.predictions()] == ["born \ufffd"] * 3


def test_refused_key_ends_the_run(
    server: ChatServer, config: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.always = failure(401, "bad key")
    assert "key" in run(config, corpus, "-o", tmp_path / "runs", code=1)
    assert not (tmp_path / "runs" / "llm-demo-test").exists()
    server.always = None
    monkeypatch.delenv("TEST_KEY")
    assert "TEST_KEY" in run(config, corpus, "-o", tmp_path / "runs", code=1)
