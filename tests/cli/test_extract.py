from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.shards import ShardFolder
from spacy_slmre.extraction.worker import ShardWorker
from spacy_slmre.facts import make_facts
from spacy_slmre.util.io import read_files
from tests.cli.extracting import lines, run, started, visible_files, wait_until
from tests.conftest import TEXTS


def test_texts_in_a_folder_are_extracted(pipeline: str, texts: Path, tmp_path: Path) -> None:
    result = run(pipeline, texts, "-o", tmp_path / "out.jsonl", "--table")
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
    assert "score" in result.output and "no relations found" in result.output
    assert visible_files(tmp_path) == ["out.jsonl", "texts"]


def test_facts_are_added_to_the_lines(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Ann Lee was born in Rome. Ann Lee was born in Rome.", encoding="utf-8")
    output = tmp_path / "out.jsonl"
    result = run(pipeline, tmp_path / "in.txt", "-o", output, "--level", "facts", "--table")
    assert result.exit_code == 0, result.output
    (line,) = lines(output)
    read = RelationDocument.from_dict(line)
    assert line["facts"] and line["facts"] == [fact.to_dict() for fact in make_facts(read)]
    assert sum(len(fact["relations"]) for fact in line["facts"]) == len(line["relations"]) > len(line["facts"])
    assert run(pipeline, tmp_path / "in.txt", "-o", output, "--level", "x").exit_code == 1


def test_of_several_relation_components_the_last_one_is_named(pipeline: str, tiny_model: dict, tmp_path: Path) -> None:
    nlp = spacy.load(pipeline)
    nlp.add_pipe("slm_relations", name="other", config={"model": tiny_model, "labels": ["rival"], "attr": "others"})
    nlp.to_disk(tmp_path / "two")
    (tmp_path / "in.txt").write_text(TEXTS[0], encoding="utf-8")
    result = run(tmp_path / "two", tmp_path / "in.txt", "-o", tmp_path / "out.jsonl")
    assert "has several relation components, slm_relations, other: using the relations of the last one" in result.output
    (line,) = lines(tmp_path / "out.jsonl")
    assert line["model"].endswith(" other") and {one["label"] for one in line["relations"]} <= {"rival"}


def test_jsonl_lines_and_standard_input_are_read(pipeline: str, tmp_path: Path) -> None:
    records = [{"id": "a", "text": TEXTS[0]}, {"text": TEXTS[1]}, {"id": 3, "body": "no text"}, "not an object"]
    data = "\ufeff".encode() + "\r\n".join(json.dumps(record) for record in records).encode() + b'\n\n{"text": \n\xff\n'
    (tmp_path / "in.jsonl").write_bytes(data)
    for source, stdin in ((tmp_path / "in.jsonl", None), ("-", data)):
        result = run(pipeline, source, "-o", tmp_path / "out.jsonl", "--overwrite", stdin=stdin)
        assert result.exit_code == 1 and "4 documents failed" in result.output
        found = lines(tmp_path / "out.jsonl")
        assert [one["id"] for one in found] == ["a", *(f"{source}:{number}" for number in (2, 3, 4, 6, 7))]
        assert [one.get("error", "")[:12] for one in found] == [
            "",
            "",
            "no text in t",
            "no text in t",
            "invalid JSON",
            "not UTF-8 (b",
        ]
    stdin = b"Ann Lee met Bo Lee.\n\nx\n"
    result = run(pipeline, "-", "-o", tmp_path / "lines.jsonl", "--format", "lines", stdin=stdin)
    assert result.exit_code == 0
    assert [len(one["relations"]) for one in lines(tmp_path / "lines.jsonl")] == [2, 0]


def test_spacy_files_are_read_and_written(pipeline: str, blank: Callable[[], Language], tmp_path: Path) -> None:
    nlp = blank()
    DocBin(docs=[nlp(text) for text in TEXTS], store_user_data=True).to_disk(tmp_path / "in.spacy")
    result = run(pipeline, tmp_path / "in.spacy", "-o", tmp_path / "out.spacy")
    assert result.exit_code == 0, result.output
    assert visible_files(tmp_path / "out.spacy") == ["00000.json", "00000.spacy", "run.json"]
    docs = list(DocBin().from_disk(tmp_path / "out.spacy" / "00000.spacy").get_docs(nlp.vocab))
    assert [doc.text for doc in docs] == TEXTS
    assert len(docs[4]._.relations) == 56
    again = run(pipeline, tmp_path / "out.spacy", "-o", tmp_path / "again.jsonl")
    assert again.exit_code == 0 and len(lines(tmp_path / "again.jsonl")) == len(TEXTS)


def test_interrupted_command_is_resumed_unless_the_inputs_have_changed(
    pipeline: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (pipeline, texts, "-o", tmp_path / "out.jsonl", "--shard-size", 2)
    compute = ShardWorker.compute

    def stop(self: ShardWorker, number: int) -> object:
        if number == 2:
            raise KeyboardInterrupt
        return compute(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "compute", stop)
        interrupted = run(*args)
    assert interrupted.exit_code == 130 and "Repeat the command to resume" in interrupted.output
    assert not (tmp_path / "out.jsonl").exists()
    one = (pipeline, texts / "0.txt", "-o", tmp_path / "out.jsonl", "--shard-size", 2)
    refused = run(*one)
    assert refused.exit_code == 1 and "an interrupted run with different inputs" in refused.output
    resumed = run(*args)
    assert resumed.exit_code == 0 and "Resuming an interrupted run" in resumed.output
    assert [one["text"] for one in lines(tmp_path / "out.jsonl")] == TEXTS
    assert run(*one, "-F").exit_code == 0 and len(lines(tmp_path / "out.jsonl")) == 1


def test_complete_folder_is_reported_and_not_computed_again(
    pipeline: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (pipeline, texts, "-o", tmp_path / "out.spacy")
    first = run(*args)
    monkeypatch.delattr(ShardWorker, "compute")
    again = run(*args)
    assert again.exit_code == 0 and "is already complete" in again.output
    assert again.output.endswith(first.output.splitlines()[-1] + "\n")


def test_custom_code_is_imported_before_the_pipeline_is_loaded(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "from spacy import registry\n\n@registry.misc('code_for_extract.v1')\ndef made():\n    return 1\n"
    )
    result = run("no_such_pipeline", texts, "-o", tmp_path / "out.jsonl", "-c", tmp_path / "code.py")
    assert "neither an installed package nor a folder" in result.output
    assert spacy.registry.has("misc", "code_for_extract.v1")


def test_existing_output_is_kept(pipeline: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious")
    result = run(pipeline, texts, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "out.jsonl exists" in result.output and "overwrite" in result.output
    assert (tmp_path / "out.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent.txt", "-o", "out.jsonl"], "does not exist"),
        (["{texts}", "-o", "out.csv"], "must end with .jsonl or .spacy"),
        (["{texts}", "-o", "out.jsonl", "--format", "xml"], 'Unknown input format "xml"'),
        (["no_such_pipeline", "{texts}", "-o", "out.jsonl"], "neither an installed package nor a folder"),
        (["{empty}", "-o", "out.jsonl"], "contains no .txt, .jsonl, .parquet, .spacy file"),
        (["{texts}", "-o", "/proc/nowhere/out.jsonl"], "cannot be written"),
        (["{texts}", "-o", "/proc/nowhere/out.jsonl", "--engine", "ray"], "cannot be written"),
        (["{texts}", "-o", "out.jsonl", "--engine", "spark"], 'Unknown engine "spark"'),
        (["{texts}", "-o", "out.jsonl", "--workers", "2"], "--workers needs --engine ray"),
        (["{texts}", "-o", "out.jsonl", "--worker-gpus", "0"], "--worker-gpus needs --engine ray"),
        (["{texts}", "-o", "out.jsonl", "--engine", "ray", "--table"], "--table needs --engine process"),
        (["{texts}", "-o", "out.jsonl", "-g", "99"], "GPU 99 is not available"),
        (["{texts}", "-o", "out.jsonl", "-c", "no.py"], "no.py does not exist"),
        (["{texts}/0.txt", "-o", "{texts}/0.txt"], "must end with .jsonl or .spacy"),
        (["{empty}/../in.jsonl", "-o", "in.jsonl", "-F"], "would replace the input"),
        (["{texts}", "-o", "out.jsonl", "--engine", "ray", "--workers", "x"], 'not "x"'),
        (["-", "-o", "out.jsonl", "--engine", "ray"], "cannot read standard input"),
    ],
)
def test_invalid_arguments_fail_at_once(
    pipeline: str, texts: Path, tmp_path: Path, monkeypatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "in.jsonl").write_text("{}")
    args = [arg.format(texts=texts, empty=tmp_path / "empty") for arg in args]
    result = run(*([pipeline] if args[0] != "no_such_pipeline" else []), *args)
    assert result.exit_code == 1 and message in result.output.replace("\n", " ")
    assert not list(tmp_path.glob("out*"))


def test_damaged_spacy_file_is_named(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "in.spacy").write_bytes(b"no docs")
    result = run(pipeline, tmp_path / "in.spacy", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "not a readable .spacy file" in result.output


def test_output_in_the_input_folder_is_not_read(pipeline: str, texts: Path) -> None:
    for _ in range(2):
        assert run(pipeline, texts, "-o", texts / "out.jsonl", "--overwrite").exit_code == 0
        assert len(lines(texts / "out.jsonl")) == len(TEXTS)


@pytest.mark.timeout(200)
def test_error_in_a_worker_process_is_reported(pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spacy_slmre.candidates import EntityPairs

    generate = EntityPairs.__call__

    def fail(self: EntityPairs, doc: object, schema: object) -> object:
        if "Curie" in str(doc):
            raise RuntimeError("no Curies")
        return generate(self, doc, schema)

    monkeypatch.setattr(EntityPairs, "__call__", fail)
    data = "\n".join(json.dumps({"text": text}) for text in [*TEXTS, "half \ud800"]).encode()
    result = run(pipeline, "-", "-o", tmp_path / "out.jsonl", "--n-process", 2, "--batch-size", 2, stdin=data)
    assert result.exit_code == 1 and "3 documents failed" in result.output
    errors = [one.get("error") for one in lines(tmp_path / "out.jsonl")]
    failed = "RuntimeError: no Curies"
    assert errors == [None, failed, None, None, failed, None, "unpaired surrogate, which is not a valid character"]


def test_too_long_text_fails_alone(pipeline: str, texts: Path, tmp_path: Path) -> None:
    (texts / "3.txt").write_text("word " * 300_000)
    result = run(pipeline, texts, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    found = lines(tmp_path / "out.jsonl")
    assert len(found) == 6 and "nlp.max_length" in found[3]["error"] and found[4]["relations"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_killed_process_is_resumed_with_identical_output(pipeline: str, tmp_path: Path, suffix: str) -> None:
    records = [json.dumps({"id": str(n), "text": f"{TEXTS[4]} {n}"}) for n in range(150)]
    (tmp_path / "in.jsonl").write_text("\n".join(records))
    whole, output, log = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}", tmp_path / "log"
    args = (pipeline, tmp_path / "in.jsonl", "--batch-size", 4, "--shard-size", 10, "-o")
    assert run(*args, whole).exit_code == 0
    folder = ShardFolder(output)
    with started(log, *args, output) as process:
        wait_until(lambda: len(folder.finished()) >= 2, process, log)
        process.kill()
    assert 2 <= len(folder.finished()) < 15 and not output.exists()
    with started(log, *args, output) as process:
        assert process.wait() == 0 and "Resuming an interrupted run" in log.read_text()
    if suffix == ".jsonl":
        assert output.read_bytes() == whole.read_bytes()
    else:
        assert read_files(output) == read_files(whole)
    assert visible_files(tmp_path) == sorted(["in.jsonl", "log", output.name, whole.name])
