from __future__ import annotations

import os
from pathlib import Path

import pytest

from spacy_slmre.export import ExportError
from spacy_slmre.export.files import aside, check_inputs


def test_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(ExportError, match="neither a file nor a folder"),
        aside(tmp_path / "pipe", overwrite=True),
    ):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_old_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    output = tmp_path / "graph"
    output.mkdir()
    (output / "nodes.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(FileNotFoundError), aside(output, overwrite=True):
        pass  # nothing is made
    assert (output / "nodes.csv").read_text(encoding="utf-8") == "mine"
    assert os.listdir(tmp_path) == ["graph"]


def test_inputs_are_no_outputs(tmp_path: Path) -> None:
    inputs = [str(tmp_path / "a.jsonl"), str(tmp_path / "shards"), "-"]
    for name in ("a.jsonl", "shards/../a.jsonl", "shards/00000.spacy"):
        with pytest.raises(ExportError, match="is an input too"):
            check_inputs(tmp_path / name, inputs)
    check_inputs(tmp_path / "b.jsonl", inputs)
