"""No command loses data: one process at a time writes an output, and only own outputs are replaced."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.evaluation.gold import read_gold
from spacy_slmre.study import commands  # noqa: F401  (registers `study`)
from spacy_slmre.util import run_folder
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.run_folder import RUN_FILE, reserve
from tests.conftest import TEXTS

LINE = {
    "id": "a",
    "text": "Ann Lee met Bo Lee.",
    "entities": [
        {"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"},
        {"start": 12, "end": 18, "text": "Bo Lee", "type": "PERSON"},
    ],
    "relations": [
        {
            "head": {"start": 0, "end": 7, "text": "Ann Lee", "type": "PERSON"},
            "tail": {"start": 12, "end": 18, "text": "Bo Lee", "type": "PERSON"},
            "label": "knows",
            "score": 0.9,
        }
    ],
}
COMMANDS = {
    "extract": "extract {pipeline} {folder}/texts -o {output}.jsonl",
    "extract to .spacy": "extract {pipeline} {folder}/texts -o {output}.spacy",
    "evaluate": "evaluate {pipeline} {folder}/gold.spacy -o {output}",
    "write pairs": "evaluate {folder}/gold.spacy --write-pairs {output}.jsonl",
    "calibrate": "calibrate {pipeline} {folder}/gold.spacy -o {output}",
    "convert": "convert {folder}/gold.jsonl -f json -o {output}.spacy",
    "export": "export {folder}/in.jsonl -o {output}.csv",
    "export to a folder": "export {folder}/in.jsonl -f neo4j -o {output}",
    "view": "view {folder}/in.jsonl -o {output}.html",
    "report": "report {folder}/runs -o {output}.html",
    "mix": "study mix configs/mixtures/demo.cfg {folder}/corpora -o {output}.json",
    "tune": "tune smollm2-135m.cfg -o {output}",
    "train-classifiers": "study train-classifiers configs/rel_classifier_cpu.cfg {folder}/corpora -b demo -o {output}",
    "review": "review {folder}/texts --pipeline {pipeline} -o {output}.jsonl",
    "review in a tool": "review {folder}/texts --pipeline {pipeline} --to doccano -o {output}.jsonl",
    "init-config": "init-config {folder}/gold.jsonl -o {output}.cfg",
    "pretrain": "study pretrain configs/pretrain/study.cfg {folder}/texts -o {output}",
}
# Where the output of a command is not its option --output.
OUTPUTS = {"evaluate": "{output}/{run}", "train-classifiers": "{output}/demo"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with inputs for all commands."""
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    for name in ("in.jsonl", "gold.jsonl"):
        (tmp_path / name).write_text(json.dumps(LINE), encoding="utf-8")
    assert run("convert", tmp_path / "gold.jsonl", "-f", "json", "-o", tmp_path / "gold.spacy").exit_code == 0
    (tmp_path / "corpora" / "demo").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / "corpora" / "demo" / f"{split}.spacy").write_bytes((tmp_path / "gold.spacy").read_bytes())
    (tmp_path / "runs").mkdir()
    return tmp_path


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, [*map(str, args)])


def arguments(command: str, folder: Path, pipeline: str, output: Path) -> tuple[list[str], Path]:
    """Return the arguments of a command, and the output that it locks."""
    text = COMMANDS[command].format(folder=folder, pipeline=pipeline, output=output)
    target = OUTPUTS.get(command, text.split()[-1]).format(output=output, run=run_name(folder))
    return text.split(), Path(target)


def run_name(folder: Path) -> str:
    """Return the folder of an evaluation run on the gold data."""
    return f"pipeline0-{read_gold(folder / 'gold.spacy').run_name}"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def locker() -> Iterator[subprocess.Popen]:
    """A process that locks the outputs it is given."""
    code = (
        "import contextlib, sys\nfrom pathlib import Path\nfrom spacy_slmre.util.run_folder import reserve\n"
        "with contextlib.ExitStack() as stack:\n    for line in sys.stdin:\n"
        "        stack.enter_context(reserve(Path(line.strip()), kind=None))\n        print('locked', flush=True)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


@pytest.mark.parametrize("command", COMMANDS)
def test_second_process_is_refused_and_told_which_one_writes(
    command: str, folder: Path, pipeline: str, locker: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_LOCK_TIMEOUT", 0.1)
    args, target = arguments(command, folder, pipeline, folder / "out")
    locker.stdin.write(f"{target}\n")
    locker.stdin.flush()
    assert locker.stdout.readline() == "locked\n"
    result = run(*args)
    assert result.exit_code == 1
    assert f"Another process is writing {target} (process {locker.pid} on " in result.output.replace("\n", "")
    assert not target.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_folder_that_no_run_has_written_is_never_replaced(command: str, folder: Path, pipeline: str) -> None:
    args, target = arguments(command, folder, pipeline, folder / "out")
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years")
    (target / RUN_FILE).write_text('{"distance": 42}')  # of a sports app
    before = snapshot(folder)
    for options in ([], [] if command == "calibrate" else ["--overwrite"]):
        result = run(*args, *options)
        assert result.exit_code == 1, result.output
        assert re.search("will not be replaced|already exists", result.output.replace("\n", " "))
        assert snapshot(folder) == before


@pytest.mark.parametrize(
    "args",
    [
        "extract {pipeline} {folder}/in.jsonl -o {folder}/in.jsonl",
        "extract {pipeline} {folder}/own.spacy/in.jsonl -o {folder}/own.spacy",
        "extract {pipeline} {folder}/in.jsonl -o {pipeline}/out.jsonl",
        "extract {pipeline} {folder}/own.jsonl.part/in.jsonl -o {folder}/own.jsonl",
        "evaluate {folder}/gold.spacy --write-pairs {folder}/gold.spacy",
        "evaluate {pipeline} {folder}/own/{run}/gold.spacy -o {folder}/own",
        "calibrate {pipeline} {folder}/gold.spacy -o {folder}/gold.spacy",
        "convert {folder}/gold.jsonl -f json -o {folder}/new.spacy --rejects {folder}/gold.jsonl",
        "convert {folder}/gold.jsonl -f json -o {folder}/new.spacy --rejects {folder}/new.spacy",
        "convert {folder}/gold.jsonl -f json -o {folder}/gold.spacy --rejects {folder}/gold.summary.json",
        "export {folder}/in.jsonl -f jsonl -o {folder}/in.jsonl",
        "export {folder}/corpora -f jsonl -o {folder}/corpora/demo/out.jsonl",
        "export {folder}/in.jsonl -o {folder}/out.ttl --properties {folder}/out.ttl",
        "review {folder}/in.jsonl --pipeline {pipeline} -o {folder}/in.jsonl",
        "review {folder}/in.jsonl --pipeline {pipeline} -o {pipeline}/out.jsonl",
        "review {folder}/in.jsonl --pipeline {pipeline} --to doccano -o {folder}/in.jsonl",
        "study mix {folder}/demo.cfg {folder}/corpora -o {folder}/demo.cfg",
        "study mix {folder}/demo.cfg {folder}/corpora -o {folder}/corpora/demo/train.spacy",
    ],
)
def test_input_is_never_replaced(args: str, folder: Path, pipeline: str) -> None:
    for name in ("own", f"own/{run_name(folder)}", "own.spacy", "own.jsonl.part"):
        (folder / name).mkdir()
        (folder / name / RUN_FILE).write_text('{"key": {}}')
        for file in ("in.jsonl", "gold.spacy"):
            (folder / name / file).write_bytes((folder / file).read_bytes())
    (folder / "out.ttl").write_text("{}")
    (folder / "demo.cfg").write_text(Path("configs/mixtures/demo.cfg").read_text())
    before, own = snapshot(folder), snapshot(Path(pipeline))
    for options in ([], [] if "calibrate" in args else ["--overwrite"]):
        result = run(*args.format(folder=folder, pipeline=pipeline, run=run_name(folder)).split(), *options)
        assert result.exit_code == 1
        assert re.search(
            r"would replace the input|is in the input|already exists|is a file|are the same file", result.output
        )
        assert snapshot(folder) == before and snapshot(Path(pipeline)) == own


def test_rejects_only_replace_rejects(folder: Path) -> None:
    thesis = folder / "thesis.jsonl"
    thesis.write_text("years")
    args = ("convert", folder / "gold.jsonl", "-f", "json", "-o", folder / "new.spacy", "--rejects", thesis)
    assert "has no rejects" in run(*args).output and thesis.read_text() == "years"
    thesis.write_text(json.dumps({"file": "a", "line": 1, "reason": "malformed", "detail": ""}))
    assert run(*args).exit_code == 0 and thesis.read_text() == ""


def test_converted_folder_is_replaced_only_if_nothing_was_added(folder: Path) -> None:
    (folder / "gold.jsonl").write_text("\n".join(json.dumps({**LINE, "id": name}) for name in "ab"))
    args = ("convert", folder / "gold.jsonl", "-f", "json", "-o", folder / "new.spacy", "--shard-size", 1, "-F")
    assert run(*args).exit_code == 0 and run(*args).exit_code == 0
    (folder / "new.spacy" / "mine.spacy").write_bytes((folder / "gold.spacy").read_bytes())
    assert "will not be replaced" in run(*args).output
    assert (folder / "new.spacy" / "mine.spacy").exists()


def test_lock_leaves_no_files(folder: Path) -> None:
    assert run("export", folder / "in.jsonl", "-o", folder / "new" / "out.csv").exit_code == 0
    assert os.listdir(folder / "new") == ["out.csv"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_leftovers_of_killed_process_are_removed_and_replaced_output_is_restored(
    tmp_path: Path, is_folder: bool
) -> None:
    output = tmp_path / "out [1]"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom spacy_slmre.util import io\n"
        "output, is_folder = Path(sys.argv[1]), sys.argv[2] == 'True'\n"
        "replace = os.replace\n"
        "def kill(new, target):\n"
        "    if Path(target) == output: os.kill(os.getpid(), 9)\n"
        "    replace(new, target)\n"
        "os.replace = kill\n"
        "with io.temporary_output(output) as new:\n    new.mkdir() if is_folder else new.write_text('new')\n"
    )
    if is_folder:
        output.mkdir()
        (output / "old").touch()
    else:
        output.write_text("old")
    command = [sys.executable, "-c", code, str(output), str(is_folder)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) > 1 or is_folder
    with reserve(output, kind=None, is_replaceable=lambda folder: True):
        assert os.listdir(output) == ["old"] if is_folder else output.read_text() == "old"
        with temporary_output(output) as new:
            new.mkdir() if is_folder else new.write_text("new")
    assert os.listdir(tmp_path) == ["out [1]"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_two_runs_started_together_lose_nothing(folder: Path, pipeline: str, suffix: str) -> None:
    texts = "\n".join(json.dumps({"id": str(number), "text": f"{TEXTS[4]} {number}"}) for number in range(200))
    (folder / "many.jsonl").write_text(texts)
    command = [sys.executable, "-m", "spacy", "slmre", "extract", pipeline, str(folder / "many.jsonl")]
    command += ["-o", str(folder / f"out{suffix}"), "--shard-size", "10"]
    processes = []
    for _ in range(2):
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        time.sleep(1.5)
    errors = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes[0] == 0 and (codes[1] == 1 or suffix == ".spacy")
    assert "Another process is writing" in errors[1] or "already" in errors[1] or "exists" in errors[1]
    counted = run("export", folder / f"out{suffix}", "-o", folder / "all.jsonl", "-f", "jsonl")
    assert "200 documents" in counted.output
