from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from spacy.language import Language
from spacy.tokens import DocBin

from tests.cli.extracting import lines, run
from tests.conftest import TEXTS


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


def test_folder_of_texts(pipeline: str, texts: Path, tmp_path: Path) -> None:
    result = run(texts, "-p", pipeline, "-o", tmp_path / "out.jsonl", "--table")
    assert result.exit_code == 0, result.output
    found = lines(tmp_path / "out.jsonl")
    assert [one["id"] for one in found] == [str(texts / f"{n}.txt") for n in range(len(TEXTS))]
    assert [one["text"] for one in found] == TEXTS
    for one in found:
        for relation in one["relations"]:
            for side in ("head", "tail"):
                span = relation[side]
                assert one["text"][span["start"] : span["end"]] == span["text"]
    assert sum(len(one["relations"]) for one in found) == sum(one["report"]["scored"] for one in found) > 50
    assert "confidence" in result.output and "no relations found" in result.output
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "texts"]


def test_jsonl_lines_and_standard_input(pipeline: str, tmp_path: Path) -> None:
    records = [
        {"id": "a", "text": TEXTS[0]},
        {"text": TEXTS[1]},
        {"id": 3, "body": "no text"},
        "not an object",
    ]
    data = (
        "\ufeff".encode()
        + "\r\n".join(json.dumps(record) for record in records).encode()
        + b'\n\n{"text": \n\xff\n'
    )
    (tmp_path / "in.jsonl").write_bytes(data)
    for source, stdin in ((tmp_path / "in.jsonl", None), ("-", data)):
        result = run(source, "-p", pipeline, "-o", tmp_path / "out.jsonl", "--overwrite", stdin=stdin)
        assert result.exit_code == 1 and "4 documents failed" in result.output
        found = lines(tmp_path / "out.jsonl")
        assert [one["id"] for one in found] == ["a", *(f"{source}:{number}" for number in (2, 3, 4, 6, 7))]
        assert [one.get("error", "")[:12] for one in found] == [
            "",
            "",
            "no text in t",
            "no text in t",
            "no JSON (Exp",
            "not UTF-8 (b",
        ]
    result = run(
        "-",
        "-p",
        pipeline,
        "-o",
        tmp_path / "lines.jsonl",
        "--format",
        "lines",
        stdin=b"Ann Lee met Bo Lee.\n\nx\n",
    )
    assert result.exit_code == 0
    assert [len(one["relations"]) for one in lines(tmp_path / "lines.jsonl")] == [2, 0]


def test_spacy_in_and_out(pipeline: str, blank: Callable[[], Language], tmp_path: Path) -> None:
    nlp = blank()
    DocBin(docs=[nlp(text) for text in TEXTS], store_user_data=True).to_disk(tmp_path / "in.spacy")
    result = run(tmp_path / "in.spacy", "-p", pipeline, "-o", tmp_path / "out.spacy")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path / "out.spacy")) == ["00000.json", "00000.spacy"]
    docs = list(DocBin().from_disk(tmp_path / "out.spacy" / "00000.spacy").get_docs(nlp.vocab))
    assert [doc.text for doc in docs] == TEXTS
    assert len(docs[4]._.relations) == 56
    again = run(tmp_path / "out.spacy", "-p", pipeline, "-o", tmp_path / "again.jsonl")
    assert again.exit_code == 0 and len(lines(tmp_path / "again.jsonl")) == len(TEXTS)


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_interrupted_run_goes_on(
    pipeline: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from spacy_slmre.extraction import writers

    monkeypatch.setattr(writers.ShardWriter.__init__, "__defaults__", (2,))
    for number in range(6, 20):
        (texts / f"{number}.txt").write_text(TEXTS[number % 6], encoding="utf-8")
    output, whole = tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    assert run(texts, "-p", pipeline, "-o", whole, "--batch-size", 2, "--shard-size", 2).exit_code == 0

    writer = {".jsonl": writers.JsonlWriter, ".spacy": writers.ShardWriter}[suffix]
    write, seen = writer.write, []

    def stop(self: object, result: object) -> None:
        if len(seen) == 7:
            raise KeyboardInterrupt
        seen.append(result.id)
        write(self, result)

    monkeypatch.setattr(writer, "write", stop)
    interrupted = run(texts, "-p", pipeline, "-o", output, "--batch-size", 2, "--shard-size", 2)
    assert interrupted.exit_code == 130 and "goes on from there" in interrupted.output
    assert not output.exists()
    if suffix == ".jsonl":
        with (tmp_path / "out.jsonl.part").open("ab") as stream:
            stream.write(b'{"id": "torn off in the mid')

    monkeypatch.setattr(
        writer, "write", lambda self, result: (seen.append(result.id), write(self, result))[1]
    )
    seen.clear()
    result = run(texts, "-p", pipeline, "-o", output, "--batch-size", 2, "--shard-size", 2)
    assert result.exit_code == 0, result.output
    # Nothing is done again.
    assert len(seen) == 13
    if suffix == ".jsonl":
        strip = [{**one, "relations": len(one["relations"])} for one in lines(output)]
        assert strip == [{**one, "relations": len(one["relations"])} for one in lines(whole)]
    else:
        ids = [
            [entry["id"] for f in sorted(o.glob("*.json")) for entry in json.loads(f.read_text())]
            for o in (output, whole)
        ]
        assert ids[0] == ids[1] and len(ids[0]) == 20
    assert not list(tmp_path.glob("*.part*"))


def test_other_inputs_do_not_continue_a_run(pipeline: str, texts: Path, tmp_path: Path, monkeypatch) -> None:
    from spacy_slmre.extraction import writers

    with monkeypatch.context() as patch:
        patch.setattr(writers.JsonlWriter, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(texts, "-p", pipeline, "-o", tmp_path / "out.jsonl").exit_code == 130
    result = run(texts / "0.txt", "-p", pipeline, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "--restart" in result.output
    (texts / "5.txt").unlink()
    (texts / "55.txt").write_text("new")
    result = run(texts / "0.txt", "-p", pipeline, "-o", tmp_path / "out.jsonl", "--restart")
    assert result.exit_code == 0 and len(lines(tmp_path / "out.jsonl")) == 1


def test_existing_output_is_kept(pipeline: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious")
    result = run(texts, "-p", pipeline, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "--overwrite" in result.output
    assert (tmp_path / "out.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent.txt", "-o", "out.jsonl"], "does not exist"),
        (["{texts}", "-o", "out.csv"], "must end with .jsonl or .spacy"),
        (["{texts}", "-o", "out.jsonl", "--format", "xml"], 'Unknown input format "xml"'),
        (
            ["{texts}", "-o", "out.jsonl", "-p", "no_such_pipeline"],
            "neither an installed package nor a folder",
        ),
        (["{empty}", "-o", "out.jsonl"], "holds no .txt, .jsonl, .parquet or .spacy file"),
        (["{texts}", "-o", "/proc/nowhere/out.jsonl"], "cannot be written"),
        (["{texts}", "-o", "/proc/nowhere/out.jsonl", "--engine", "ray"], "cannot be written"),
        (["{texts}", "-o", "out.jsonl", "--engine", "spark"], 'Unknown --engine "spark"'),
        (["{texts}", "-o", "out.jsonl", "--workers", "2"], "--workers has no effect with --engine process"),
        (["{texts}", "-o", "out.jsonl", "--engine", "ray", "--table"], "--table has no effect"),
        (["{texts}", "-o", "out.jsonl", "--engine", "ray", "--workers", "x"], '--workers "x"'),
        (["-", "-o", "out.jsonl", "--engine", "ray"], "standard input cannot be shared out"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    pipeline: str, texts: Path, tmp_path: Path, monkeypatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    args = [arg.format(texts=texts, empty=tmp_path / "empty") for arg in args]
    result = run(*(["-p", pipeline] if "-p" not in args else []), *args)
    assert result.exit_code == 1 and message in result.output.replace("\n", " ")
    assert not list(tmp_path.glob("out*"))


def test_damaged_spacy_file(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "in.spacy").write_bytes(b"no docs")
    result = run(tmp_path / "in.spacy", "-p", pipeline, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "no readable .spacy file" in result.output


def test_output_in_the_folder_of_inputs_is_no_input(pipeline: str, texts: Path) -> None:
    for _ in range(2):
        assert run(texts, "-p", pipeline, "-o", texts / "out.jsonl", "--overwrite").exit_code == 0
        assert len(lines(texts / "out.jsonl")) == len(TEXTS)


@pytest.mark.timeout(200)
def test_failure_in_a_worker_process_says_why(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacy_slmre.candidates import EntityPairs

    generate = EntityPairs.__call__

    def fail(self: EntityPairs, doc: object, schema: object) -> object:
        if "Curie" in str(doc):
            raise RuntimeError("no Curies")
        return generate(self, doc, schema)

    monkeypatch.setattr(EntityPairs, "__call__", fail)
    data = "\n".join(json.dumps({"text": text}) for text in [*TEXTS, "half \ud800"]).encode()
    result = run(
        "-", "-p", pipeline, "-o", tmp_path / "out.jsonl", "--n-process", 2, "--batch-size", 2, stdin=data
    )
    assert result.exit_code == 1 and "3 documents failed" in result.output
    errors = [one.get("error") for one in lines(tmp_path / "out.jsonl")]
    told = "RuntimeError: no Curies"
    assert errors == [None, told, None, None, told, None, "half of a surrogate pair, which is no character"]


def test_text_that_is_too_long_fails_alone(pipeline: str, texts: Path, tmp_path: Path) -> None:
    (texts / "3.txt").write_text("word " * 300_000)
    result = run(texts, "-p", pipeline, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    found = lines(tmp_path / "out.jsonl")
    assert len(found) == 6 and "nlp.max_length" in found[3]["error"] and found[4]["relations"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_process_loses_nothing(pipeline: str, tmp_path: Path) -> None:
    records = [json.dumps({"id": str(n), "text": TEXTS[4]}) for n in range(150)]
    (tmp_path / "in.jsonl").write_text("\n".join(records))
    command = [sys.executable, "-m", "spacy", "slmre", "extract", str(tmp_path / "in.jsonl"), "-p", pipeline]
    command += ["-o", str(tmp_path / "out.jsonl"), "--batch-size", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    part = tmp_path / "out.jsonl.part"
    deadline = time.time() + 200
    while not (part.exists() and part.read_bytes().count(b"\n") >= 8):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert 8 <= kept.count(b"\n") < 150
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Going on where an interrupted run stopped" in done.stderr
    written = (tmp_path / "out.jsonl").read_bytes()
    assert written.startswith(kept)
    assert [one["id"] for one in lines(tmp_path / "out.jsonl")] == [str(n) for n in range(150)]
