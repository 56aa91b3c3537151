from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import spacy
from pyarrow import parquet
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_slmre.extraction import shards
from spacy_slmre.extraction.running import extract_by_shard
from spacy_slmre.extraction.shard_work import MOST_ATTEMPTS, Job, ShardWorker
from spacy_slmre.extraction.shards import ShardFolder, Tally, find_shards
from spacy_slmre.extraction.sources import ExtractionError, Source, find_inputs, read_sources
from spacy_slmre.extraction.writers import make_writer, open_output
from tests.conftest import TEXTS

Inputs = list[tuple[str, str]]


@pytest.fixture
def inputs(tmp_path: Path, blank: Callable[[], Language], monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Files of all formats with 7, 8, 5, 0, 1 and 3 documents."""
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    folder.mkdir()
    records = [json.dumps({"id": f"ß{n}", "text": TEXTS[n % 6]}, ensure_ascii=False) for n in range(6)]
    records[2:2] = ["", "no JSON", " "]
    (folder / "a.jsonl").write_text("\r\n".join(records), encoding="utf-8")
    table = pa.table({"text": [f"{n} {TEXTS[n % 6]}" for n in range(8)]})
    parquet.write_table(table, folder / "b.parquet", row_group_size=3)
    DocBin(docs=list(blank().pipe(TEXTS[:5]))).to_disk(folder / "c.spacy")
    (folder / "d.jsonl").write_text("\n\n")
    (folder / "e.txt").write_text(TEXTS[0])
    (folder / "f").write_text("Ann Lee met Bo Lee.\n\nx\ny")
    return [*find_inputs(["in"]), ("in/f", "lines")]


def contents(sources: list[Source]) -> list[tuple]:
    return [
        (one.id, one.content.text if isinstance(one.content, Doc) else one.content, one.error)
        for one in sources
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 24, 100])
def test_shards_hold_every_document_once(inputs: Inputs, size: int) -> None:
    nlp = spacy.blank("en")
    whole = contents(list(read_sources(inputs, nlp, io.BytesIO())))
    found = list(find_shards(inputs, size))
    assert len(whole) == 24 and len(found) == -(-24 // size)
    assert [shard.number for shard in found] == list(range(len(found)))
    for shard in found:
        first = shard.number * size
        documents = contents(list(read_sources(inputs, nlp, io.BytesIO(), start=shard.start)))
        assert documents[: shard.documents] == whole[first : first + size]


def begin(output: Path, inputs: Inputs, size: int = 5, run: object = "run", **kept: bool) -> ShardFolder:
    folder = ShardFolder(output)
    folder.begin({"run": run}, inputs, size, "text", "id", **kept)
    return folder


def make_job(output: Path, pipeline: str) -> Job:
    return Job(os.getcwd(), output, partial(spacy.load, pipeline), "relations", "a model", batch_size=4)


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_shards_in_any_order_make_what_one_process_makes(
    inputs: Inputs, tmp_path: Path, pipeline: str, suffix: str
) -> None:
    nlp, size = spacy.load(pipeline), 5
    writer = make_writer(tmp_path / f"whole{suffix}", shard_size=size)
    sources = read_sources(inputs, nlp, io.BytesIO())
    for result in extract_by_shard(nlp, sources, size, batch_size=4, model="a model"):
        writer.write(result)
    writer.finish()

    output = tmp_path / f"shards{suffix}"
    folder = begin(output, inputs)
    worker = ShardWorker(make_job(output, pipeline))
    numbers = list(range(len(folder.shards)))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        folder.note(worker.compute(number))
    tallies = folder.done().values()
    assert sum(tally.documents for tally in tallies) == 24 and sum(tally.failed for tally in tallies) == 1
    assert sum(tally.relations for tally in tallies) > 100
    folder.join()
    for file in sorted(writer.output.iterdir()) if suffix == ".spacy" else [writer.output]:
        assert (output / file.name if suffix == ".spacy" else output).read_bytes() == file.read_bytes()
    assert not folder.path.exists()


def test_what_is_done_is_what_is_noted_and_there(inputs: Inputs, tmp_path: Path) -> None:
    folder = begin(tmp_path / "out.jsonl", inputs)
    result = folder.documents / "00003.jsonl"
    for number in (1, 2, 3):
        result.with_name(f"0000{number}.jsonl").write_bytes(b"{}\n")
        folder.note(Tally(number, 5, 0, 0, 3))
    with (folder.path / "done.jsonl").open("ab") as stream:
        stream.write(b'\n{"shard": 4, "docu')
    folder.documents.joinpath("00000.jsonl").write_bytes(b"{}\n")  # never noted
    folder.documents.joinpath("00001.jsonl").unlink()
    folder.documents.joinpath("00002.jsonl").write_bytes(b"longer")
    assert list(folder.done()) == [3]
    folder.note(Tally(0, 5, 0, 0, 3))  # behind the torn line
    assert sorted(begin(tmp_path / "out.jsonl", inputs).done()) == [0, 3]


def test_only_the_same_run_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    folder = begin(output, inputs)
    (folder.attempts / "00000.host.1.x").mkdir()
    assert ShardFolder(output).begin({"run": "run"}, inputs, 5, "text", "id")
    assert not list(folder.attempts.iterdir())  # a run begins with a clean slate
    with pytest.raises(ExtractionError, match="--restart"):
        begin(output, inputs, run="another")
    with pytest.raises(ExtractionError, match="other --engine left"):
        open_output(output, {})
    folder.note(Tally(0, 5, 0, 0, 3))
    assert not begin(output, inputs, run="another", restart=True).done()
    open_output(output, {}, restart=True).close()
    assert not folder.path.exists()
    (tmp_path / "out.jsonl.part").touch()
    with pytest.raises(ExtractionError, match="other --engine left"):
        begin(output, inputs)
    (tmp_path / "there.jsonl").write_text("precious")
    with pytest.raises(ExtractionError, match="--overwrite"):
        begin(tmp_path / "there.jsonl", inputs)
    with pytest.raises(ExtractionError, match="must end with"):
        begin(tmp_path / "out.csv", inputs)


def test_no_documents(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    for suffix in (".jsonl", ".spacy"):
        folder = begin(tmp_path / f"out{suffix}", [(str(tmp_path / "in.jsonl"), "jsonl")])
        assert folder.shards == []
        folder.join()
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert sorted(os.listdir(tmp_path / "out.spacy")) == ["00000.json", "00000.spacy"]


def test_too_many_shards(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_SHARDS", 4)
    with pytest.raises(ExtractionError, match=r"24 documents .* --shard-size of at least 6"):
        begin(tmp_path / "out.jsonl", inputs)
    assert len(begin(tmp_path / "out.jsonl", inputs, size=6).shards) == 4


def test_shard_that_takes_down_its_worker_is_given_up(inputs: Inputs, tmp_path: Path, pipeline: str) -> None:
    output = tmp_path / "out.jsonl"
    folder = begin(output, inputs)
    worker = ShardWorker(make_job(output, pipeline))
    for number in range(MOST_ATTEMPTS):
        (folder.attempts / f"00002.host.{number}.x").mkdir()
    assert worker.compute(2) is None
    assert worker.compute(1).documents == 5


def test_inputs_that_change_are_told(inputs: Inputs, tmp_path: Path, pipeline: str) -> None:
    output = tmp_path / "out.jsonl"
    folder = begin(output, inputs)
    worker = ShardWorker(make_job(output, pipeline))
    Path("in/f").write_text("")
    with pytest.raises(ExtractionError, match="the inputs have changed"):
        worker.compute(len(folder.shards) - 1)
    assert not list(folder.attempts.iterdir())


def test_machine_without_the_files_is_named(inputs: Inputs, tmp_path: Path, pipeline: str) -> None:
    with pytest.raises(ExtractionError, match=r"cannot read .*all machines find them"):
        ShardWorker(make_job(tmp_path / "absent" / "out.jsonl", pipeline))
