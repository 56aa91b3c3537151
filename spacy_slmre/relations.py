"""Relations on a Doc: the `Relation` view, the extension attributes, and how records are stored.

A record is plain data in `doc.user_data`: character offsets, texts and types of head and tail, label and score. Plain
data survives `to_bytes`, `DocBin(store_user_data=True)`, pickle and worker processes, and character offsets survive
retokenization. Spans are created when the records are read.
"""

from __future__ import annotations

import hashlib
import keyword
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span
from spacy.tokens.underscore import Underscore

from spacy_slmre.coreference import shift_clusters, write_clusters

RELATIONS = "relations"
"""`doc._.relations`: the predicted (or annotated) relations without the negative label, best first."""
PAIRS = "relation_pairs"
"""`doc._.relation_pairs`: all annotated pairs of a gold document, including those with the negative label."""
CANDIDATES = "relation_candidates"
"""`doc._.relation_candidates`: unlabeled pairs for the candidate generator `GivenPairs`."""
LABELS = "relation_labels"
"""`doc._.relation_labels`: the labels to predict in this document, if they differ from the component's."""
ANSWERS = "relation_answers"
"""`doc._.relation_answers`: the text that a generative model returned for each pair."""

INVERSES = "relation_inverses"
"""Name of the symmetric and inverse labels of a document's relations, see `write_label_properties`."""
IRIS = "relation_iris"
"""Name of the IRIs of the labels of a document's relations, see `write_label_properties`."""
LIMITS = "relation_limits"
"""Name of the limits of the labels of a document's relations, see `write_label_properties`."""
_LABEL_PROPERTIES = (INVERSES, IRIS, LIMITS)
TEXT_ID = "text_id"
"""Key of a record with a hash of its document's text: spaCy copies `doc.user_data` to documents with other texts."""

PlainRecord = dict[str, Any]
Extension = tuple[type[Doc] | type[Span], str, Callable, Callable | None]
"""Class, name, getter and setter of an extension attribute."""
_SIDES = ("head", "tail")


class Relation(dict[str, Any]):
    """A relation between two spans of a document.

    It is also its own record, a dict of plain data, so that `doc.to_json(underscore=["relations"])` works. Assign new
    relations instead of changing one.

    Attributes:
        head: The first argument; `head.label_` is its entity type.
        tail: The second argument.
        label: Name of the label in the schema.
        score: The label's probability; 1.0 in gold annotation.
    """

    __slots__ = ("head", "label", "score", "tail")

    def __init__(self, head: Span, tail: Span, label: str, score: float = 1.0) -> None:
        super().__init__(head=_to_dict(head), tail=_to_dict(tail), label=label, score=score)
        self.head, self.tail, self.label, self.score = head, tail, label, score

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((self.head.start_char, self.tail.start_char, self.label, self.score))

    def __repr__(self) -> str:
        return f"<Relation: {self}>"

    def __str__(self) -> str:
        return f"{self.head.text} – {self.label} – {self.tail.text} ({self.score:.2f})"


# -- extension attributes ------------------------------------------------------------------------------


def install_extensions(attr: str = RELATIONS, *, strict: bool = True) -> None:
    """Register the extension attributes; calling it again has no effect.

    Args:
        attr: Attribute of `Doc` and `Span` for relations. The report of skipped pairs is in `doc._.<attr>_report`.
        strict: Raise an error if a name is taken; otherwise it is skipped.

    Raises:
        ValueError: Another package has registered one of these names.
    """
    if not attr.isidentifier():
        raise ValueError(f'attr="{attr}" cannot be an attribute name: use letters, digits and underscores.')
    if attr.startswith("_") or keyword.iskeyword(attr) or hasattr(Underscore, attr):
        raise ValueError(f"attr=\"{attr}\" is a name of Python's or spaCy's own: choose another name.")
    if attr in (PAIRS, CANDIDATES, LABELS, ANSWERS, *_LABEL_PROPERTIES) or attr.endswith(report_name("")):
        raise ValueError(f'attr="{attr}" is reserved for gold annotation, answers or reports: choose another name.')
    extensions: list[Extension] = [
        (Doc, attr, partial(relations_of, attr=attr), partial(_set_relations, attr=attr)),
        (Span, attr, partial(_get_overlapping, attr=attr), None),
        (Doc, report_name(attr), partial(report_of, attr=attr), None),
        (Doc, PAIRS, partial(relations_of, attr=PAIRS), partial(_set_relations, attr=PAIRS)),
        (Doc, CANDIDATES, _get_candidates, _set_candidates),
        (Doc, LABELS, own_labels, _set_labels),
        (Doc, ANSWERS, _get_answers, None),
    ]
    register(extensions, strict=strict)


def register(extensions: Iterable[Extension], *, strict: bool) -> None:
    """Register extension attributes; see `install_extensions`."""
    for cls, name, getter, setter in extensions:
        if not cls.has_extension(name):
            cls.set_extension(name, getter=getter, setter=setter)
        elif strict and not _is_same(cls.get_extension(name)[2], getter):
            raise ValueError(
                f"The extension attribute {cls.__name__}._.{name} belongs to another package. "
                f'Choose another name for our relations with the setting attr="…".'
            )


def report_name(attr: str) -> str:
    """Return the name of the attribute with the report of considered and skipped pairs."""
    return f"{attr}_report"


def owns_attribute(attr: str) -> bool:
    """Return whether `doc._.<attr>` is the attribute that `install_extensions` registered."""
    getter = partial(relations_of, attr=attr)
    return Doc.has_extension(attr) and _is_same(Doc.get_extension(attr)[2], getter)


def _is_same(getter: Any, ours: Callable) -> bool:
    # Compared by content, because worker processes receive unpickled copies of the getters.
    if isinstance(getter, partial) and isinstance(ours, partial):
        return getter.func is ours.func and getter.keywords == ours.keywords
    return getter is ours


def relations_of(doc: Doc, attr: str = RELATIONS) -> tuple[Relation, ...]:
    """Return `doc._.<attr>`, whether or not that attribute is registered."""
    relations = read_records(doc, doc.user_data.get(user_data_key(attr), ()))
    return tuple(sorted(relations, key=lambda relation: -relation.score))


def report_of(doc: Doc, attr: str = RELATIONS) -> dict[str, Any] | None:
    """Return `doc._.<attr>_report`, whether or not that attribute is registered."""
    report = doc.user_data.get(user_data_key(report_name(attr)))
    return None if report is None or not _is_of(report, _text_id(doc)) else _without_id(report)


def predicted_attributes(doc: Doc) -> list[str]:
    """Return the names of the attributes to which components wrote relations, which are those with a report."""
    start, end = user_data_key(""), report_name("")
    names = (key for key in doc.user_data if isinstance(key, str) and key.startswith(start) and key.endswith(end))
    return [key.removeprefix(start).removesuffix(end) for key in names]


def own_labels(doc: Doc) -> Any:
    """Return the labels to predict in a document, in any form that a schema is given in; None for the component's.

    These are `doc._.relation_labels` or, in `nlp.pipe(…, as_tuples=True)`, "labels" of the document's context.
    """
    labels = doc.user_data.get(user_data_key(LABELS))
    context = getattr(doc, "_context", None)  # set by `nlp.pipe`
    return context.get("labels") if labels is None and isinstance(context, Mapping) else labels


def _set_labels(doc: Doc, labels: Any) -> None:
    if labels is None:
        doc.user_data.pop(user_data_key(LABELS), None)
    else:
        # Plain data, which `to_bytes` and worker processes need.
        plain = labels.to_dict() if hasattr(labels, "to_dict") else str(labels) if isinstance(labels, Path) else labels
        doc.user_data[user_data_key(LABELS)] = plain


def _set_relations(doc: Doc, relations: Iterable, *, attr: str) -> None:
    write_records(doc, [make_record(doc, relation) for relation in relations], attr)


def _get_overlapping(span: Span, *, attr: str) -> tuple[Relation, ...]:
    return tuple(
        relation
        for relation in relations_of(span.doc, attr)
        if any(arg.start < span.end and span.start < arg.end for arg in (relation.head, relation.tail))
    )


def _get_candidates(doc: Doc) -> tuple[tuple[Span, Span], ...]:
    views = read_records(doc, doc.user_data.get(user_data_key(CANDIDATES), ()))
    return tuple((view.head, view.tail) for view in views)


def _set_candidates(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> None:
    records = [{"head": _argument(doc, head), "tail": _argument(doc, tail)} for head, tail in pairs]
    write_records(doc, records, CANDIDATES)


def _get_answers(doc: Doc) -> list[PlainRecord]:
    # A DocBin turns lists into tuples.
    return [
        {**answer, "head": list(answer["head"]), "tail": list(answer["tail"])} for answer in read_plain(doc, ANSWERS)
    ]


def describe_unanswered(doc: Doc) -> str | None:
    """Return an error if a generative model answered none of a document's pairs, for instance without network."""
    answers = _get_answers(doc)
    if not answers or any(answer["answer"] is not None for answer in answers):
        return None
    return f"the model answered none of its {len(answers)} pairs; see the warnings for the reason"


# -- records -------------------------------------------------------------------------------------------


def make_record(doc: Doc, relation: Any) -> PlainRecord:
    """Return the record of a `Relation`, a tuple (head, tail, label[, score]) or a record, as read from JSON.

    Raises:
        ValueError: The relation is malformed, or an argument is empty or not a span of this document.
    """
    # A relation of another document, as `Doc.from_json` passes it on, is read by its offsets and texts.
    if isinstance(relation, Relation) and relation.head.doc is doc:
        relation = (relation.head, relation.tail, relation.label, relation.score)
    elif isinstance(relation, Mapping):
        relation = _from_record(doc, relation)
    if not isinstance(relation, Sequence) or len(relation) not in (3, 4):
        raise ValueError(f"A relation must be a Relation or a tuple (head, tail, label[, score]), not {relation!r}.")
    head, tail, label, *rest = relation
    given = rest[0] if rest else 1.0
    if not isinstance(label, str) or not label:
        raise ValueError(f"The label of a relation must be a non-empty string, not {label!r}.")
    try:
        score = float(given)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f'The score of the relation "{label}" is not a finite number: {given!r}.')
    return {"head": _argument(doc, head), "tail": _argument(doc, tail), "label": label, "score": score}


def write_records(doc: Doc, records: list[PlainRecord], attr: str = RELATIONS) -> None:
    """Store records under `doc._.<attr>`, replacing existing ones."""
    text_id = _text_id(doc)
    doc.user_data[user_data_key(attr)] = [{**record, TEXT_ID: text_id} for record in records]


def write_report(doc: Doc, report: Mapping[str, Any], attr: str = RELATIONS) -> None:
    """Store the report of considered and skipped pairs under `doc._.<attr>_report`."""
    doc.user_data[user_data_key(report_name(attr))] = {**report, TEXT_ID: _text_id(doc)}


def write_label_properties(
    doc: Doc,
    inverse_of: Mapping[str, str],
    iris: Mapping[str, str],
    limits: Mapping[str, Mapping[str, int]] | None = None,
    attr: str = RELATIONS,
) -> None:
    """Store what facts and exports need to know about the labels.

    Args:
        doc: The document.
        inverse_of: The symmetric and inverse labels, see `LabelSchema.inverse_of`.
        iris: The IRIs of the labels that have one.
        limits: For predicted relations: how often a label may hold, see `LabelSchema.limits`.
        attr: The labels are those of the relations in `doc._.<attr>`.
    """
    for name, values in zip(_LABEL_PROPERTIES, (inverse_of, iris, limits), strict=True):
        if values:
            doc.user_data[_property_key(name, attr)] = dict(values)
        else:
            doc.user_data.pop(_property_key(name, attr), None)


def inverses_of(doc: Doc, attr: str = RELATIONS) -> dict[str, str]:
    """Return the symmetric and inverse labels that `write_label_properties` stored; none by default."""
    return doc.user_data.get(_property_key(INVERSES, attr), {})


def iris_of(doc: Doc, attr: str = RELATIONS) -> dict[str, str]:
    """Return the IRIs of labels that `write_label_properties` stored; none by default."""
    return doc.user_data.get(_property_key(IRIS, attr), {})


def limits_of(doc: Doc, attr: str = RELATIONS) -> dict[str, dict[str, int]]:
    """Return the limits of labels that `write_label_properties` stored; none by default."""
    return doc.user_data.get(_property_key(LIMITS, attr), {})


def _property_key(name: str, attr: str) -> str:
    # Two components of a pipeline may have labels with the same names and other properties.
    return user_data_key(name if attr == RELATIONS else f"{attr}.{name}")


def _is_property(key: str) -> bool:
    return key.endswith(tuple(f".{name}" for name in _LABEL_PROPERTIES))


def write_answers(doc: Doc, answers: list[PlainRecord]) -> None:
    """Store the answers of a generative model under `doc._.relation_answers`, replacing existing ones.

    Args:
        doc: The document.
        answers: Each has "head" and "tail" as [start, end] in characters, "answer" (the generated text, or None if
            there was none) and "label" (None if the answer names no label of the schema).
    """
    write_records(doc, answers, ANSWERS)


def read_records(doc: Doc, records: Iterable[PlainRecord]) -> list[Relation]:
    """Return records as relations, in order.

    Records are skipped with a warning if their offsets are no longer token boundaries or their text has changed, also
    if they were copied from another document, for instance by `span.as_doc(copy_user_data=True)`.

    Raises:
        ValueError: These are no records.
    """
    try:
        return _read_records(doc, list(records))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'The document "{doc.text[:40]}" stores relations in another form than this package writes '
            f"({type(error).__name__}: {error})."
        ) from error


def _read_records(doc: Doc, records: list[PlainRecord]) -> list[Relation]:
    if not records:
        return []
    text_id = _text_id(doc)
    # The document's own entity spans have a knowledge base id, which new spans would lack.
    entities = {(ent.start_char, ent.end_char, ent.label_): ent for ent in doc.ents}
    relations = []
    for record in records:
        head, tail = (_resolve(doc, record[side], entities) for side in _SIDES)
        if head is not None and tail is not None and _is_of(record, text_id):
            relations.append(Relation(head, tail, record.get("label", ""), record.get("score", 1.0)))
    if skipped := len(records) - len(relations):
        warnings.warn(
            f"{skipped} of {len(records)} relation records were skipped: they do not match the text or the tokens of "
            "their document. To copy a part of a document with its relations, use `spacy_slmre.relations.span_as_doc`.",
            stacklevel=4,
        )
    return relations


def read_plain(doc: Doc, attr: str) -> list[PlainRecord]:
    """Return the records under `doc._.<attr>` as plain data, without those that were copied from another document."""
    records = doc.user_data.get(user_data_key(attr), ())
    text_id = _text_id(doc) if records else ""
    return [_without_id(record) for record in records if _is_of(record, text_id)]


def _from_record(doc: Doc, record: Mapping[str, Any]) -> tuple[Any, ...]:
    try:
        return (*(_find_argument(doc, record[side]) for side in _SIDES), record["label"], record.get("score", 1.0))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            'A relation must be a Relation, a tuple (head, tail, label[, score]), or a dict with "head" and "tail" '
            f'(each with "start", "end" and "type") and "label", not {record!r}.'
        ) from error


def _find_argument(doc: Doc, argument: Mapping[str, Any]) -> Span:
    start, end = argument["start"], argument["end"]
    span = doc.char_span(start, end, argument.get("type", ""))
    if span is None:
        raise ValueError(
            f"The offsets {start} to {end} of an argument are not those of tokens of its document, so there is no span."
        )
    if argument.get("text", span.text) != span.text:
        raise ValueError(f'An argument has the text "{argument["text"]}", but its offsets are those of "{span.text}".')
    return span


def _argument(doc: Doc, span: Any) -> dict[str, Any]:
    if not isinstance(span, Span) or span.doc is not doc:
        raise ValueError(f"The arguments of a relation must be spans of its own document, not {span!r}.")
    if not len(span):
        raise ValueError("An argument of a relation must not be an empty span.")
    return _to_dict(span)


def _to_dict(span: Span) -> dict[str, Any]:
    return {"start": span.start_char, "end": span.end_char, "text": span.text, "type": span.label_}


def _resolve(doc: Doc, argument: Mapping[str, Any], entities: Mapping[tuple, Span]) -> Span | None:
    start, end, label = argument["start"], argument["end"], argument["type"]
    span = entities.get((start, end, label)) or doc.char_span(start, end, label=label)
    return span if span is not None and span.text == argument["text"] else None


def _text_id(doc: Doc) -> str:
    """Return a hash of the text, by which records are known to belong to a document."""
    return hashlib.blake2b(doc.text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _is_of(record: Mapping[str, Any], text_id: str) -> bool:
    return record.get(TEXT_ID, text_id) == text_id


def _without_id(record: Mapping[str, Any]) -> PlainRecord:
    return {name: value for name, value in record.items() if name != TEXT_ID}


def user_data_key(attr: str) -> str:
    """Return the key in `doc.user_data` of the records of `doc._.<attr>`."""
    return f"spacy_slmre.{attr}"


# -- splitting and joining documents -------------------------------------------------------------------


def span_as_doc(span: Span) -> Doc:
    """Return `span.as_doc()` with the relations, pairs, candidates, answers and clusters within the span."""
    doc = span.as_doc()
    _copy_records(span.doc, doc, offset=-span.start_char)
    write_clusters(doc, shift_clusters(span.doc, -span.start_char, len(doc.text)))
    return doc


def join_docs(docs: Sequence[Doc]) -> Doc:
    """Return `Doc.from_docs(docs)` with the relations, pairs, candidates, answers and clusters of all documents.

    Raises:
        ValueError: There are no documents, or some annotate pairs and others relations, so that what is known about
            other pairs differs.
    """
    if not docs:
        raise ValueError("There are no documents to join.")
    keys = {user_data_key(PAIRS), user_data_key(RELATIONS)}
    annotate_pairs = {user_data_key(PAIRS) in doc.user_data for doc in docs if keys & doc.user_data.keys()}
    if len(annotate_pairs) > 1:
        raise ValueError(f"Some documents have doc._.{PAIRS} and others only doc._.{RELATIONS}: join them separately.")
    with warnings.catch_warnings():
        # spaCy warns that it does not copy our records, which are copied below.
        warnings.filterwarnings("ignore", message=r"\[W10[12]\].*slmre\.")
        joined = Doc.from_docs(list(docs))
    assert joined is not None
    position, clusters = 0, []
    for doc in docs:
        if len(doc):
            offset = joined[position].idx
            _copy_records(doc, joined, offset=offset)
            clusters += shift_clusters(doc, offset, len(joined.text))
            position += len(doc)
    # spaCy has joined the first clusters of all documents to one, and so on.
    write_clusters(joined, clusters)
    return joined


def _copy_records(source: Doc, target: Doc, *, offset: int) -> None:
    source_id, target_id = _text_id(source), _text_id(target)
    for key, records in source.user_data.items():
        ours = isinstance(key, str) and key.startswith(user_data_key(""))
        if not ours or key == user_data_key(LABELS) or key.endswith(report_name("")):
            continue
        if _is_property(key):
            target.user_data[key] = target.user_data.get(key, {}) | records
            continue
        copied = list(target.user_data.get(key, ()))
        for record in records:
            if not _is_of(record, source_id):
                continue
            if (moved := _shift_record(record, offset, len(target.text))) is not None:
                copied.append({**moved, TEXT_ID: target_id})
        target.user_data[key] = copied


def _shift_record(record: Mapping[str, Any], offset: int, length: int) -> dict[str, Any] | None:
    """Return a record about a pair or, like entity decisions, about a span, with shifted offsets; None if outside."""
    if not record.keys() >= set(_SIDES):
        return _shift(record, offset, length)
    sides = {side: _shift(record[side], offset, length) for side in _SIDES}
    return {**record, **sides} if all(sides.values()) else None


def _shift(argument: Any, offset: int, length: int) -> Any:
    """Return an argument of a record or answer with shifted offsets, or None if it is outside a text of this length."""
    is_record = isinstance(argument, Mapping)
    start, end = (argument["start"], argument["end"]) if is_record else argument
    start, end = start + offset, end + offset
    if start < 0 or end > length:
        return None
    return {**argument, "start": start, "end": end} if is_record else [start, end]
