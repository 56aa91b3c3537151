from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.documents import name_source
from spacy_slmre.export import Argument, ExportError, RelationDocument, as_documents, read_documents
from spacy_slmre.extraction.running import Result
from spacy_slmre.extraction.writers import ShardWriter, to_json
from spacy_slmre.relations import install_extensions

TEXT = "Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw."


@pytest.fixture
def doc(blank: Callable[[], Language]) -> Doc:
    install_extensions()
    doc = blank()(TEXT)
    ann, rome, bo, mill, _ = doc.ents
    doc.set_ents([Span(doc, rome.start, rome.end, "GPE", kb_id="Q220")], default="unmodified")
    rome = doc.ents[1]
    doc._.relations = [(ann, rome, "born in", 0.9), (bo, mill, "works for", 0.8), (ann, bo, "sibling", 0.7)]
    name_source(doc, "first", "en_blank 1.0 slm_relations")
    return doc


def test_doc_line_and_shard_tell_the_same(doc: Doc, tmp_path: Path) -> None:
    doc._.relations_report  # noqa: B018  (there is none: nothing needs it)
    expected = RelationDocument.from_doc(doc)
    assert expected.relations[0].tail == Argument(20, 24, "Rome", "GPE", "Q220")
    assert expected.bounds == ((0, 25), (26, 74)) and expected.model == "en_blank 1.0 slm_relations"
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "a.spacy")
    line = json.dumps(to_json(Result("first", doc))).encode()
    (tmp_path / "a.jsonl").write_bytes(line + b"\n\n")
    for source in ("a.spacy", "a.jsonl"):
        assert list(read_documents([str(tmp_path / source)], io.BytesIO())) == [expected]
    assert list(read_documents(["-"], io.BytesIO(line))) == [expected]


def test_relation_across_sentences_has_both(doc: Doc) -> None:
    document = RelationDocument.from_doc(doc)
    assert [document.sentence_of(one) for one in document.relations] == [(0, 25), (26, 74), (0, 74)]


def test_sentences_are_found_where_they_are_not_known(doc: Doc) -> None:
    line = to_json(Result("first", doc))
    del line["sentences"]
    assert RelationDocument.from_json(line, "x:1").sentences == ((0, 25), (26, 74))


def test_same_ids_become_different(doc: Doc) -> None:
    assert [one.id for one in as_documents([doc, doc, doc])] == ["first", "first~2", "first~3"]


def test_failed_documents_are_told() -> None:
    (found,) = read_documents(["-"], io.BytesIO(b'{"id": "b", "error": "too long"}'))
    assert (found.id, found.error, found.relations) == ("b", "too long", ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": None}, 'no document with a "text"'),
        ({"relations": [{"head": {"start": 0, "end": 3}, "label": "x"}]}, "'tail' is missing"),
        ({"entities": [{"start": 0, "end": 999}]}, "from 0 to 999 in a text of 7 characters"),
        ({"entities": [{"start": 0, "end": 3, "text": "Bob"}]}, 'the text has "Ann" from 0 to 3'),
        ({"relations": 3}, "x.jsonl:1"),
        ({"sentences": [[0, 99]]}, "a sentence from 0 to 99 in a text of 7 characters"),
        ({"sentences": [[3, 3]]}, "a sentence from 3 to 3"),
    ],
)
def test_other_lines_are_refused_with_their_place(change: dict, says: str, tmp_path: Path) -> None:
    line = {"id": "a", "text": "Ann Lee", "entities": [], "relations": []} | change
    (tmp_path / "x.jsonl").write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(ExportError, match=r"x\.jsonl:1") as caught:
        list(read_documents([str(tmp_path / "x.jsonl")], io.BytesIO()))
    assert says in str(caught.value)


def test_half_surrogates_become_replacement_characters() -> None:
    (found,) = read_documents(["-"], io.BytesIO(b'{"id": "a", "text": "x \\ud800", "relations": []}'))
    assert found.text == "x \ufffd"


def test_what_no_linker_could_identify_has_no_id(doc: Doc) -> None:
    rome = doc.ents[1]
    doc.set_ents([Span(doc, rome.start, rome.end, "GPE", kb_id="NIL")], default="unmodified")
    doc._.relations = [(doc.ents[0], doc.ents[1], "born in", 0.9)]
    line = to_json(Result("first", doc))
    for found in (RelationDocument.from_doc(doc), RelationDocument.from_json(line, "x:1")):
        assert {one.kb_id for one in (*found.entities, found.relations[0].tail)} == {""}


def test_half_surrogates_of_failed_documents_become_replacement_characters() -> None:
    (found,) = read_documents(["-"], io.BytesIO(b'{"id": "a\\ud800", "error": "b\\udfff"}'))
    assert (found.id, found.error) == ("a\ufffd", "b\ufffd")


def test_entities_and_sentences_are_sorted(doc: Doc) -> None:
    line = to_json(Result("first", doc))
    expected = RelationDocument.from_json(line, "x:1")
    line |= {"entities": line["entities"][::-1], "sentences": line["sentences"][::-1]}
    assert RelationDocument.from_json(line, "x:1") == expected


def test_failed_documents_beside_shards_are_told(doc: Doc, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "out.spacy")
    writer.write(Result("first", doc))
    writer.write(Result("second", None, "not UTF-8"))
    writer.finish()
    found = list(read_documents([str(tmp_path / "out.spacy")], io.BytesIO()))
    assert [(one.id, one.error) for one in found] == [("first", None), ("second", "not UTF-8")]


def test_arguments_have_the_id_of_their_entity_and_wikidata_iris_are_numbers(doc: Doc) -> None:
    line = to_json(Result("first", doc))
    line["entities"][1]["kb_id"] = "http://www.wikidata.org/entity/Q220"
    del line["relations"][0]["tail"]["kb_id"]
    assert RelationDocument.from_json(line, "x:1") == RelationDocument.from_doc(doc)
