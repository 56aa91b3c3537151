"""Records show in the document that they were made for, and not in a document with another text."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre.relations import join_docs, span_as_doc, write_answers, write_report

# Both sentences have the same words at the same places, up to "saw".
TEXT = "Ann saw Bo here. Ann saw Bo there."


@pytest.fixture
def doc() -> Doc:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp(TEXT)
    doc.ents = [Span(doc, start, start + 1, "PER") for start in (0, 2, 5, 7)]
    first = (doc.ents[0], doc.ents[1], "sibling", 0.5)
    doc._.relations = [first]
    doc._.relation_pairs = [first[:3]]
    doc._.relation_candidates = [first[:2]]
    write_answers(doc, [{"head": [0, 3], "tail": [8, 10], "answer": "sibling", "label": "sibling"}])
    write_report(doc, {"scored": 1})
    return doc


def contents(doc: Doc) -> tuple[int, ...]:
    names = ("relations", "relation_pairs", "relation_candidates", "relation_answers", "relations_report")
    return tuple(len(getattr(doc._, name) or ()) for name in names)


def as_doc(doc: Doc, number: int) -> Doc:
    return list(doc.sents)[number].as_doc(copy_user_data=True)


@pytest.mark.parametrize("number", [0, 1])
def test_a_sentence_as_a_document_does_not_have_the_records_of_the_whole_text(doc: Doc, number: int) -> None:
    part = as_doc(doc, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert contents(part) == (0, 0, 0, 0, 0)
    with pytest.warns(UserWarning, match=r"do not match the text .* use `spacy_slmre\.relations\.span_as_doc`"):
        assert part._.relations == ()
    assert contents(doc) == (1, 1, 1, 1, 1)


def test_parts_with_their_records_and_joined_documents_keep_their_own(doc: Doc) -> None:
    first, second = map(span_as_doc, doc.sents)
    assert contents(first) == (1, 1, 1, 1, 0) and contents(second) == (0, 0, 0, 0, 0)
    joined = join_docs([second, first])
    assert joined._.relations[0].head.start_char == len(second.text) + 1
    assert contents(joined) == (1, 1, 1, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert contents(join_docs([as_doc(doc, 1), as_doc(doc, 1)])) == (0, 0, 0, 0, 0)


def test_a_document_of_the_same_text_has_the_records(doc: Doc) -> None:
    whole = doc[:].as_doc(copy_user_data=True)
    assert contents(whole) == contents(doc)


def in_bytes(doc: Doc) -> Doc:
    return Doc(doc.vocab).from_bytes(doc.to_bytes())


def in_docbin(doc: Doc) -> Doc:
    stored = DocBin(docs=[doc], store_user_data=True).to_bytes()
    return next(iter(DocBin().from_bytes(stored).get_docs(doc.vocab)))


def pickled(doc: Doc) -> Doc:
    return pickle.loads(pickle.dumps(doc))


def copied(doc: Doc) -> Doc:
    return doc.copy()


def merged(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[1:2])
        retokenizer.merge(doc[3:5])
    return doc


def split(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        retokenizer.split(doc[3], ["he", "re"], heads=[doc[2], doc[2]])
    return doc


@pytest.mark.parametrize("store", [in_bytes, in_docbin, pickled, copied, merged, split])
def test_records_survive(doc: Doc, store: Callable[[Doc], Doc]) -> None:
    before = [str(relation) for relation in doc._.relations]
    stored = store(doc)
    assert contents(stored) == (1, 1, 1, 1, 1)
    assert [str(relation) for relation in stored._.relations] == before
    assert stored._.relations_report == {"scored": 1}
    assert stored._.relation_answers == doc._.relation_answers


def test_records_without_an_identity_are_read(doc: Doc) -> None:
    for records in doc.user_data.values():
        for record in records if isinstance(records, list) else [records]:
            del record["text_id"]
    assert contents(doc) == (1, 1, 1, 1, 1)


@pytest.mark.slow
def test_records_survive_worker_processes(pipeline: str) -> None:
    nlp = spacy.load(pipeline)
    texts = ["Ann Lee was born in Rome.", "Marie Curie married Pierre Curie."] * 2
    single = [[str(relation) for relation in doc._.relations] for doc in nlp.pipe(texts)]
    workers = [[str(relation) for relation in doc._.relations] for doc in nlp.pipe(texts, n_process=2)]
    assert single == workers and all(single)
