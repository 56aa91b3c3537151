from __future__ import annotations

import io
from pathlib import Path

import pytest
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_slmre.extraction import shards
from spacy_slmre.extraction.inputs import ExtractionError, InputDocument, read_inputs
from spacy_slmre.extraction.shards import ShardFolder, ShardResult, find_shards
from spacy_slmre.util.run_folder import partial_dir

Inputs = list[tuple[str, str]]


def contents(documents: list[InputDocument]) -> list[tuple]:
    return [(one.id, one.content.text if isinstance(one.content, Doc) else one.content, one.error) for one in documents]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 24, 100])
def test_shards_contain_every_document_once(inputs: Inputs, size: int) -> None:
    whole = contents(list(read_inputs(inputs, Vocab(), io.BytesIO())))
    found = list(find_shards(inputs, size))
    assert len(whole) == 24 and len(found) == -(-24 // size)
    assert [shard.number for shard in found] == list(range(len(found)))
    for shard in found:
        first = shard.number * size
        documents = contents(list(read_inputs(inputs, Vocab(), io.BytesIO(), start=shard.start)))
        assert documents[: shard.documents] == whole[first : first + size]


@pytest.fixture
def folder(tmp_path: Path) -> ShardFolder:
    partial_dir(tmp_path / "out.jsonl").mkdir()
    folder = ShardFolder(tmp_path / "out.jsonl")
    folder.prepare()
    return folder


def test_shards_are_finished_if_recorded_and_complete(folder: ShardFolder) -> None:
    for number in (1, 2, 3):
        (folder.results / f"0000{number}.jsonl").write_bytes(b"{}\n")
        folder.record(ShardResult(number, 5, 0, 0, 3))
    with (folder.path / "finished.jsonl").open("ab") as stream:
        stream.write(b'\n{"shard": 4, "docu')
    (folder.results / "00000.jsonl").write_bytes(b"{}\n")  # not recorded
    (folder.results / "00001.jsonl").unlink()
    (folder.results / "00002.jsonl").write_bytes(b"longer")
    assert list(folder.finished()) == [3]
    folder.record(ShardResult(0, 5, 0, 0, 3))  # after the line that was cut off
    assert sorted(folder.finished()) == [0, 3]


def test_plan_of_an_interrupted_run_is_kept(folder: ShardFolder, inputs: Inputs, tmp_path: Path) -> None:
    folder.plan(inputs, 5)
    again = ShardFolder(tmp_path / "out.jsonl")
    again.plan([], 1)
    assert again.shards == folder.shards and len(again.shards) == 5


def test_too_many_shards_are_refused(folder: ShardFolder, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_SHARDS", 4)
    with pytest.raises(ExtractionError, match=r"24 documents .* shard size to at least 6"):
        folder.plan(inputs, 5)
    folder.plan(inputs, 6)
    assert len(folder.shards) == 4
