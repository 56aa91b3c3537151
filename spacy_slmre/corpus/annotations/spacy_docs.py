"""The format "spacy": `.spacy` files with our relations or the `doc._.rel` of spaCy's tutorial `rel_component`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.annotations.json_form import record_of
from spacy_slmre.corpus.docbin import corpus_files, read_docs
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.documents import DocumentError, RelationDocument
from spacy_slmre.gold import annotates_pairs, annotates_relations
from spacy_slmre.relations import RELATIONS, Relation, install_extensions, make_record, write_records

# How spaCy stores the extension attribute `doc._.rel`.
_REL: Any = ("._.", "rel", None, None)


def read_spacy(
    source: str | Path, split: str, *, attr: str = RELATIONS, threshold: float = 0.5
) -> Iterator[Record | Reject]:
    """Read documents with relations in `doc._.<attr>`, `doc._.relation_pairs` or `doc._.rel`.

    Args:
        source: A .spacy file, or a folder of .spacy files.
        split: The split, used in the identifiers of documents without one.
        attr: The attribute with relations.
        threshold: Minimum score of relations in `doc._.rel`.
    """
    install_extensions(attr)
    number = 0
    for file in corpus_files(source):
        for line, doc in enumerate(read_docs(file, spacy.blank("xx").vocab), 1):
            name = f"{split}-{number}"
            number += 1
            rel = doc.user_data.get(_REL)
            if not doc.text.strip():
                yield Reject(line, name, "malformed record", "the document is empty", str(file))
                continue
            if isinstance(rel, Mapping):
                for pair, detail in _use_rel(doc, rel, threshold, attr):
                    yield Reject(line, name, "relation of a missing entity", f"{pair}: {detail}", str(file))
            elif not annotates_relations(doc.user_data, attr) and not annotates_pairs(doc.user_data):
                detail = f"neither doc._.{attr} nor doc._.rel is set"
                yield Reject(line, name, "document without relation annotation", detail, str(file))
                continue
            yield record_of(RelationDocument.from_doc(doc, name, attr), line)


def from_rel(doc: Doc, rel: Mapping[tuple[int, int], Mapping[str, float]], threshold: float = 0.5) -> list[Relation]:
    """Convert relations of spaCy's tutorial to ours, which can be assigned to `doc._.relations`.

    Labels with a score below `threshold` are skipped. Raises DocumentError if no entity begins at a token.
    """
    starts = {ent.start: ent for ent in doc.ents}
    relations = []
    for pair, scores in rel.items():
        for label, score in scores.items():
            if score < threshold:
                continue
            if not all(start in starts for start in pair):
                raise DocumentError(f"doc._.rel has the pair {pair}, but no entity begins at one of these tokens.")
            relations.append(Relation(starts[pair[0]], starts[pair[1]], label, float(score)))
    return relations


def _use_rel(doc: Doc, rel: Mapping, threshold: float, attr: str) -> Iterator[tuple[object, str]]:
    """Store `doc._.rel` as our relations; yield the pairs that cannot be converted, with the reason."""
    relations: list[Relation] = []
    for pair, scores in rel.items():
        try:
            relations += from_rel(doc, {pair: scores}, threshold)
        except DocumentError as error:
            yield pair, str(error)
    write_records(doc, [make_record(doc, relation) for relation in relations], attr)


SPACY = CorpusFormat(
    name="spacy", title="spaCy", read=read_spacy, recognize=lambda sample: sample.file(".spacy") is not None
)
