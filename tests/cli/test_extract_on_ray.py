from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.extraction.shards import ShardFolder
from tests.cli.extracting import lines, run, started, visible_files, wait_until
from tests.conftest import TEXTS

LONG = TEXTS[4]
NUMBER, SIZE = 60, 4


@pytest.fixture
def corpus(tmp_path: Path, blank: Callable[[], Language]) -> Path:
    """60 documents in files of all formats, four of which cannot be processed."""
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_command_and_killed_worker_are_resumed_with_identical_output(
    pipeline: str, corpus: Path, tmp_path: Path
) -> None:
    output, whole = tmp_path / "ray.jsonl", tmp_path / "one.jsonl"
    args = [pipeline, corpus, "--shard-size", SIZE, "--batch-size", 3]
    alone = run(*args, "-o", whole)
    assert alone.exit_code == 1 and f"{NUMBER} documents" in alone.output

    folder, log = ShardFolder(output), tmp_path / "log"
    args += ["-o", output, "--engine", "ray", "--workers", 2]
    with started(log, *args) as process:
        wait_until(lambda: len(folder.finished()) >= 2, process, log)
        process.kill()
    done = folder.finished()
    assert 2 <= len(done) < NUMBER // SIZE and not output.exists()

    with started(log, *args) as process:
        # The folder of an attempt has the process id of the worker.
        wait_until(lambda: len(folder.finished()) > len(done) and any(folder.attempts.iterdir()), process, log)
        attempt = next(folder.attempts.iterdir())
        os.kill(int(attempt.name.split(".")[-2]), signal.SIGKILL)
        assert len(folder.finished()) < NUMBER // SIZE
        process.wait()
    messages = log.read_text()
    assert process.returncode == 1 and "4 documents failed" in messages, messages
    assert "Resuming an interrupted run" in messages
    assert f"{NUMBER // SIZE - len(done)} shards for 2 workers with 1 core each" in messages
    assert output.read_bytes() == whole.read_bytes()
    assert len(re.findall("error", whole.read_text())) == 4 and len(lines(whole)) == NUMBER
    assert visible_files(tmp_path) == ["corpus", "log", "one.jsonl", "ray.jsonl"]
