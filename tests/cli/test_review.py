from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import spacy
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.review import TOOLS
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.export.formats import FORMATS
from spacy_slmre.gold import gold_pairs


def invoke(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(slmre_cli, ["review", "--port", "0", *map(str, args)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.txt", "-o", "x.jsonl"], "missing.txt does not exist"),
        (["TEXTS", "-o", "x.json"], "must end with .jsonl"),
        (["-", "-o", "x.jsonl"], "use files"),
        (["TEXTS", "-o", "x.json", "--to", "excel"], "Use one of label-studio, prodigy, doccano"),
        (["TEXTS", "-o", "x.jsonl", "--theme", "blue"], 'must be one of "auto", "light", "dark"'),
        (["TEXTS", "-o", "TEXTS"], "would replace the input"),
        (["TEXTS", "-o", "EXISTING"], "already exists"),
    ],
)
def test_bad_input_gets_one_clear_error(
    args: list[str], message: str, texts: Path, pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    existing = tmp_path / "existing.jsonl"
    existing.write_text("mine")
    names = {"TEXTS": str(texts), "EXISTING": str(existing)}
    if message == "would replace the input":
        names["TEXTS"] = str(texts / "0.jsonl")
        (texts / "0.jsonl").write_text('{"text": "Ann"}\n')
    code, output = invoke(*(names.get(arg, arg) for arg in args), "--pipeline", pipeline)
    assert code == 1 and message in output and "Traceback" not in output
    assert existing.read_text() == "mine"


def test_port_in_use_is_reported_before_the_pipeline_is_loaded(texts: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output = invoke(texts, "--pipeline", "no_such_pipeline", "-o", tmp_path / "x.jsonl", "--port", port)
    assert code == 1 and f"Port {port} of 127.0.0.1 is not available" in output


def test_tools_are_export_formats_that_convert_reads() -> None:
    assert set(TOOLS) <= set(FORMATS)


@pytest.mark.parametrize("tool", TOOLS)
def test_pre_annotations_are_written_for_annotation_tools(
    tool: str, texts: Path, pipeline: str, tmp_path: Path
) -> None:
    output = tmp_path / ("tasks.json" if tool == "label-studio" else "tasks.jsonl")
    args = (texts, "--pipeline", pipeline, "-o", output, "--to", tool, "--near-miss", 0, "--limit", 20)
    code, message = invoke(*args)
    assert code == 0 and "20 proposed relations" in message, message
    content = output.read_text("utf-8")
    assert "Ann Lee" in content and "Nobody is named here" not in content
    if tool == "label-studio":
        arrows = [one for task in json.loads(content) for one in task["predictions"][0]["result"]]
        assert sum(one["type"] == "relation" for one in arrows) == 20
        assert json.loads(content)[0]["predictions"][0]["model_version"].endswith("slm_relations")
    code, message = invoke(*args)
    assert code == 1 and "already exists" in message


def test_nothing_to_review_is_said(tmp_path: Path, pipeline: str) -> None:
    (tmp_path / "empty.txt").write_text("Nobody is named here.")
    code, message = invoke(tmp_path / "empty.txt", "--pipeline", pipeline, "-o", tmp_path / "out.jsonl")
    assert code == 0 and "nothing to review" in message


def test_the_reason_why_there_is_nothing_to_review_is_said(tmp_path: Path, texts: Path, pipeline: str) -> None:
    nlp = spacy.load(pipeline, exclude=["entity_ruler"])
    nlp.to_disk(tmp_path / "no_entities")
    with pytest.warns(UserWarning, match="no component before this one finds entities"):
        code, message = invoke(texts, "--pipeline", tmp_path / "no_entities", "-o", tmp_path / "out.jsonl")
    assert code == 0 and "nothing to review" in message


@contextmanager
def serving(*args: object) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """Run the command; yield its process, its address and what it printed before."""
    command = [sys.executable, "-m", "spacy", "slmre", "review", *map(str, args), "--port", "0"]

    def interruptible() -> None:
        # Background processes of a shell ignore this signal, and so do their children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        assert process.stderr is not None
        printed = ""
        for line in process.stderr:
            printed += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                yield process, found[0], printed
                break
        else:
            pytest.fail(printed)


def post(address: str, path: str, **data: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        address + path, json.dumps(data).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_killed_session_loses_nothing_and_is_resumed(texts: Path, pipeline: str, tmp_path: Path) -> None:
    output = tmp_path / "reviewed.jsonl"
    args = (texts, "--pipeline", pipeline, "-o", output, "--near-miss", 0)
    with serving(*args) as (process, address, printed):
        assert "0 of" in printed
        first = post(address, "item")
        other = next(label for label in first["choices"] if label not in first["labels"])
        second = post(address, "decide", item=0, action="accept", labels=[other])
        third = post(address, "decide", item=1, action="reject")
        post(address, "decide", item=2, action="skip")
        assert (first["item"], second["item"], third["item"]) == (0, 1, 2)
        process.kill()
    with serving(*args) as (process, address, printed):
        assert "2 of" in printed
        assert post(address, "item")["item"] == 3
        again = post(address, "item", item=0)
        assert again["labels"] == [other] and again["decision"] == "accept"
        code, message = invoke(*args)
        assert code == 1 and "Another process is writing" in message
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None and "Stopped. 2 of" in process.stderr.read()
        assert process.wait(30) == 0
    slmre_cli(["convert", str(output), "-o", str(tmp_path / "gold.spacy")], standalone_mode=False)
    rows = [row for doc in read_docs(tmp_path / "gold.spacy", spacy.blank("en").vocab) for row in gold_pairs(doc).rows]
    assert sorted(row.label for row in rows) == sorted([other, "no_relation"])
