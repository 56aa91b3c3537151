from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.documents import DocumentError, RelationDocument
from spacy_slmre.export import as_documents, read_documents
from spacy_slmre.relations import install_extensions, write_report
from tests.conftest import TEXTS


@pytest.fixture
def document(blank: Callable[[], Language]) -> RelationDocument:
    install_extensions()
    doc = blank()(TEXTS[0])
    doc._.relations = [(doc.ents[0], doc.ents[1], "born in", 0.9)]
    return RelationDocument.from_doc(doc, "first")


def test_json_lines_shard_and_standard_input_give_the_same_document(
    document: RelationDocument, blank: Callable[[], Language], tmp_path: Path
) -> None:
    DocBin(docs=[document.to_doc(blank())], store_user_data=True).to_disk(tmp_path / "a.spacy")
    line = json.dumps(document.to_dict()).encode()
    (tmp_path / "a.jsonl").write_bytes(line + b"\n\n")
    for source in ("a.spacy", "a.jsonl"):
        assert list(read_documents([str(tmp_path / source)], io.BytesIO())) == [document]
    assert list(read_documents(["-"], io.BytesIO(line))) == [document]


def test_repeated_ids_get_a_suffix(document: RelationDocument) -> None:
    assert [one.id for one in as_documents([document] * 3)] == ["first", "first~2", "first~3"]
    with pytest.raises(DocumentError, match="Expected a Doc"):
        list(as_documents(["text"]))  # type: ignore[list-item]


def test_failed_documents_are_read(document: RelationDocument, blank: Callable[[], Language], tmp_path: Path) -> None:
    failed = RelationDocument("second", "", error="not UTF-8")
    line = json.dumps(failed.to_dict()).encode()
    assert list(read_documents(["-"], io.BytesIO(line))) == [failed]
    # As `slmre extract` writes shards: the status file lists all documents.
    (tmp_path / "out.spacy").mkdir()
    shard = tmp_path / "out.spacy" / "00000.spacy"
    DocBin(docs=[document.to_doc(blank())], store_user_data=True).to_disk(shard)
    shard.with_suffix(".json").write_text(json.dumps([{"id": "first"}, failed.to_dict()]), encoding="utf-8")
    (shard.parent / "run.json").write_text("{}", encoding="utf-8")
    assert list(read_documents([str(tmp_path / "out.spacy")], io.BytesIO())) == [document, failed]


def test_a_document_whose_id_is_null_is_named_after_its_place(document: RelationDocument) -> None:
    line = json.dumps({**document.to_dict(), "id": None}).encode()
    assert [one.id for one in read_documents(["-"], io.BytesIO(line + b"\n" + line))] == ["-:1", "-:2"]


def test_relations_in_another_attribute_are_an_error_that_names_it(
    document: RelationDocument, blank: Callable[[], Language], tmp_path: Path
) -> None:
    install_extensions("others")
    doc = document.to_doc(blank())
    doc._.others = doc._.relations
    write_report(doc, {"considered": 2}, "others")
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "a.spacy")
    for attr, expected in (("others", 1), ("othrs", None), ("relations", None)):
        if expected is None:
            with pytest.raises(DocumentError, match=rf'not written to doc._.{attr}, but to .*\. Set attr to "others"'):
                list(read_documents([str(tmp_path / "a.spacy")], io.BytesIO(), attr=attr))
        else:
            (read,) = read_documents([str(tmp_path / "a.spacy")], io.BytesIO(), attr=attr)
            assert len(read.relations) == expected


@pytest.mark.parametrize(("line", "message"), [("{", "invalid JSON"), ("3", "expected a JSON object")])
def test_malformed_lines_raise_an_error_with_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "", "relations": []}\n' + line, encoding="utf-8")
    with pytest.raises(DocumentError, match=rf"x\.jsonl:2: {message}"):
        list(read_documents([str(tmp_path / "x.jsonl")], io.BytesIO()))
