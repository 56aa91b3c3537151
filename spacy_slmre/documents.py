"""Documents with their relations, as exports and pictures read them: from Docs, JSONL and `.spacy` files."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import spacy
from spacy.language import Language
from spacy.pipeline import EntityLinker
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from spacy_slmre.corpus.docbin import corpus_files, read_docs
from spacy_slmre.corpus.gold_docs import ID
from spacy_slmre.relations import RELATIONS, relations_of, span_as_doc

MODEL = "slmre.model"
"""Key of `doc.user_data` under which the name of the pipeline lies that found the relations."""
DEFAULT_BASE = "urn:slmre:"
"""What the IRIs of RDF begin with where no base is given."""

# Half of a surrogate pair: JSON can carry it, but no text file can.
_SURROGATE = re.compile("[\ud800-\udfff]")

# RDF writes Wikidata's numbers as such IRIs: both are the same entity.
_WIKIDATA = re.compile(r"https?://www\.wikidata\.org/(?:entity|wiki)/(Q[1-9]\d*)")


class ExportError(ValueError):
    """Relations cannot be read, written or shown; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An entity in its text.

    Attributes:
        start: Offset of its first character.
        end: Offset after its last character.
        text: Its words.
        type: Its entity type, or "".
        kb_id: What an entity linker identified it as, or "".
    """

    start: int
    end: int
    text: str
    type: str = ""
    kb_id: str = ""


@dataclass(frozen=True, slots=True)
class FoundRelation:
    """A relation of a document, without spaCy objects."""

    head: Argument
    tail: Argument
    label: str
    score: float = 1.0


@dataclass(frozen=True)
class RelationDocument:
    """A text with its entities and relations.

    Attributes:
        id: Names the document.
        text: The text; all offsets count its characters.
        entities: Its entities, in text order.
        relations: Its relations, in the order of their source (best first).
        bounds: Start and end of each sentence, where they are known.
        model: What found the relations, or "".
        error: Why there is no text: the document failed in extraction.
    """

    id: str
    text: str
    entities: tuple[Argument, ...] = ()
    relations: tuple[FoundRelation, ...] = ()
    bounds: tuple[tuple[int, int], ...] | None = None
    model: str = ""
    error: str | None = None

    @classmethod
    def from_doc(cls, doc: Doc, id: str | None = None, attr: str = RELATIONS) -> RelationDocument:
        """The relations of a Doc.

        Args:
            doc: The document.
            id: Its name, where `doc.user_data` has none.
            attr: Where the relations lie: `doc._.<attr>`.
        """
        bounds = None
        if doc.has_annotation("SENT_START"):
            bounds = tuple((sent.start_char, sent.end_char) for sent in doc.sents)
        return cls(
            id=str(doc.user_data.get(ID) or id or "doc"),
            text=doc.text,
            entities=tuple(_argument_of(ent) for ent in doc.ents),
            relations=tuple(
                FoundRelation(_argument_of(one.head), _argument_of(one.tail), one.label, one.score)
                for one in relations_of(doc, attr)
            ),
            bounds=bounds,
            model=str(doc.user_data.get(MODEL) or ""),
        )

    @classmethod
    def from_json(cls, entry: Any, place: str) -> RelationDocument:
        """The relations of a line that `slmre extract` wrote.

        Args:
            entry: The line's content.
            place: File and line, for errors; it names a document that has no id.

        Raises:
            ExportError: The line has another form.
        """
        if isinstance(entry, Mapping) and isinstance(entry.get("error"), str):
            return cls(_clean(str(entry.get("id", place))), "", error=_clean(entry["error"]))
        if not isinstance(entry, Mapping) or not isinstance(entry.get("text"), str):
            raise ExportError(
                f'{place}: no document with a "text". Expected are lines as `python -m spacy slmre extract` '
                "writes them."
            )
        text = entry["text"]
        try:
            entities = tuple(sorted((_argument_from(one, text) for one in entry.get("entities", ())), key=_place))
            # What an entity is identified as holds for the arguments that it is, too.
            known = {_place(one): one.kb_id for one in entities}
            relations = tuple(_relation_from(one, text, known) for one in entry["relations"])
            bounds = tuple(sorted(_bounds_from(one, text) for one in entry.get("sentences") or ())) or None
        except KeyError as error:
            raise ExportError(f"{place}: the field {error} is missing.") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ExportError(f"{place}: {error}") from error
        model = entry.get("model")
        return cls(
            _clean(str(entry.get("id", place))),
            _clean(text),
            entities,
            relations,
            bounds,
            _clean(model) if isinstance(model, str) else "",
        )

    @cached_property
    def sentences(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each sentence; where they are not known, by punctuation."""
        if self.bounds is not None:
            return self.bounds
        doc = _sentencizer()(self.text)
        return tuple((sent.start_char, sent.end_char) for sent in doc.sents)

    def sentence_of(self, relation: FoundRelation) -> tuple[int, int]:
        """Start and end of the sentence of a relation; of all from one argument to the other."""
        first = min(relation.head.start, relation.tail.start)
        last = max(relation.head.end, relation.tail.end)
        starts = self._starts
        begin = max(bisect_right(starts, first) - 1, 0)
        end = max(bisect_right(starts, last - 1) - 1, 0)
        if not starts:
            return first, last
        return min(self.sentences[begin][0], first), max(self.sentences[end][1], last)

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.sentences]


def name_source(doc: Doc, id: str, model: str) -> None:
    """Write on a document what it is called (if it has no name yet) and what found its relations."""
    doc.user_data.setdefault(ID, id)
    doc.user_data[MODEL] = model


def as_documents(
    docs: Doc | Span | RelationDocument | Iterable[Doc | Span | RelationDocument], attr: str = RELATIONS
) -> Iterator[RelationDocument]:
    """One document or many, spaCy's or ours, as ours.

    Raises:
        ExportError: There is something else among them.
    """
    if isinstance(docs, Doc | Span | RelationDocument):
        docs = [docs]
    seen: dict[str, int] = {}
    for number, doc in enumerate(docs, 1):
        if isinstance(doc, Span):
            doc = span_as_doc(doc)
        if isinstance(doc, Doc):
            doc = RelationDocument.from_doc(doc, f"doc-{number}", attr)
        if not isinstance(doc, RelationDocument):
            raise ExportError(f"Relations are read from a Doc, a Span or a RelationDocument, not {doc!r}.")
        yield _unique(doc, seen)


def read_documents(paths: Iterable[str], stdin: BinaryIO, *, attr: str = RELATIONS) -> Iterator[RelationDocument]:
    """The documents of files, one (or one shard) in memory at a time.

    A second document of the same id becomes `ID~2`, so that what is said of one is not said of the other.

    Args:
        paths: JSONL files as `slmre extract` writes them, `.spacy` files or folders of such, or "-" for JSONL
            from standard input.
        stdin: Standard input.
        attr: In `.spacy` files, where the relations lie: `doc._.<attr>`.

    Raises:
        ExportError: A path does not exist or has an unknown ending, or a line has another form.
        CorpusError: A `.spacy` file is damaged.
    """
    paths = list(paths)
    for path in paths:
        if path != "-" and not Path(path).exists():
            raise ExportError(f"The input {path} does not exist.")
        if path != "-" and Path(path).suffix not in (".jsonl", ".spacy") and not Path(path).is_dir():
            raise ExportError(
                f"{path}: the ending tells no format. Relations are read from .jsonl files, as `python -m "
                "spacy slmre extract` writes them, and from .spacy files or folders of them."
            )
    seen: dict[str, int] = {}
    vocab = spacy.blank("xx").vocab
    for path in paths:
        if path == "-":
            documents = _read_lines("-", stdin)
        elif Path(path).suffix == ".jsonl":
            documents = _read_file(path)
        else:
            documents = (document for file in corpus_files(path) for document in _read_shard(file, vocab, attr))
        for document in documents:
            yield _unique(document, seen)


def _read_file(path: str) -> Iterator[RelationDocument]:
    with Path(path).open("rb") as stream:
        yield from _read_lines(path, stream)


def _read_shard(file: Path, vocab: Vocab, attr: str) -> Iterator[RelationDocument]:
    for number, doc in enumerate(read_docs(file, vocab), 1):
        yield RelationDocument.from_doc(doc, f"{file}#{number}", attr)
    # `slmre extract` notes beside a shard which documents failed.
    note = file.with_suffix(".json")
    if not note.is_file():
        return
    try:
        entries = json.loads(note.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{note}: no JSON ({error}).") from error
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("error"), str):
            yield RelationDocument.from_json(entry, str(note))


def _read_lines(path: str, stream: Iterable[bytes]) -> Iterator[RelationDocument]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ExportError(f"{place}: no JSON ({error}).") from error
            yield RelationDocument.from_json(entry, place)


def _unique(document: RelationDocument, seen: dict[str, int]) -> RelationDocument:
    count = seen[document.id] = seen.get(document.id, 0) + 1
    if count == 1:
        return document
    return _unique(replace(document, id=f"{document.id}~{count}"), seen)


def _argument_of(span: Span) -> Argument:
    return Argument(span.start_char, span.end_char, span.text, span.label_, _identity(span.kb_id_))


def _argument_from(entry: Mapping[str, Any], text: str) -> Argument:
    start, end = entry["start"], entry["end"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        raise ValueError(f"an entity from {start!r} to {end!r} in a text of {len(text)} characters.")
    words = text[start:end]
    if entry.get("text", words) != words:
        raise ValueError(f'the entity "{entry["text"]}", but the text has "{words}" from {start} to {end}.')
    kb_id = _identity(_clean(str(entry.get("kb_id") or "")))
    return Argument(start, end, _clean(words), _clean(str(entry.get("type") or "")), kb_id)


def _identity(kb_id: str) -> str:
    """What identifies an entity: "" where spaCy's linkers found nothing, Wikidata's IRIs as numbers."""
    if found := _WIKIDATA.fullmatch(kb_id):
        return found[1]
    return "" if kb_id == EntityLinker.NIL else kb_id


def _bounds_from(entry: Sequence[int], text: str) -> tuple[int, int]:
    start, end = entry
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        raise ValueError(f"a sentence from {start!r} to {end!r} in a text of {len(text)} characters.")
    return start, end


def _place(argument: Argument) -> tuple[int, int, str]:
    return argument.start, argument.end, argument.type


def _relation_from(entry: Mapping[str, Any], text: str, known: Mapping[tuple[int, int, str], str]) -> FoundRelation:
    label, score = entry["label"], entry.get("score", 1.0)
    if not isinstance(label, str) or not label:
        raise ValueError(f"the label of a relation is a string that is not empty, not {label!r}.")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"the score of a relation is a number, not {score!r}.")
    head, tail = (
        one if one.kb_id else replace(one, kb_id=known.get(_place(one), ""))
        for one in (_argument_from(entry[side], text) for side in ("head", "tail"))
    )
    return FoundRelation(head, tail, _clean(label), float(score))


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


@cache
def _sentencizer() -> Language:
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    nlp.max_length = 10**9  # nothing here takes more memory than the text
    return nlp
