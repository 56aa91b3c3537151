"""The format "spacy": `.spacy` files with our relations or the `doc._.rel` of spaCy's tutorial `rel_component`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.annotations.json_form import record_of
from spacy_slmre.corpus.docbin import corpus_files, read_docs, read_user_data
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.documents import ID, DocumentError, RelationDocument
from spacy_slmre.gold import annotates_pairs, annotates_relations
from spacy_slmre.relations import (
    PAIRS,
    RELATIONS,
    Relation,
    install_extensions,
    make_record,
    read_records,
    user_data_key,
    write_records,
)

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
            name = str(doc.user_data.get(ID) or f"{split}-{number}")
            number += 1
            rel = doc.user_data.get(_REL)
            rejects: list[Reject] = []
            if not doc.text.strip():
                yield Reject(line, name, "malformed record", "the document is empty", str(file))
                continue
            if isinstance(rel, Mapping):
                rejects += [Reject(line, name, *reason, str(file)) for reason in _use_rel(doc, rel, threshold, attr)]
            elif not annotates_relations(doc.user_data, attr) and not annotates_pairs(doc.user_data):
                detail = f"neither doc._.{attr} nor doc._.rel is set"
                yield Reject(line, name, "document without relation annotation", detail, str(file))
                continue
            with warnings.catch_warnings():
                # Skipped records are counted instead.
                warnings.filterwarnings("ignore", message=r"\d+ of \d+ relation records were skipped")
                try:
                    document = RelationDocument.from_doc(doc, name, attr)
                except ValueError as error:
                    yield Reject(line, name, "malformed record", str(error), str(file))
                    continue
                found, key = (document.relations, attr) if document.pairs is None else (document.pairs, PAIRS)
                lost = _unmatched(doc, key) if len(found) < len(doc.user_data[user_data_key(key)]) else []
            rejects += [Reject(line, name, "relation that does not match the text", one, str(file)) for one in lost]
            yield from rejects
            if rejects and not found:
                detail = "all relations of the document were rejected"
                yield Reject(line, name, "no relation left", detail, str(file))
                continue
            yield record_of(document, line)


def has_only_rel(path: Path) -> bool:
    """Return whether documents have relations in `doc._.rel`, and none in our attributes."""
    found = False
    for data in read_user_data(path):
        if annotates_relations(data) or annotates_pairs(data):
            return False
        found |= isinstance(data.get(_REL), Mapping)
    return found


def from_rel(doc: Doc, rel: Mapping[tuple[int, int], Mapping[str, float]], threshold: float = 0.5) -> list[Relation]:
    """Convert relations of spaCy's tutorial to ours, which can be assigned to `doc._.relations`.

    Labels with a score below `threshold` are skipped. Raises DocumentError if no entity begins at a token, or if there
    are no pairs of tokens or no scores of labels.
    """
    starts = {ent.start: ent for ent in doc.ents}
    relations = []
    for pair, scores in rel.items():
        if not _is_valid(pair, scores):
            raise DocumentError(f"doc._.rel has {pair!r}: {scores!r}, not a pair of tokens with the scores of labels.")
        for label, score in scores.items():
            if score < threshold:
                continue
            if not all(start in starts for start in pair):
                raise DocumentError(f"doc._.rel has the pair {pair}, but no entity begins at one of these tokens.")
            relations.append(Relation(starts[pair[0]], starts[pair[1]], label, float(score)))
    return relations


def _is_valid(pair: Any, scores: Any) -> bool:
    try:
        labeled = scores.items()
        return len(pair) == 2 and all(isinstance(label, str) and label and isfinite(score) for label, score in labeled)
    except (TypeError, AttributeError):
        return False


def _unmatched(doc: Doc, attr: str) -> list[str]:
    """Return descriptions of the stored relations that do not match the text or the tokens."""
    records = [record for record in doc.user_data[user_data_key(attr)] if not read_records(doc, [record])]
    return [f"{one['head']['text']!r} – {one['label']} – {one['tail']['text']!r}" for one in records]


def _use_rel(doc: Doc, rel: Mapping, threshold: float, attr: str) -> Iterator[tuple[str, str]]:
    """Store `doc._.rel` as our relations; yield reason and details of the pairs that cannot be converted."""
    relations: list[Relation] = []
    for pair, scores in rel.items():
        try:
            relations += from_rel(doc, {pair: scores}, threshold)
        except DocumentError as error:
            reason = "relation of a missing entity" if _is_valid(pair, scores) else "malformed relation"
            yield reason, f"{pair}: {error}"
    write_records(doc, [make_record(doc, relation) for relation in relations], attr)


SPACY = CorpusFormat(
    name="spacy", title="spaCy", read=read_spacy, recognize=lambda sample: sample.file(".spacy") is not None
)
