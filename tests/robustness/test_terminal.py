"""Commands work without standard input, print no control characters, and have no empty messages."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import console, log, show_errors
from spacy_slmre.study import commands  # noqa: F401  (registers `study`)
from tests.cli.extracting import run
from tests.conftest import TEXTS

LINE = {"id": "a", "text": "Ann Lee met Bo Lee.", "entities": [], "relations": []}
COMMANDS = {
    "extract": "extract {pipeline} {folder}/{input} -o {folder}/out.jsonl",
    "extract with processes": "extract {pipeline} {folder}/{input} -o {folder}/out.jsonl --n-process 2",
    "export": "export {folder}/{input} -o {folder}/out.csv",
    "view": "view {folder}/{input} -o {folder}/out.html",
    "pretrain": "study pretrain {folder}/config.cfg {folder}/{input} -o {folder}/out",
}


def call(monkeypatch: pytest.MonkeyPatch, command: str, folder: Path, pipeline: str, source: str) -> tuple[int, str]:
    """Run a command as after `<&-`."""
    (folder / "in.jsonl").write_text(json.dumps(LINE))
    (folder / "config.cfg").write_text('[model]\nbase = "no/such"\n')
    text = COMMANDS[command].format(folder=folder, pipeline=pipeline, input="in.jsonl")
    args = [arg if arg != f"{folder}/in.jsonl" else source or arg for arg in text.split()]
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(console, "_file", errors)
    code = slmre_cli(args, standalone_mode=False)
    return code or 0, errors.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_file_is_read_although_standard_input_is_closed(
    monkeypatch: pytest.MonkeyPatch, command: str, tmp_path: Path, pipeline: str
) -> None:
    _, output = call(monkeypatch, command, tmp_path, pipeline, "")
    if command == "pretrain":  # the texts are read, and then there is no such model
        assert 'model.base = "no/such"' in output
    else:
        assert any(file.name.startswith("out.") for file in tmp_path.iterdir()), output


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_standard_input_is_named_if_it_is_the_input(
    monkeypatch: pytest.MonkeyPatch, command: str, tmp_path: Path, pipeline: str
) -> None:
    code, output = call(monkeypatch, command, tmp_path, pipeline, "-")
    assert code == 1 and "standard input, which is closed" in output.replace("\n", " ")


def test_table_and_messages_have_no_escape_sequences(pipeline: str, tmp_path: Path) -> None:
    text = TEXTS[0].replace("Rome", "Rome \x1b]0;title\x07\x1b[31m\x9b2J")
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "\x1b[2J", "text": text}))
    result = run(pipeline, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--table")
    assert result.exit_code == 0 and "\ufffd[2J" in result.output
    assert not {"\x1b", "\x07", "\x9b"} & set(result.output)


def test_messages_with_unprintable_characters_are_printed(capsys: pytest.CaptureFixture) -> None:
    log("a \ud800 \x1b[1m b")
    assert capsys.readouterr().err == "a \ufffd \ufffd[1m b\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), "ValueError"),
        (OSError(), "OSError"),
        (OSError("no details"), "no details"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "'a.txt': No such file or directory"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "'a' and 'b': Invalid cross-device link"),
    ],
)
def test_every_error_says_what_and_where(capsys: pytest.CaptureFixture, error: Exception, message: str) -> None:
    with pytest.raises(typer.Exit), show_errors():
        raise error
    assert capsys.readouterr().err == f"✘ {message}\n"
