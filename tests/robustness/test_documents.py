"""A document that cannot be read, processed or stored has an error in its place, and changes no other document."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_slmre.corpus.docbin import corpus_files
from spacy_slmre.corpus.sources import source_files
from spacy_slmre.evaluation.results import find_runs
from spacy_slmre.export.reading import read_documents
from spacy_slmre.extraction.inputs import InputDocument, find_inputs
from spacy_slmre.extraction.run import compute_in_process, extract_corpus
from spacy_slmre.extraction.worker import ExtractionJob, extract_documents
from tests.cli.extracting import lines, run
from tests.conftest import TEXTS
from tests.evaluation.run_folders import write_run

BAD = "Ann Lee married Bo Lee in Rome."
ALL = [*TEXTS[:3], BAD, *TEXTS[3:]]


class Component:
    """A component of another package that fails for one document."""

    def __init__(self, fail: Callable[[Doc], Any], *, batches: bool) -> None:
        self.fail = fail
        self.calls = 0
        if batches:
            self.pipe = self._pipe

    def __call__(self, doc: Doc) -> Any:
        if doc.text == BAD:
            self.calls += 1
            return self.fail(doc)
        return doc

    def _pipe(self, stream: Iterator[Doc], batch_size: int) -> Iterator[Any]:
        for doc in list(stream):  # as components do that predict for a batch
            if (result := self(doc)) is not DROPPED:
                yield result


DROPPED = object()


def fail(doc: Doc) -> None:
    raise RuntimeError("cannot do this")


def return_other(doc: Doc) -> Doc:
    return Doc(doc.vocab, words=["another", "text"])


def set_unpackable(doc: Doc) -> Doc:
    doc.user_data["mine"] = object()
    return doc


KINDS = {
    "raises": (fail, "RuntimeError: cannot do this"),
    "returns None": (lambda doc: None, "E005"),
    "returns text": (lambda doc: "text", "E005"),
    "drops it": (lambda doc: DROPPED, "E005"),
    "returns another Doc": (return_other, None),
}


@pytest.fixture
def add(pipeline: str) -> Callable[..., Language]:
    def make(fail: Callable[[Doc], Any], *, batches: bool = False, last: bool = False) -> Language:
        name = "other_component"
        Language.component(name, func=Component(fail, batches=batches))
        nlp = spacy.load(pipeline)
        nlp.add_pipe(name, **({"last": True} if last else {"before": "slm_relations"}))
        return nlp

    return make


def extract(nlp: Language, output: Path, texts: list[str]) -> list[dict]:
    source = output.with_name("in.jsonl")
    source.write_text("\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)))
    job = ExtractionJob(output, [(str(source), "jsonl")], lambda: nlp, "a model", "relations", batch_size=4)
    counts = extract_corpus(job, {}, partial(compute_in_process, nlp=nlp, stdin=io.BytesIO()))
    found = lines(output) if output.suffix == ".jsonl" else json.loads((output / "00000.json").read_text())
    assert counts.documents == len(texts) and counts.failed == sum("error" in one for one in found)
    return found


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_component_that_fails_for_one_document_fails_only_that_one(
    add: Callable, pipeline: str, tmp_path: Path, kind: str, batches: bool, last: bool
) -> None:
    function, expected = KINDS[kind]
    found = extract(add(function, batches=batches, last=last), tmp_path / "out.jsonl", ALL)
    assert [one["id"] for one in found] == [str(n) for n in range(len(ALL))]
    bad = found.pop(3)
    if expected is None:
        assert bad["text"] == "another text "
    else:
        assert expected in bad["error"]
    whole = extract(spacy.load(pipeline), tmp_path / "whole.jsonl", ALL)
    del whole[3]
    assert [one["text"] for one in found] == TEXTS
    for one, other in zip(found, whole, strict=True):
        pairs = [[(r["head"], r["tail"], r["label"]) for r in doc["relations"]] for doc in (one, other)]
        assert pairs[0] == pairs[1]


def test_component_that_fails_once_fails_no_document(add: Callable, tmp_path: Path) -> None:
    def fail_once(doc: Doc) -> Doc:
        if not done:
            done.append(1)
            raise MemoryError
        return doc

    done: list[int] = []
    found = extract(add(fail_once, batches=True), tmp_path / "out.jsonl", ALL)
    assert [one.get("error") for one in found] == [None] * len(ALL) and done


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_user_data_that_cannot_be_packed_fails_one_document(add: Callable, tmp_path: Path, suffix: str) -> None:
    found = extract(add(set_unpackable, last=True), tmp_path / f"out{suffix}", ALL)
    errors = [one.get("error") for one in found]
    assert [error is not None for error in errors] == [n == 3 and suffix == ".spacy" for n in range(len(ALL))]
    if suffix == ".spacy":
        assert "cannot be stored" in errors[3]
        documents = list(read_documents([str(tmp_path / "out.spacy")], io.BytesIO()))
        assert [one.text for one in documents if one.error is None] == TEXTS


def test_error_while_reading_is_not_taken_for_one_of_the_pipeline(pipeline: str) -> None:
    def documents() -> Iterator[InputDocument]:
        yield InputDocument("a", TEXTS[0])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(extract_documents(spacy.load(pipeline), documents()))


# -- files -------------------------------------------------------------------------------------------------


FORMATS = ("txt", "jsonl", "jsonl.gz", "parquet", "spacy")


def write_input(path: Path, texts: list[str]) -> None:
    """Write documents to a file in the format of its suffix; a .txt file has only one."""
    records = "\n".join(json.dumps({"id": text, "text": text}) for text in texts).encode()
    if path.suffix == ".txt":
        path.write_text(texts[0])
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    elif path.suffix == ".spacy":
        DocBin(docs=list(map(spacy.blank("en").make_doc, texts))).to_disk(path)
    else:
        path.write_bytes(gzip.compress(records) if path.suffix == ".gz" else records)


def entries(output: Path) -> list[dict]:
    if output.suffix == ".jsonl":
        return lines(output)
    return [one for file in sorted(output.glob("0*.json")) for one in json.loads(file.read_text())]


def remove(file: Path) -> None:
    file.rename(file.with_name(".away"))


def lock(file: Path) -> None:
    """Make it unreadable, also for root."""
    remove(file)
    file.mkdir()


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
@pytest.mark.parametrize("fault", [remove, lock])
@pytest.mark.parametrize("format", FORMATS)
def test_documents_of_a_file_that_vanishes_fail_in_their_place_and_are_read_when_it_is_back(
    pipeline: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    fault: Callable[[Path], None],
    suffix: str,
) -> None:
    from spacy_slmre.extraction import shards

    (tmp_path / "in").mkdir()
    for number in range(3):
        write_input(tmp_path / "in" / f"{number}.{format}", [f"{TEXTS[0]} {number}.{n}" for n in range(3)])
    size = 1 if format == "txt" else 3
    file = tmp_path / "in" / f"1.{format}"
    args = (pipeline, tmp_path / "in", "--shard-size", 2, "-o")
    assert run(*args, tmp_path / f"whole{suffix}").exit_code == 0
    find = shards.find_shards

    def damage(*args: Any) -> Iterator:
        yield from find(*args)
        fault(file)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "find_shards", damage)
        result = run(*args, tmp_path / f"out{suffix}")
    assert result.exit_code == 1 and f"{size} documents failed" in result.output
    whole, found = entries(tmp_path / f"whole{suffix}"), entries(tmp_path / f"out{suffix}")
    assert len(whole) == len(found) == 3 * size
    for number, (one, other) in enumerate(zip(found, whole, strict=True)):
        if number // size == 1:
            assert file.name in one["id"] and f"1.{format}" in one["error"]
        else:
            assert one["id"] == other["id"] and one.get("text") == other.get("text") and "error" not in one
    if fault is lock:
        file.rmdir()
    file.with_name(".away").rename(file)
    assert run(*args, tmp_path / f"out{suffix}", "-F").exit_code == 0
    assert entries(tmp_path / f"out{suffix}") == whole


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_vanishes_beside_standard_input_is_one_failed_document(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    from spacy_slmre.extraction import run as run_module

    write_input(file := tmp_path / f"1.{format}", TEXTS[:3])
    prepare = run_module._finish_shards

    def damage(*args: Any) -> Any:
        remove(file)
        return prepare(*args)

    monkeypatch.setattr(run_module, "_finish_shards", damage)
    stdin = json.dumps({"id": "a", "text": TEXTS[0]}).encode()
    result = run(pipeline, file, "-", "-o", tmp_path / "out.jsonl", stdin=stdin)
    assert result.exit_code == 1 and "1 documents failed" in result.output
    first, second = lines(tmp_path / "out.jsonl")
    assert first["id"] == str(file) and "No such file" in first["error"] and second["text"] == TEXTS[0]


def test_documents_added_to_a_file_during_the_run_are_not_read(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacy_slmre.extraction import shards

    for name in "ab":
        write_input(tmp_path / f"{name}.jsonl", [f"{name}{number}" for number in range(3)])
    find = shards.find_shards

    def append(*args: Any) -> Iterator:
        yield from find(*args)
        with (tmp_path / "a.jsonl").open("a") as file:
            file.write('\n{"text": "new"}')

    monkeypatch.setattr(shards, "find_shards", append)
    sources = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert run(pipeline, *sources, "-o", tmp_path / "out.jsonl", "--shard-size", 2).exit_code == 0
    assert [one["text"] for one in lines(tmp_path / "out.jsonl")] == ["a0", "a1", "a2", "b0", "b1", "b2"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_file_name_that_is_not_utf8_is_escaped(pipeline: str, texts: Path, tmp_path: Path, suffix: str) -> None:
    os.rename(texts / "2.txt", os.fsencode(texts) + b"/2\xff.txt")
    assert run(pipeline, texts, "-o", tmp_path / f"out{suffix}", "--table").exit_code == 0
    [*documents] = read_documents([str(tmp_path / f"out{suffix}")], io.BytesIO())
    assert sorted(Path(document.id).name for document in documents)[2] == "2\\xff.txt"


def test_folders_are_read_completely_or_what_is_skipped_is_counted(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.TXT").write_text("a")
    (texts / "link").symlink_to(tmp_path / "elsewhere")
    (texts / "loop").symlink_to(texts)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    with gzip.open(texts / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": TEXTS[0]}))
    (texts / "gone.txt").symlink_to("nowhere")
    (texts / ".hidden.txt").touch()
    (texts / ".cache").mkdir()
    (texts / ".cache" / "x.txt").touch()
    for name in ("a.pdf", "b.PDF", "README"):
        (texts / name).touch()
    messages: list[str] = []
    found = find_inputs([str(texts)], log=messages.append)
    names = [(Path(path).name, format) for path, format in found]
    plain = [(f"{n}.txt", "txt") for n in range(len(TEXTS))]
    assert sorted(names) == sorted([*plain, ("a.TXT", "txt"), ("b.jsonl.gz", "jsonl")])
    assert messages == [f"Skipped in {texts}: 1 broken link, 1 other file, 2 .pdf files."]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root can read everything")
def test_unreadable_folder_is_counted(texts: Path) -> None:
    (texts / "secret").mkdir(mode=0)
    messages: list[str] = []
    find_inputs([str(texts)], log=messages.append)
    assert messages == [f"Skipped in {texts}: 1 unreadable folder."]


@pytest.mark.parametrize("find", [corpus_files, lambda folder: source_files(folder, ".spacy")])
def test_corpora_follow_links_and_skip_hidden_files(find: Callable, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("elsewhere/b.SPACY", "elsewhere/.b.spacy", "corpus/c.spacy"):
        DocBin().to_disk(tmp_path / name)
    assert [file.name for file in find(tmp_path / "corpus")] == ["c.spacy", "b.SPACY"]


def test_reports_follow_links(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere" / "one")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    runs, _ = find_runs([tmp_path / "runs"])
    assert len(runs) == 1


@pytest.mark.parametrize("size", [2, 256])
def test_compressed_lines_are_split_like_others(pipeline: str, tmp_path: Path, size: int) -> None:
    data = "\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(TEXTS)).encode()
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert (
            run(pipeline, tmp_path / name, "-o", tmp_path / f"out-{name[0]}.jsonl", "--shard-size", size).exit_code == 0
        )
    assert (tmp_path / "out-a.jsonl").read_bytes() == (tmp_path / "out-b.jsonl").read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data)[:-20])
    torn = run(pipeline, tmp_path / "b.jsonl.gz", "-o", tmp_path / "torn.jsonl")
    assert torn.exit_code == 1 and "b.jsonl.gz cannot be read" in torn.output
