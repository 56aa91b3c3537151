"""Gold documents: creation from records, provenance, and held-out documents."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.coreference import CLUSTERS
from spacy_slmre.corpus.formats import CorpusFormat, get_format
from spacy_slmre.corpus.records import Pair, Record, Reject
from spacy_slmre.documents import ID, MODEL, EntityMention, doc_with_mentions
from spacy_slmre.gold import annotates_pairs
from spacy_slmre.instances import Mention
from spacy_slmre.relations import PAIRS, RELATIONS, write_label_properties
from spacy_slmre.schema import NEGATIVE_LABEL

T = TypeVar("T", bound=Mention | EntityMention)

# Keys in `doc.user_data` for the provenance of a document. The format determines the schema of its pairs; it is not
# recorded if it has none, as those of annotation tools.
FORMAT = "slmre.format"
SPLIT = "slmre.split"
SPLITS = ("train", "dev", "test")
PROVENANCE = (FORMAT, SPLIT, ID)
MEANS_NO_RELATION = "label that means no relation"
"""Reason of rejects that lose nothing, since their pairs are negative anyway."""


def make_doc(nlp: Language, record: Record, format: CorpusFormat, split: str) -> tuple[Doc, list[Reject]]:
    """Create a gold document from a record, and rejects for invalid pairs.

    Args:
        nlp: Tokenizes records without tokens.
        record: The record.
        format: The format that defines the labels of the pairs.
        split: The split that the record belongs to.

    Returns:
        The document with entities, `doc._.relation_pairs` (all pairs, unless the record is complete),
        `doc._.relations` (distinct positive pairs), all mentions and clusters in `doc.spans`, and its provenance in
        `doc.user_data`; and the rejects.
    """
    text = record.text
    pairs: list[Pair] = []
    unrelated: list[Mention] = []
    rejects: list[Reject] = []
    for pair in record.pairs:
        label = format.resolve(pair.label)
        head, tail = _strip(text, pair.head), _strip(text, pair.tail)
        if label is None:
            detail = f"{pair.label!r} is not a label of {format.name}"
            rejects.append(Reject(record.line, record.id, "unknown label", detail))
        elif record.complete and format.is_negative(label):
            detail = f"{pair.label!r}: in this source, every pair without another label has no relation"
            rejects.append(Reject(record.line, record.id, MEANS_NO_RELATION, detail))
            unrelated += [side for side in (head, tail) if side is not None]
        elif head is None or tail is None:
            invalid = pair.head if head is None else pair.tail
            inside = 0 <= invalid.start <= invalid.end <= len(text)
            reason = "empty argument" if inside else "argument out of bounds"
            detail = f"[{invalid.start}:{invalid.end}] in a text of {len(text)} characters"
            rejects.append(Reject(record.line, record.id, reason, detail))
        else:
            # Without a schema, every label that usually means "no relation" does, and is the same label.
            is_unrelated = format.schema is None and format.is_negative(label)
            pairs.append(Pair(head, tail, NEGATIVE_LABEL if is_unrelated else label))

    # Entities come last, since they have a knowledge base id, which the arguments of pairs lack.
    mentions: list[Mention | EntityMention] = [mention for pair in pairs for mention in (pair.head, pair.tail)]
    mentions += unrelated
    mentions += [stripped for mention in record.mentions if (stripped := _strip(text, mention))]
    doc, spans = doc_with_mentions(nlp, text, mentions, record.words, record.sentences)
    for number, cluster in enumerate(record.clusters, 1):
        members = (doc.char_span(one.start, one.end, one.type, alignment_mode="expand") for one in cluster)
        doc.spans[f"{CLUSTERS}_{number}"] = [span for span in members if span is not None]
    annotated = [(spans[_key(pair.head)], spans[_key(pair.tail)], pair.label) for pair in pairs]
    if not record.complete:
        setattr(doc._, PAIRS, annotated)
    positives = dict.fromkeys(item for item in annotated if not format.is_negative(item[2]))
    setattr(doc._, RELATIONS, list(positives))
    doc.user_data |= {SPLIT: split, ID: record.id}
    if record.predicted_by:
        doc.user_data[MODEL] = record.predicted_by
    if format.schema is not None:
        doc.user_data[FORMAT] = format.name
        write_label_properties(doc, format.schema.inverse_of, format.schema.iris)
    else:
        write_label_properties(doc, record.inverse_of, record.iris)
    return doc, rejects


def warn_if_predicted(source: str | Path, doc: Doc, warn: Callable[[str], None] = warnings.warn) -> bool:
    """Warn if the relations of a document are what `slmre extract` wrote; return whether they are.

    `slmre review` annotates pairs, so reviewed predictions are annotations.
    """
    model = doc.user_data.get(MODEL)
    if not model or annotates_pairs(doc.user_data):
        return False
    warn(
        f"{source}: the relations were predicted by {model} and not annotated, so they include its errors. Correct "
        "them with `python -m spacy slmre review` before you train or evaluate with them."
    )
    return True


def warn_of_predictions(source: str | Path, docs: Iterable[Doc], warn: Callable[[str], None]) -> Iterator[Doc]:
    """Yield gold documents, with one warning if there are predictions among them; see `warn_if_predicted`."""
    warned = False
    for doc in docs:
        warned = warned or warn_if_predicted(source, doc, warn)
        yield doc


def holdout_positions(docs: Iterable[Doc], seed: int = 0) -> Iterator[tuple[Doc, float]]:
    """Yield gold documents with a random position from 0 to 1 each: those below the share to hold out are held out.

    A larger share thus holds out the same documents and more. Documents from the same source (see `source_of`) or with
    the same text, ignoring white space, have the same position, which depends on the seed and on the first of them. If
    one has its source in common with an earlier document and its text with another, the text counts.

    Args:
        docs: The documents, in the same order in every pass.
        seed: Random seed.
    """
    positions: dict[bytes, float] = {}
    for doc in docs:
        source = source_of(doc)
        keys = [_digest(f"text/{' '.join(doc.text.split())}"), _digest(f"source/{source}")]
        known = (positions[key] for key in keys if key in positions)
        position = next(known, int.from_bytes(_digest(f"{seed}/{source}", 6)) / 2**48)
        for key in keys:
            positions.setdefault(key, position)
        yield doc, position


def holdout_share(placed: Sequence[tuple[Doc, float]], share: float) -> float:
    """Return a share close to the given one that holds out at least one document.

    The number of documents that a share holds out varies, which matters if there are only a few. With the returned
    share, it is the given share of those with different positions, rounded, or more, up to half of them, if otherwise
    none of those held out would have a relation.

    Args:
        placed: The documents with their `holdout_positions`, at least two of which differ.
        share: The wanted share.
    """
    positions = sorted({position for _, position in placed})
    number = min(max(round(share * len(positions)), 1), len(positions) - 1)
    related = {position for doc, position in placed if getattr(doc._, RELATIONS)}
    if len(related) > 1 and (needed := positions.index(min(related)) + 1) <= len(positions) / 2:
        number = max(number, needed)
    least, most = positions[number - 1], positions[number]
    # As few decimals as possible, since it is written to configs.
    rounded = (round((least + most) / 2, digits) for digits in range(2, 17))
    return next(value for value in rounded if least < value <= most)


def _digest(text: str, size: int = 12) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def source_of(doc: Doc) -> str:
    """Return the id (or, without one, the text) of the source document of a gold document.

    If the reader of a benchmark splits documents into sentences, sentence 3 of document "train-12" has the id
    "train-12-3". The ids of annotations that record no format are not changed.
    """
    name = str(doc.user_data.get(ID) or doc.text)
    split = re.escape(doc.user_data[SPLIT]) if SPLIT in doc.user_data else ".+"
    match = re.fullmatch(rf"({split}-\d+)-\d+", name) if FORMAT in doc.user_data else None
    return match[1] if match else name


def format_of(doc: Doc) -> CorpusFormat | None:
    """Return the format that a gold document was converted from, if any."""
    name = doc.user_data.get(FORMAT)
    return get_format(name) if name else None


def negative_label_of(doc: Doc) -> str:
    """Return the label that means "no relation" in a gold document: that of its format, or else "no_relation"."""
    format = format_of(doc)
    schema = format.schema if format is not None else None
    return (schema.negative_label if schema is not None else None) or NEGATIVE_LABEL


def _strip(text: str, mention: T) -> T | None:
    if not 0 <= mention.start < mention.end <= len(text):
        return None
    string = text[mention.start : mention.end]
    start = mention.start + len(string) - len(string.lstrip())
    end = mention.start + len(string.rstrip())
    return replace(mention, start=start, end=end) if start < end else None


def _key(mention: Mention) -> tuple[int, int, str]:
    return mention.start, mention.end, mention.type
