from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from spacy_slmre.util import run_folder
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.run_folder import KEY_FILE, RUN_FILE, RunFolder, is_locked, reserve

KEY = {"config": "a", "data": {"hash": 1}}
OTHER_KEY = {"config": "b", "data": {"hash": 1}}
FULL_DISK = Path("/dev/full")
HOLD_LOCK = """
import sys
from pathlib import Path
from spacy_slmre.util.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])) as run:
    run.begin({"config": "a"})
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def finish(output: Path, key: dict = KEY, **settings: bool) -> None:
    """Write a complete output."""
    with RunFolder(output, **settings) as run:
        run.begin(key)
        result = run.partial / "output"
        result.mkdir()
        (result / RUN_FILE).write_text(json.dumps({"key": key}))
        run.publish(result)


def interrupt(output: Path, key: dict = KEY) -> None:
    """Leave partial results behind."""
    with pytest.raises(KeyboardInterrupt), RunFolder(output) as run:
        run.begin(key)
        (run.partial / "half").write_text("half")
        raise KeyboardInterrupt


def test_a_complete_run_leaves_only_its_output(output: Path) -> None:
    finish(output)
    assert [file.name for file in output.iterdir()] == [RUN_FILE]
    assert [file.name for file in output.parent.iterdir() if not file.name.startswith(".")] == ["out"]


def test_partial_results_with_the_same_key_are_resumed(output: Path) -> None:
    interrupt(output)
    assert not output.exists()
    with RunFolder(output) as run:
        assert run.completed(KEY) is None
        assert run.begin(KEY) and (run.partial / "half").exists()


def test_partial_results_with_another_key_are_refused(output: Path) -> None:
    interrupt(output)
    with RunFolder(output) as run, pytest.raises(OutputError, match=r"interrupted run with different config\."):
        run.begin(OTHER_KEY)
    assert (run.partial / "half").exists()


def test_overwrite_discards_partial_results(output: Path) -> None:
    interrupt(output)
    with RunFolder(output, overwrite=True) as run:
        assert not run.begin(OTHER_KEY) and not (run.partial / "half").exists()


def test_partial_results_without_a_key_are_not_resumed(output: Path) -> None:
    interrupt(output)
    (output.with_name("out.part") / KEY_FILE).unlink()
    with RunFolder(output) as run:
        assert not run.begin(KEY) and not (run.partial / "half").exists()


def test_a_complete_run_with_the_same_key_is_found(output: Path) -> None:
    finish(output)
    with RunFolder(output) as run:
        assert run.completed(KEY) == {"key": KEY}
        with pytest.raises(OutputError, match=r"another run \(different config\)"):
            run.completed(OTHER_KEY)


def test_overwrite_replaces_a_complete_run_only_when_the_new_one_is_complete(output: Path) -> None:
    finish(output)
    with RunFolder(output, overwrite=True) as run:
        assert run.completed(KEY) is None
        run.begin(OTHER_KEY)
        assert json.loads((output / RUN_FILE).read_text()) == {"key": KEY}
    finish(output, OTHER_KEY)
    assert json.loads((output / RUN_FILE).read_text()) == {"key": OTHER_KEY}


def test_an_interrupted_replacement_is_resumed(output: Path) -> None:
    finish(output)
    with RunFolder(output, overwrite=True) as run:
        run.begin(OTHER_KEY)
    with RunFolder(output) as run:
        assert run.completed(OTHER_KEY) is None and run.begin(OTHER_KEY)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_record_is_an_error(output: Path, content: str) -> None:
    finish(output)
    (output / RUN_FILE).write_text(content)
    with RunFolder(output) as run, pytest.raises(OutputError, match="damaged"):
        run.completed(KEY)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_run_is_never_replaced(output: Path, overwrite: bool) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="will not be replaced"), RunFolder(output, overwrite=overwrite):
        pass
    assert (output / "thesis.txt").read_text() == "years" and not is_locked(output)


def test_an_empty_folder_counts_as_absent(output: Path) -> None:
    output.mkdir()
    with RunFolder(output) as run:
        assert run.completed(KEY) is None
    finish(output)
    assert (output / RUN_FILE).exists()


def test_an_existing_file_is_replaced_only_with_overwrite(output: Path) -> None:
    output.write_text("old")
    with RunFolder(output) as run, pytest.raises(OutputError, match="exists"):
        run.completed(KEY)
    with RunFolder(output, overwrite=True) as run:
        assert run.completed(KEY) is None
        run.begin(KEY)
        result = run.partial / "result"
        result.write_text("new")
        run.publish(result)
    assert output.read_text() == "new" and not run.partial.exists()


def test_only_the_main_process_changes_files(output: Path) -> None:
    interrupt(output)
    with RunFolder(output), RunFolder(output, overwrite=True, is_main=False) as second:
        second.discard()
        assert second.begin(KEY) and (second.partial / "half").exists()


def test_a_failure_while_publishing_keeps_the_old_output(output: Path, monkeypatch) -> None:
    finish(output)
    with RunFolder(output, overwrite=True) as run:
        run.begin(OTHER_KEY)
        (run.partial / "new").mkdir()
        original = os.replace

        def fail_at_the_end(source: Path, target: Path) -> None:
            if Path(source).name == "new":
                raise OSError(5, "I/O error")
            original(source, target)

        monkeypatch.setattr(os, "replace", fail_at_the_end)
        with pytest.raises(OSError, match="I/O error"):
            run.publish(run.partial / "new")
        assert json.loads((output / RUN_FILE).read_text()) == {"key": KEY} and run.partial.exists()


def test_a_second_process_is_refused_until_the_first_is_killed(output: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_folder, "_LOCK_TIMEOUT", 0.1)
    command = [sys.executable, "-c", HOLD_LOCK, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"locked\n"
        assert is_locked(output)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="Another process"), RunFolder(output, overwrite=overwrite):
                pass
        assert output.with_name("out.part").exists()
        first.send_signal(signal.SIGKILL)
    assert not is_locked(output)
    with RunFolder(output) as run:
        assert run.begin({"config": "a"})


WRITERS = {
    "text": lambda: FULL_DISK.write_text("much"),
    "torch": lambda: torch.save({"weights": torch.zeros(100_000)}, FULL_DISK),
    "tokenizers": lambda: Tokenizer(models.WordLevel({"a": 0}, "a")).save(str(FULL_DISK)),
}


@pytest.mark.skipif(not FULL_DISK.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_explained_for_every_library(write, output: Path) -> None:
    with RunFolder(output) as run:
        run.begin(KEY)
        with (
            pytest.raises(OutputError, match=r"cannot be written .* GB are free.*repeat the command"),
            run.explain_disk_errors(),
        ):
            write()


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), RuntimeError("shapes differ")])
def test_other_errors_are_not_explained_as_disk_errors(error: Exception, output: Path) -> None:
    with pytest.raises(type(error)) as raised, RunFolder(output).explain_disk_errors():
        raise error
    assert raised.value is error


def test_a_parent_that_cannot_be_created_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"), RunFolder(tmp_path / "file" / "out"):
        pass


def test_an_output_must_not_replace_an_input(tmp_path: Path) -> None:
    inputs = tmp_path / "texts" / "a.txt"
    for output in (inputs, inputs.parent):
        with pytest.raises(OutputError, match="would replace the input"), reserve(output, inputs=[str(inputs)]):
            pass
    with reserve(tmp_path / "out", inputs=["-", str(inputs)]):
        pass
