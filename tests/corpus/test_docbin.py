from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from spacy.tokens import Doc, DocBin

from spacy_slmre.corpus.docbin import DocBinWriter, corpus_files, read_docs, read_user_data
from spacy_slmre.corpus.sources import CorpusError


def make_docs(nlp, count):
    for number in range(count):
        doc = nlp.make_doc(f"Document {number} is here.")
        doc.user_data["slmre.id"] = str(number)
        yield doc


def write(path, docs, shard_size=10):
    with DocBinWriter(path, shard_size) as writer:
        return [writer.add(doc) for doc in docs]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_few_documents_are_one_file(nlp, tmp_path):
    full = write(tmp_path / "dev.spacy", make_docs(nlp, 9))
    assert (tmp_path / "dev.spacy").is_file() and names(tmp_path) == ["dev.spacy"]
    assert not any(full)
    # spaCy reads the files without this package.
    docs = list(DocBin().from_disk(tmp_path / "dev.spacy").get_docs(nlp.vocab))
    assert docs[8].text == "Document 8 is here." and docs[8].user_data["slmre.id"] == "8"


def test_many_documents_are_a_folder_of_files(nlp, tmp_path):
    full = write(tmp_path / "dev.spacy", make_docs(nlp, 25))
    assert names(tmp_path) == ["dev.spacy"]
    assert names(tmp_path / "dev.spacy") == ["00000.spacy", "00001.spacy", "00002.spacy"]
    assert [number for number, is_full in enumerate(full) if is_full] == [9, 19]
    texts = [doc.text for doc in read_docs(tmp_path / "dev.spacy", nlp.vocab)]
    assert texts == [doc.text for doc in make_docs(nlp, 25)]
    assert [data["slmre.id"] for data in read_user_data(tmp_path / "dev.spacy")] == [str(n) for n in range(25)]


@pytest.mark.parametrize(("first", "second"), [(5, 25), (25, 5), (25, 25), (5, 5)])
def test_a_corpus_is_replaced(nlp, tmp_path, first, second):
    path = tmp_path / "dev.spacy"
    write(path, make_docs(nlp, first))
    write(path, make_docs(nlp, second))
    assert names(tmp_path) == ["dev.spacy"]
    assert len(list(read_docs(path, nlp.vocab))) == second


@pytest.mark.parametrize("before", [0, 5, 25])
def test_an_error_keeps_an_existing_corpus(nlp, tmp_path, before):
    path = tmp_path / "dev.spacy"
    if before:
        write(path, make_docs(nlp, before))
    found = names(tmp_path)
    with pytest.raises(RuntimeError), DocBinWriter(path, 10) as writer:
        for doc in make_docs(nlp, 15):
            writer.add(doc)
        raise RuntimeError
    assert names(tmp_path) == found


def test_a_full_disk_leaves_nothing(nlp, tmp_path, monkeypatch):
    def fail(self, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DocBin, "to_disk", fail)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "dev.spacy", make_docs(nlp, 15))
    assert names(tmp_path) == []


def test_folders_with_other_files_are_not_replaced(nlp, tmp_path):
    with pytest.raises(CorpusError, match=r"must end in \.spacy"):
        DocBinWriter(tmp_path / "dev.json")
    (tmp_path / "mine.spacy").mkdir()
    (tmp_path / "mine.spacy" / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match="will not be replaced"):
        DocBinWriter(tmp_path / "mine.spacy")
    assert (tmp_path / "mine.spacy" / "notes.txt").exists()


def test_missing_and_damaged_corpora_are_errors(nlp, tmp_path):
    with pytest.raises(CorpusError, match="There is no corpus at"):
        corpus_files(tmp_path / "gone.spacy")
    with pytest.raises(CorpusError, match="There is no corpus at"):
        corpus_files(tmp_path)
    (tmp_path / "bad.spacy").write_bytes(b"not a corpus")
    with pytest.raises(CorpusError, match=r"bad\.spacy is not a \.spacy file, or is damaged"):
        list(read_docs(tmp_path / "bad.spacy", nlp.vocab))


def test_a_folder_of_corpora_is_read_without_hidden_files(nlp, tmp_path):
    write(tmp_path / "a.spacy", make_docs(nlp, 5))
    write(tmp_path / "b.spacy", make_docs(nlp, 25))
    shutil.copytree(tmp_path / "b.spacy", tmp_path / ".b.spacy.half")
    assert len(corpus_files(tmp_path)) == 4 and len(list(read_docs(tmp_path, nlp.vocab))) == 30


def test_user_data_of_documents_without_annotation_are_empty(nlp, tmp_path):
    write(tmp_path / "a.spacy", [Doc(nlp.vocab, words=["a"])])
    assert list(read_user_data(tmp_path / "a.spacy")) == [{}]
