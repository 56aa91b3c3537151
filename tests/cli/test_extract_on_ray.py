from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.extraction.shards import ShardFolder
from tests.cli.extracting import lines, run
from tests.conftest import TEXTS

LONG = TEXTS[4]
NUMBER, SIZE = 60, 4


@pytest.fixture
def corpus(tmp_path: Path, blank: Callable[[], Language]) -> Path:
    """60 documents in files of all formats, four of which no pipeline can read."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [f"{LONG} No. {number}." for number in range(NUMBER)]
    records = [json.dumps({"id": f"j{number}", "text": text}) for number, text in enumerate(texts[:25])]
    records[3], records[20:20] = '{"text": 1}', ["", "  "]
    (folder / "a.jsonl").write_text("\n".join(records), encoding="utf-8")
    column = [*texts[25:35], None, *texts[36:45]]
    table = pa.table({"text": column, "id": [f"p{number}" for number in range(20)]})
    parquet.write_table(table, folder / "b.parquet", row_group_size=7)
    nlp = blank()
    DocBin(docs=[nlp.make_doc(text) for text in texts[45:55]]).to_disk(folder / "c.spacy")
    for number, text in enumerate(texts[55:58]):
        (folder / f"d{number}.txt").write_text(text, encoding="utf-8")
    (folder / "d3.txt").write_bytes(b"\xff")
    (folder / "d4.txt").write_text("word " * 300_000, encoding="utf-8")
    return folder


@contextmanager
def started(log: Path, *args: object) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "spacy", "slmre", "extract", *map(str, args)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.time() + 200
    while not condition():
        assert process.poll() is None and time.time() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_driver_and_killed_worker_lose_nothing(pipeline: str, corpus: Path, tmp_path: Path) -> None:
    output, whole = tmp_path / "ray.jsonl", tmp_path / "one.jsonl"
    args = [corpus, "-p", pipeline, "--shard-size", SIZE, "--batch-size", 3]
    alone = run(*args, "-o", whole)
    assert alone.exit_code == 1 and f"{NUMBER} documents" in alone.output

    folder, log = ShardFolder(output), tmp_path / "log"
    args += ["-o", output, "--engine", "ray", "--workers", 2]
    with started(log, *args) as process:
        wait_until(lambda: folder.path.exists() and len(folder.done()) >= 2, process, log)
        process.kill()
    done = folder.done()
    assert 2 <= len(done) < NUMBER // SIZE and not output.exists()

    with started(log, *args) as process:
        # The folder of an attempt says which process makes it.
        wait_until(lambda: len(folder.done()) > len(done) and any(folder.attempts.iterdir()), process, log)
        attempt = next(folder.attempts.iterdir())
        os.kill(int(attempt.name.split(".")[-2]), signal.SIGKILL)
        assert len(folder.done()) < NUMBER // SIZE
        process.wait()
    said = log.read_text()
    assert process.returncode == 1 and "4 documents failed" in said, said
    assert "Going on where an interrupted run stopped" in said
    assert f"{NUMBER // SIZE - len(done)} shards for 2 workers with 1 core each" in said
    assert output.read_bytes() == whole.read_bytes()
    assert len(re.findall("error", whole.read_text())) == 4 and len(lines(whole)) == NUMBER
    assert sorted(os.listdir(tmp_path)) == ["corpus", "log", "one.jsonl", "ray.jsonl"]
