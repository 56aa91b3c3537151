"""Commands work without standard input, print no control characters, and have no empty messages."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import Terminal, console, log, show_errors
from spacy_slmre.study import commands  # noqa: F401  (registers `study`)
from tests.cli.extracting import run
from tests.conftest import TEXTS

LINE = {"id": "a", "text": "Ann Lee met Bo Lee.", "entities": [], "relations": []}
ENTITY = {"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"}
COMMANDS = {
    "extract": "extract {pipeline} {folder}/{input} -o {folder}/out.jsonl",
    "extract with processes": "extract {pipeline} {folder}/{input} -o {folder}/out.jsonl --n-process 2",
    "export": "export {folder}/{input} -o {folder}/out.csv",
    "view": "view {folder}/{input} -o {folder}/out.html",
    "review": "review {folder}/{input} --pipeline {pipeline} -o {folder}/out.jsonl --to doccano",
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
    expected = "Standard input cannot be read again" if command == "review" else "standard input, which is closed"
    assert code == 1 and expected in output.replace("\n", " ")


def test_table_and_messages_have_no_escape_sequences(pipeline: str, tmp_path: Path) -> None:
    text = TEXTS[0].replace("Rome", "Rome \x1b]0;title\x07\x1b[31m\x9b2J")
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "\x1b[2J", "text": text}))
    result = run(pipeline, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--table")
    assert result.exit_code == 0 and "\ufffd[2J" in result.output
    assert not {"\x1b", "\x07", "\x9b"} & set(result.output)


EVIL = "\x1b]0;title\x07\x1b[31m\x9b2J[/b][bold]:smile:"
SHOWN = "\ufffd]0;title\ufffd\ufffd[31m\ufffd2J[/b][bold]:smile:"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A corpus, with a label and a text that would control the terminal, or be taken for rich's markup."""
    entities = [{**ENTITY, "type": EVIL}, {"start": 12, "end": 18, "text": "Bo Lee", "type": "PERSON"}]
    relation = {"head": entities[0], "tail": entities[1], "label": EVIL, "score": 0.9}
    record = {**LINE, "id": EVIL, "text": LINE["text"] + EVIL, "entities": entities, "relations": [relation]}
    (tmp_path / "evil.jsonl").write_text("\n".join(json.dumps({**record, "id": f"{n}{EVIL}"}) for n in range(3)))
    converted = invoke("convert", tmp_path / "evil.jsonl", "-f", "json", "-o", tmp_path / "evil.spacy")
    assert SHOWN in converted
    return tmp_path / "evil.spacy"


def invoke(*args: object, code: int = 0) -> str:
    """Run a command, and check that it prints no control characters."""
    result = CliRunner().invoke(slmre_cli, [*map(str, args)], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    assert not {"\x1b", "\x07", "\x9b"} & set(result.output)
    return result.output


def test_checks_of_corpora_print_no_control_characters(evil: Path) -> None:
    shown = invoke("debug-data", evil, "--samples", 2)
    assert shown.count(SHOWN) >= 5
    report = json.loads(invoke("debug-data", evil, "--json"))
    assert EVIL in report["corpora"]["evil"]["labels"]
    assert SHOWN in invoke("debug-data", evil, "--label", "x\x9b", code=1)


def test_results_of_an_evaluation_print_no_control_characters(evil: Path, pipeline: str, tmp_path: Path) -> None:
    args = ("evaluate", pipeline, evil, "-o", tmp_path / "runs", "--name", EVIL, "--labels", "pipeline")
    assert SHOWN in invoke(*args)
    invoke("report", tmp_path / "runs", "-o", tmp_path / "report.html")


def test_names_and_errors_print_no_control_characters(evil: Path, pipeline: str, tmp_path: Path) -> None:
    for command, suffix in (("view", "html"), ("export", "csv")):
        assert SHOWN[:9] in invoke(command, f"a{EVIL}.jsonl", "-o", tmp_path / f"out.{suffix}", code=1)
    assert SHOWN[:9] in invoke("study", "benchmarks", EVIL, code=1)
    assert SHOWN[:9] in invoke("study", "mix", tmp_path / EVIL.replace("/", ""), tmp_path, "-o", "x.json", code=1)
    assert SHOWN[:9] in invoke("init-config", evil, "-o", tmp_path / "x.cfg", "--lang", EVIL, code=1)


def test_a_table_of_relations_shows_markup_as_it_is(evil: Path, pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "[bold]x[/b]", "text": "[red]a :smile:"}))
    shown = invoke("extract", pipeline, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--table")
    assert "[bold]x[/b]: no relations found" in shown


def test_warnings_print_no_control_characters() -> None:
    before = warnings.formatwarning
    with show_errors():
        assert f"label {SHOWN}" in warnings.formatwarning(f"label {EVIL}", UserWarning, "x.py", 1)
    assert warnings.formatwarning is before


def test_progress_still_controls_the_terminal() -> None:
    stream = io.StringIO()
    terminal = Terminal(file=stream, force_terminal=True, color_system="standard")
    with terminal.status("working"):
        terminal.print("\x1b[2J", style="red")
    assert "\x1b[?25l" in stream.getvalue() and "\x1b[2J" not in stream.getvalue()


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
