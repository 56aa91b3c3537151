from __future__ import annotations

import io
import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language

from spacy_slmre.extraction.inputs import ExtractionError, read_inputs
from spacy_slmre.extraction.outputs import ExtractionResult
from spacy_slmre.extraction.run import ExtractionCounts, compute_in_process, extract_corpus
from spacy_slmre.extraction.shards import ShardFolder, ShardResult
from spacy_slmre.extraction.worker import MAX_ATTEMPTS, ExtractionJob, ShardWorker, extract_documents
from spacy_slmre.util import run_folder
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import read_files
from spacy_slmre.util.run_folder import RunFolder, partial_dir

Inputs = list[tuple[str, str]]
KEY = {"inputs": "the same"}


@pytest.fixture
def nlp(pipeline: str) -> Language:
    return spacy.load(pipeline)


@pytest.fixture
def extract(nlp: Language, inputs: Inputs) -> Callable[..., ExtractionCounts]:
    def run(
        output: Path,
        *,
        key: dict = KEY,
        stop_after: int | None = None,
        stdin: bytes | None = None,
        size: int = 5,
        **options: Any,
    ) -> ExtractionCounts:
        """Run in this process, and stop as by Ctrl-C after some documents."""
        seen: list[str] = options.pop("seen", [])

        def on_result(result: ExtractionResult) -> None:
            if len(seen) == stop_after:
                raise KeyboardInterrupt
            seen.append(result.id)

        files = inputs if stdin is None else [inputs[0], ("-", "lines")]
        job = make_job(output, files, shard_size=size)
        engine = partial(compute_in_process, nlp=nlp, stdin=io.BytesIO(stdin or b""), on_result=on_result)
        return extract_corpus(job, key, engine, **options)

    return run


def make_job(output: Path, inputs: Inputs, **settings: Any) -> ExtractionJob:
    return ExtractionJob(
        output, inputs, lambda: None, "a model", "relations", **{"shard_size": 5, "batch_size": 4, **settings}
    )


def content(output: Path) -> bytes | dict[str, bytes]:
    return read_files(output) if output.is_dir() else output.read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_shards_computed_in_any_order_give_the_same_output(
    extract: Callable, nlp: Language, inputs: Inputs, tmp_path: Path, suffix: str
) -> None:
    def shuffled(job: ExtractionJob, numbers: Sequence[int]) -> Iterator[ShardResult]:
        worker = ShardWorker(job, nlp)
        for number in random.Random(1).sample(numbers, len(numbers)):
            yield worker.compute(number)

    one, many = tmp_path / f"one{suffix}", tmp_path / f"many{suffix}"
    counts = extract(one)
    assert (counts.documents, counts.failed) == (24, 1) and counts.relations > 100
    assert extract_corpus(make_job(many, inputs), KEY, shuffled) == counts
    assert content(many) == content(one)
    assert not partial_dir(many).exists() and not partial_dir(one).exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
@pytest.mark.parametrize("documents", [0, 3, 12])
def test_interrupted_run_is_resumed_and_gives_the_same_output(
    extract: Callable, tmp_path: Path, suffix: str, documents: int
) -> None:
    whole, output, log = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}", []
    extract(whole)
    with pytest.raises(KeyboardInterrupt):
        extract(output, stop_after=documents)
    assert not output.exists()
    seen: list[str] = []
    progress: list[int] = []
    counts = extract(
        output, seen=seen, progress=lambda counts, total: progress.append(counts.documents), log=log.append
    )
    finished = documents // 5 * 5
    assert counts.documents == 24 and len(seen) == 24 - finished and progress[0] == finished
    assert log == ["Resuming an interrupted run."]
    assert content(output) == content(whole) and not partial_dir(output).exists()


def test_run_with_another_key_is_not_resumed(extract: Callable, tmp_path: Path) -> None:
    output, seen = tmp_path / "out.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        extract(output, stop_after=12)
    with pytest.raises(OutputError, match="interrupted run with different inputs"):
        extract(output, key={"inputs": "other"})
    extract(output, key={"inputs": "other"}, overwrite=True, seen=seen)
    assert len(seen) == 24


def test_existing_outputs_are_only_replaced_with_overwrite(extract: Callable, tmp_path: Path) -> None:
    file, folder, foreign = tmp_path / "out.jsonl", tmp_path / "out.spacy", tmp_path / "foreign.spacy"
    file.write_text("precious")
    with pytest.raises(OutputError, match=r"out\.jsonl exists"):
        extract(file)
    assert file.read_text() == "precious"
    assert extract(file, overwrite=True).documents == 24

    foreign.mkdir()
    (foreign / "train.spacy").write_text("precious")
    with pytest.raises(OutputError, match="was not created by this command"):
        extract(foreign, overwrite=True)

    counts, seen, log = extract(folder), [], []
    assert extract(folder, seen=seen, log=log.append) == counts
    assert not seen and log == [f"{folder} is already complete."]
    with pytest.raises(OutputError, match="different inputs"):
        extract(folder, key={"inputs": "other"})
    extract(folder, seen=seen, overwrite=True)
    assert len(seen) == 24


def test_output_is_locked_while_it_is_written(
    extract: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_LOCK_TIMEOUT", 0.1)
    output = tmp_path / "out.jsonl"
    errors: list[Exception] = []

    def second() -> None:
        try:
            extract(output)
        except OutputError as error:
            errors.append(error)

    with RunFolder(output):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "Another process is writing" in str(errors[0])


def test_standard_input_is_split_as_it_is_read_and_not_resumed(
    extract: Callable, nlp: Language, inputs: Inputs, tmp_path: Path
) -> None:
    stdin, output, log = b"Ann Lee met Bo Lee.\n" * 6, tmp_path / "out.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        extract(output, stdin=stdin, stop_after=7)
    assert len(ShardFolder(output).finished()) == 1
    seen: list[str] = []
    totals: list[int | None] = []
    counts = extract(
        output, stdin=stdin, seen=seen, progress=lambda counts, total: totals.append(total), log=log.append
    )
    assert counts.documents == len(seen) == 13 and set(totals) == {None} and len(totals) == 4
    assert log == ["Standard input cannot be read again, so the interrupted run starts over."]
    ids = [json.loads(line)["id"] for line in output.read_bytes().splitlines()]
    assert ids == seen and ids[7:] == [f"-:{number}" for number in range(1, 7)]


def test_corpus_without_documents_gives_an_empty_output(nlp: Language, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    engine = partial(compute_in_process, nlp=nlp, stdin=io.BytesIO())
    for suffix, path in ((".jsonl", str(tmp_path / "in.jsonl")), (".spacy", "-")):
        job = make_job(tmp_path / f"out{suffix}", [(path, "jsonl")])
        assert extract_corpus(job, KEY, engine) == ExtractionCounts()
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert sorted(os.listdir(tmp_path / "out.spacy")) == ["00000.json", "00000.spacy", "run.json"]


def test_batches_do_not_span_shards(nlp: Language, inputs: Inputs, tmp_path: Path) -> None:
    sizes: list[int] = []
    component = nlp.get_pipe("slm_relations")
    predict = component.pipe

    def pipe(docs: Any, *, batch_size: int) -> Iterator:
        docs = list(docs)
        sizes.append(len(docs))
        return predict(docs, batch_size=batch_size)

    component.pipe = pipe
    job = make_job(tmp_path / "out.jsonl", inputs, shard_size=7)
    extract_corpus(job, KEY, partial(compute_in_process, nlp=nlp, stdin=io.BytesIO()))
    assert sum(sizes) == 23 and max(sizes) == 7 and len(sizes) == 4


@pytest.fixture
def planned(nlp: Language, inputs: Inputs, tmp_path: Path) -> ShardWorker:
    """A worker whose run has begun, with five shards."""
    worker = ShardWorker(make_job(tmp_path / "out.jsonl", inputs), nlp)
    worker.folder.path.mkdir()
    worker.folder.prepare()
    worker.folder.plan(inputs, 5)
    return worker


def test_shard_that_killed_its_worker_too_often_is_given_up(planned: ShardWorker) -> None:
    for number in range(MAX_ATTEMPTS):
        (planned.folder.attempts / f"00002.host.{number}.x").mkdir()
    assert planned.compute(2) is None
    assert planned.compute(1).documents == 5


def test_documents_of_lost_shards_are_named(nlp: Language, inputs: Inputs, tmp_path: Path) -> None:
    def lose_one(job: ExtractionJob, numbers: Sequence[int]) -> Iterator[ShardResult]:
        worker = ShardWorker(job, nlp)
        yield from (worker.compute(number) for number in numbers if number != 1)

    output = tmp_path / "out.jsonl"
    with pytest.raises(ExtractionError, match=r"1 of 5 shards .* 5 from item 8 of in/a\.jsonl"):
        extract_corpus(make_job(output, inputs), KEY, lose_one)
    assert sorted(ShardFolder(output).finished()) == [0, 2, 3, 4] and not output.exists()


def test_changed_inputs_are_noticed(planned: ShardWorker) -> None:
    Path("in/f").write_text("")
    with pytest.raises(ExtractionError, match="the inputs have changed"):
        planned.compute(4)
    assert not list(planned.folder.attempts.iterdir())


def test_consecutive_shards_are_read_without_opening_a_file_again(
    planned: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        starts.append(kwargs["start"].input)
        return read_inputs(*args, **kwargs)

    monkeypatch.setattr("spacy_slmre.extraction.worker.read_inputs", spy)
    assert [planned.compute(number).documents for number in (1, 2, 3, 4, 0)] == [5, 5, 5, 4, 5]
    assert len(starts) == 2


def test_failed_documents_keep_their_place(nlp: Language, inputs: Inputs) -> None:
    nlp.max_length = 60
    documents = list(read_inputs(inputs[:1], nlp.vocab, io.BytesIO()))
    results = list(extract_documents(nlp, documents, model_name="a model"))
    assert [result.id for result in results] == [document.id for document in documents]
    assert [bool(result.error) for result in results] == [True, False, True, False, False, True, False]
    assert results[0].error == (
        "74 characters are more than nlp.max_length (60); split the text, for instance into chapters"
    )
