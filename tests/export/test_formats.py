from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from spacy_slmre.export import ExportError, ExportSettings, export
from spacy_slmre.util.errors import OutputError
from tests.relation_documents import make_document

DOCUMENT = make_document("a", ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "in", 0.5)])


def test_existing_outputs_are_kept_unless_they_may_be_replaced(tmp_path: Path) -> None:
    file, folder, pipe = tmp_path / "out.csv", tmp_path / "folder", tmp_path / "pipe"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        export(DOCUMENT, file)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="will not be replaced"):
        export(DOCUMENT, folder, "neo4j", overwrite=True)
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="neither a file nor a folder"):
        export(DOCUMENT, pipe, "csv", overwrite=True)
    assert file.read_text(encoding="utf-8") == "mine" and pipe.is_fifo()
    export(DOCUMENT, file, overwrite=True)
    assert "Ann" in file.read_text(encoding="utf-8")


def test_failed_export_keeps_the_old_folder(tmp_path: Path) -> None:
    output = tmp_path / "graph"
    export(DOCUMENT, output, "neo4j")
    before = (output / "nodes.csv").read_bytes()
    with pytest.raises(ValueError, match="Expected a Doc"):
        export([DOCUMENT, 3], output, "neo4j", overwrite=True)  # type: ignore[list-item]
    assert (output / "nodes.csv").read_bytes() == before
    assert os.listdir(tmp_path) == ["graph"]


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match="pip install pyarrow"):
        export(DOCUMENT, tmp_path / "out.parquet")
    assert not os.listdir(tmp_path)


def test_labels_must_be_a_list() -> None:
    with pytest.raises(ExportError, match="must be a list of labels"):
        ExportSettings(labels="born in")
