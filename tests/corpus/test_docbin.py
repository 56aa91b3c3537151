from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from spacy.tokens import Doc, DocBin

from spacy_slmre.corpus.docbin import ShardWriter, corpus_files, read_docs, read_user_data
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.util.io import atomic_write


def make_docs(nlp, count):
    for number in range(count):
        doc = nlp.make_doc(f"Document {number} is here.")
        doc.user_data["slmre.id"] = str(number)
        yield doc


def write(path, docs, shard_size=10):
    with ShardWriter(path, shard_size) as writer:
        full = [writer.add(doc) for doc in docs]
    return writer, full


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_few_documents_are_one_file(nlp, tmp_path):
    writer, full = write(tmp_path / "dev.spacy", make_docs(nlp, 9))
    assert (tmp_path / "dev.spacy").is_file() and names(tmp_path) == ["dev.spacy"]
    assert writer.shards == [tmp_path / "dev.spacy"] and not any(full)
    # Files are those of spaCy: it reads them without us.
    docs = list(DocBin().from_disk(tmp_path / "dev.spacy").get_docs(nlp.vocab))
    assert docs[8].text == "Document 8 is here." and docs[8].user_data["slmre.id"] == "8"


def test_many_documents_are_a_folder_of_files(nlp, tmp_path):
    writer, full = write(tmp_path / "dev.spacy", make_docs(nlp, 25))
    assert names(tmp_path) == ["dev.spacy"]
    assert names(tmp_path / "dev.spacy") == ["00000.spacy", "00001.spacy", "00002.spacy"]
    assert full.count(True) == 2 and len(writer.shards) == 3
    texts = [doc.text for doc in read_docs(tmp_path / "dev.spacy", nlp.vocab)]
    assert texts == [doc.text for doc in make_docs(nlp, 25)]
    assert [data["slmre.id"] for data in read_user_data(tmp_path / "dev.spacy")] == [
        str(n) for n in range(25)
    ]


@pytest.mark.parametrize(("first", "second"), [(5, 25), (25, 5), (25, 25), (5, 5)])
def test_a_corpus_is_replaced(nlp, tmp_path, first, second):
    path = tmp_path / "dev.spacy"
    write(path, make_docs(nlp, first))
    write(path, make_docs(nlp, second))
    assert names(tmp_path) == ["dev.spacy"]
    assert len(list(read_docs(path, nlp.vocab))) == second


@pytest.mark.parametrize("before", [0, 5, 25])
def test_an_error_leaves_what_was_there(nlp, tmp_path, before):
    path = tmp_path / "dev.spacy"
    if before:
        write(path, make_docs(nlp, before))
    found = names(tmp_path)
    with pytest.raises(RuntimeError), ShardWriter(path, 10) as writer:
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


def test_other_folders_and_names_are_left_alone(nlp, tmp_path):
    with pytest.raises(CorpusError, match=r"must end in \.spacy"):
        ShardWriter(tmp_path / "dev.json")
    (tmp_path / "mine.spacy").mkdir()
    (tmp_path / "mine.spacy" / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match="will not be replaced"):
        ShardWriter(tmp_path / "mine.spacy")
    assert (tmp_path / "mine.spacy" / "notes.txt").exists()


def test_what_is_no_corpus_says_so(nlp, tmp_path):
    with pytest.raises(CorpusError, match="There is no corpus at"):
        corpus_files(tmp_path / "gone.spacy")
    with pytest.raises(CorpusError, match="There is no corpus at"):
        corpus_files(tmp_path)
    (tmp_path / "bad.spacy").write_bytes(b"not a corpus")
    with pytest.raises(CorpusError, match=r"bad\.spacy is no \.spacy file, or it is damaged"):
        list(read_docs(tmp_path / "bad.spacy", nlp.vocab))


def test_a_folder_of_corpora_is_read_whole(nlp, tmp_path):
    write(tmp_path / "a.spacy", make_docs(nlp, 5))
    write(tmp_path / "b.spacy", make_docs(nlp, 25))
    shutil.copytree(tmp_path / "b.spacy", tmp_path / ".b.spacy.half")
    assert len(corpus_files(tmp_path)) == 4 and len(list(read_docs(tmp_path, nlp.vocab))) == 30


def test_user_data_without_annotation(nlp, tmp_path):
    write(tmp_path / "a.spacy", [Doc(nlp.vocab, words=["a"])])
    assert list(read_user_data(tmp_path / "a.spacy")) == [{}]


def test_text_is_written_aside(tmp_path, monkeypatch):
    atomic_write(tmp_path / "new" / "a.json", "first")

    def fail(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "new" / "a.json", "second")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"first" and names(tmp_path / "new") == ["a.json"]
