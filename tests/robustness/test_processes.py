"""Workers that die are replaced, none outlives its parent, and memory does not grow with the number of documents."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.extraction.processes import compute_in_processes
from spacy_slmre.extraction.run import compute_in_process, extract_corpus
from spacy_slmre.extraction.shards import ShardFolder
from spacy_slmre.extraction.worker import ExtractionJob
from spacy_slmre.util.errors import ServiceError
from tests.cli.extracting import lines, run, started, wait_until
from tests.conftest import TEXTS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def job(tmp_path: Path, pipeline: str) -> ExtractionJob:
    """A job of six shards."""
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(TEXTS)))
    load = partial(spacy.load, pipeline)
    return ExtractionJob(
        tmp_path / "out.jsonl", [(str(source), "jsonl")], load, "a model", "relations", shard_size=1, batch_size=1
    )


def kill_for(doc: spacy.tokens.Doc, text: str, marker: Path | None) -> None:
    if doc.text == text and (marker is None or not marker.exists()):
        if marker is not None:
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def nlp_that_kills(pipeline: str, marker: Path | None) -> Language:
    """A pipeline that kills its process at one document, only once if there is a marker."""
    name = "killer" if marker is None else "killer_once"

    @Language.component(name)
    def killer(doc: spacy.tokens.Doc) -> spacy.tokens.Doc:
        kill_for(doc, TEXTS[2], marker)
        return doc

    nlp = spacy.load(pipeline)
    nlp.add_pipe(name)
    return nlp


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_killed_worker_is_replaced(job: ExtractionJob, pipeline: str, tmp_path: Path) -> None:
    log: list[str] = []
    nlp = nlp_that_kills(pipeline, tmp_path / "marker")
    engine = partial(compute_in_processes, nlp=nlp, n_process=2, log=log.append)
    assert extract_corpus(job, {}, engine).documents == len(TEXTS)
    assert [one["text"] for one in lines(job.output)] == TEXTS
    assert log == ["A worker process ended unexpectedly (signal SIGKILL)."]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_shard_that_kills_every_worker_is_named_and_the_others_are_kept(job: ExtractionJob, pipeline: str) -> None:
    log: list[str] = []
    engine = partial(compute_in_processes, nlp=nlp_that_kills(pipeline, None), n_process=2, log=log.append)
    with pytest.raises(ExtractionError, match=r"1 of 6 shards crashed their worker .* 1 from item 3 of .*in\.jsonl"):
        extract_corpus(job, {}, engine)
    assert len(ShardFolder(job.output).finished()) == 5 and len(log) == 3


@pytest.mark.parametrize("error", [ServiceError("the service is gone"), KeyError("a defect")])
def test_error_in_a_worker_ends_the_run_and_all_workers(job: ExtractionJob, pipeline: str, error: Exception) -> None:
    from spacy_slmre.extraction.worker import ShardWorker

    class Failing(ShardWorker):
        def _compute(self, *args: object) -> None:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spacy_slmre.extraction.processes.ShardWorker", Failing)
        engine = partial(compute_in_processes, nlp=spacy.load(pipeline), n_process=2)
        with pytest.raises(ExtractionError, match=r"the service is gone|KeyError: 'a defect'"):
            extract_corpus(job, {}, engine)


def test_standard_input_is_shared_by_processes(pipeline: str, tmp_path: Path) -> None:
    data = "\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(TEXTS)).encode()
    args = (pipeline, "-", "--shard-size", 2, "-o")
    assert run(*args, tmp_path / "two.jsonl", "--n-process", 2, stdin=data).exit_code == 0
    assert run(*args, tmp_path / "one.jsonl", stdin=data).exit_code == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.jsonl", "two.jsonl"]


def children(process: subprocess.Popen) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in found]


def is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_killed_process_neither_hangs_nor_leaves_workers(pipeline: str, tmp_path: Path, victim: str) -> None:
    records = [json.dumps({"id": str(n), "text": f"{TEXTS[4]} {n}"}) for n in range(400)]
    (tmp_path / "in.jsonl").write_text("\n".join(records))
    output, log = tmp_path / "out.jsonl", tmp_path / "log"
    args = (pipeline, tmp_path / "in.jsonl", "--shard-size", 10, "--n-process", 2, "-o", output)
    with started(log, *args) as process:
        wait_until(lambda: len(ShardFolder(output).finished()) >= 1, process, log)
        workers = children(process)
        assert len(workers) >= 2
        if victim == "worker":
            os.kill(workers[0], signal.SIGKILL)
            assert process.wait(240) == 0, log.read_text()
            assert "ended unexpectedly (signal SIGKILL)" in log.read_text()
            assert len(lines(output)) == 400
        else:
            process.kill()
            deadline = time.time() + 20
            while any(map(is_running, workers)):
                assert time.time() < deadline
                time.sleep(0.1)


# -- memory ------------------------------------------------------------------------------------------------


def new_words(number: int) -> str:
    return " ".join(f"word{number}x{place}" for place in range(60)) + " ."


def write_docs(path: Path, number: int) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=list(nlp.pipe(new_words(n) for n in range(number)))).to_disk(path)


def test_strings_are_restored_if_another_input_of_the_shard_had_them(blank, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": new_words(0)}))
    DocBin(docs=list(spacy.blank("en").pipe([new_words(0)] * 3))).to_disk(tmp_path / "in.spacy")
    inputs = [(str(tmp_path / "in.jsonl"), "jsonl"), (str(tmp_path / "in.spacy"), "spacy")]
    nlp: Language = blank()
    job = ExtractionJob(tmp_path / "out.jsonl", inputs, lambda: nlp, "a", "relations", shard_size=2)
    assert extract_corpus(job, {}, partial(compute_in_process, nlp=nlp, stdin=io.BytesIO())).failed == 0
    assert [one["text"] for one in lines(job.output)] == [new_words(0)] * 4


@pytest.mark.parametrize("source", ["in.jsonl", "-", "in.spacy"])
def test_new_words_are_forgotten_after_each_shard(blank, tmp_path: Path, source: str) -> None:
    data = "\n".join(json.dumps({"text": new_words(n)}) for n in range(50)).encode()
    (tmp_path / "in.jsonl").write_bytes(data)
    write_docs(tmp_path / "in.spacy", 50)
    nlp: Language = blank()
    list(nlp.pipe(["."]))
    path = source if source == "-" else str(tmp_path / source)
    format = "spacy" if source == "in.spacy" else "jsonl"
    job = ExtractionJob(tmp_path / "out.jsonl", [(path, format)], lambda: nlp, "a", "relations", shard_size=5)
    sizes: list[int] = []
    engine = partial(compute_in_process, nlp=nlp, stdin=io.BytesIO(data))
    extract_corpus(job, {}, engine, progress=lambda counts, total: sizes.append(len(nlp.vocab.strings)))
    assert len(sizes) == 11 and sizes[-1] == sizes[1] < sizes[0] + 60
    assert [one["text"].split()[0] for one in lines(tmp_path / "out.jsonl")] == [f"word{n}x0" for n in range(50)]


MEASURE = """
import io, json, sys
from functools import partial
from pathlib import Path
import spacy
from spacy_slmre.extraction.run import compute_in_process, extract_corpus
from spacy_slmre.extraction.worker import ExtractionJob
from spacy_slmre.relations import install_extensions

install_extensions()
nlp = spacy.blank("en")
job = ExtractionJob(Path(sys.argv[2]), [(sys.argv[1], "jsonl")], lambda: nlp, "a", "relations")
used = []
def progress(counts, total):
    status = Path("/proc/self/status").read_text()
    used.append(int(status.split("VmRSS:")[1].split()[0]))
extract_corpus(job, {}, partial(compute_in_process, nlp=nlp, stdin=io.BytesIO()), progress=progress)
print(json.dumps(used))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_new_words(tmp_path: Path) -> None:
    with (tmp_path / "in.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": new_words(n)}) + "\n" for n in range(2_500))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    used = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert used[-1] < 1.05 * used[len(used) // 4]
