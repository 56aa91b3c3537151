"""Relations on a Doc: the `Relation` view, the extension attributes, and how records are stored.

A record is plain data in `doc.user_data`: character offsets, texts and types of head and tail, label and
score. Plain data survives `to_bytes`, `DocBin(store_user_data=True)`, pickle and worker processes, and
character offsets survive retokenisation. Spans are made when the records are read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from spacy.tokens import Doc, Span

RELATIONS = "relations"
"""`doc._.relations`: the relations found (or annotated), positives only, best first."""
PAIRS = "relation_pairs"
"""`doc._.relation_pairs`: every annotated pair of a gold corpus, pairs with the negative label included."""
CANDIDATES = "relation_candidates"
"""`doc._.relation_candidates`: pairs to be labelled, without any label."""
ANSWERS = "relation_answers"
"""`doc._.relation_answers`: what a model that writes its answers wrote for each pair it was asked about."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation, read from a document.

    Attributes:
        head: The first argument; `head.label_` is its entity type.
        tail: The second argument.
        label: The label, as the schema names it.
        score: The label's probability (gold annotation: 1.0).
    """

    head: Span
    tail: Span
    label: str
    score: float = 1.0

    def __str__(self) -> str:
        return f"{self.head.text} – {self.label} – {self.tail.text} ({self.score:.2f})"


# -- extension attributes ------------------------------------------------------------------------------


def install_extensions(attr: str = RELATIONS) -> None:
    """Register the extension attributes once; a second call changes nothing.

    Args:
        attr: Name of the attribute for relations, on `Doc` and `Span`; the report of what was left out
            stands beside it as `<attr>_report`.

    Raises:
        ValueError: Another package has registered one of these names.
    """
    if not attr.isidentifier():
        raise ValueError(f'attr="{attr}" cannot be an attribute name: use letters, digits and underscores.')
    if attr in (PAIRS, CANDIDATES, ANSWERS):
        raise ValueError(f'attr="{attr}" is where gold annotation or answers lie: choose another name.')
    wanted: list[tuple[type[Doc] | type[Span], str, Callable, Callable | None]] = [
        (Doc, attr, partial(_get_relations, attr=attr), partial(_set_relations, attr=attr)),
        (Span, attr, partial(_get_touching, attr=attr), None),
        (Doc, report_name(attr), partial(_get_report, attr=attr), None),
        (Doc, PAIRS, partial(_get_relations, attr=PAIRS), partial(_set_relations, attr=PAIRS)),
        (Doc, CANDIDATES, _get_candidates, _set_candidates),
        (Doc, ANSWERS, _get_answers, None),
    ]
    for cls, name, getter, setter in wanted:
        if not cls.has_extension(name):
            cls.set_extension(name, getter=getter, setter=setter)
        elif not _is_ours(cls.get_extension(name)[2], getter):
            raise ValueError(
                f"The extension attribute {cls.__name__}._.{name} belongs to another package. "
                f'Choose another name for our relations with the setting attr="…".'
            )


def report_name(attr: str) -> str:
    """Name of the attribute that reports what was considered and left out."""
    return f"{attr}_report"


def _is_ours(found: Any, wanted: Callable) -> bool:
    # Compared by content: worker processes receive unpickled copies of the getters.
    if isinstance(found, partial) and isinstance(wanted, partial):
        return found.func is wanted.func and found.keywords == wanted.keywords
    return found is wanted


def _get_relations(doc: Doc, *, attr: str) -> tuple[Relation, ...]:
    relations = read_records(doc, doc.user_data.get(_key(attr), ()))
    return tuple(sorted(relations, key=lambda relation: -relation.score))


def _set_relations(doc: Doc, relations: Iterable, *, attr: str) -> None:
    write_records(doc, [make_record(doc, relation) for relation in relations], attr)


def _get_touching(span: Span, *, attr: str) -> tuple[Relation, ...]:
    return tuple(
        relation
        for relation in _get_relations(span.doc, attr=attr)
        if any(arg.start < span.end and span.start < arg.end for arg in (relation.head, relation.tail))
    )


def _get_report(doc: Doc, *, attr: str) -> dict[str, Any] | None:
    return doc.user_data.get(_key(report_name(attr)))


def _get_candidates(doc: Doc) -> tuple[tuple[Span, Span], ...]:
    views = read_records(doc, doc.user_data.get(_key(CANDIDATES), ()))
    return tuple((view.head, view.tail) for view in views)


def _set_candidates(doc: Doc, pairs: Iterable[tuple[Span, Span]]) -> None:
    records = [{"head": _argument(doc, head), "tail": _argument(doc, tail)} for head, tail in pairs]
    write_records(doc, records, CANDIDATES)


def _get_answers(doc: Doc) -> list[Record]:
    # A DocBin gives tuples for lists.
    return [
        {**answer, "head": list(answer["head"]), "tail": list(answer["tail"])}
        for answer in doc.user_data.get(_key(ANSWERS), ())
    ]


def relations_of(doc: Doc, attr: str = RELATIONS) -> tuple[Relation, ...]:
    """What `doc._.<attr>` gives, whether or not that attribute is registered (or is somebody else's)."""
    return _get_relations(doc, attr=attr)


def report_of(doc: Doc, attr: str = RELATIONS) -> dict[str, Any] | None:
    """Return `doc._.<attr>_report`, whether or not that attribute is registered."""
    return _get_report(doc, attr=attr)


def annotates_pairs(doc: Doc) -> bool:
    """Whether a gold document says of pairs what they are, so that nothing is known of all others."""
    return _key(PAIRS) in doc.user_data


# -- records -------------------------------------------------------------------------------------------


def make_record(doc: Doc, relation: Any) -> Record:
    """The record of a `Relation`, or of a tuple (head, tail, label[, score]).

    Raises:
        ValueError: The tuple has another form, an argument is no span of this document or is empty, the
            label is empty, or the score is not a number.
    """
    if isinstance(relation, Relation):
        relation = (relation.head, relation.tail, relation.label, relation.score)
    if not isinstance(relation, Sequence) or len(relation) not in (3, 4):
        raise ValueError(f"A relation is a Relation or a tuple (head, tail, label[, score]), not {relation!r}.")
    head, tail, label, *rest = relation
    score = float(rest[0]) if rest else 1.0
    if not isinstance(label, str) or not label:
        raise ValueError(f"The label of a relation is a string that is not empty, not {label!r}.")
    if math.isnan(score):
        raise ValueError(f'The score of the relation "{label}" is not a number.')
    return {"head": _argument(doc, head), "tail": _argument(doc, tail), "label": label, "score": score}


def write_records(doc: Doc, records: list[Record], attr: str = RELATIONS) -> None:
    """Store records under `doc._.<attr>`, in place of those that are there."""
    doc.user_data[_key(attr)] = records


def write_report(doc: Doc, report: Mapping[str, Any], attr: str = RELATIONS) -> None:
    """Store what was considered and left out under `doc._.<attr>_report`."""
    doc.user_data[_key(report_name(attr))] = dict(report)


def write_answers(doc: Doc, answers: list[Record]) -> None:
    """Store what a model wrote under `doc._.relation_answers`, in place of what is there.

    Args:
        doc: The document.
        answers: Each with "head" and "tail" as [start, end] in characters, "answer" (the text as it was
            written; None where there was no answer) and "label" (None where it names none of the schema).
    """
    doc.user_data[_key(ANSWERS)] = answers


def read_records(doc: Doc, records: Iterable[Record]) -> list[Relation]:
    """The records as views, in their order.

    A record whose offsets no longer meet token boundaries, or whose text is no longer what it was, is
    left out with a warning.
    """
    records = list(records)
    if not records:
        return []
    # The document's own entity spans carry what a character span cannot know, the knowledge base id.
    entities = {(ent.start_char, ent.end_char, ent.label_): ent for ent in doc.ents}
    views, lost = [], 0
    for record in records:
        head, tail = (_resolve(doc, record[side], entities) for side in ("head", "tail"))
        if head is None or tail is None:
            lost += 1
        else:
            views.append(Relation(head, tail, record.get("label", ""), record.get("score", 1.0)))
    if lost:
        warnings.warn(
            f"{lost} of {len(records)} relation records no longer match the text or the tokens of their "
            "document and were left out.",
            stacklevel=3,
        )
    return views


def _argument(doc: Doc, span: Any) -> dict[str, Any]:
    if not isinstance(span, Span) or span.doc is not doc:
        raise ValueError(f"A relation joins spans of its own document, not {span!r}.")
    if not len(span):
        raise ValueError("A relation cannot join an empty span.")
    return {"start": span.start_char, "end": span.end_char, "text": span.text, "type": span.label_}


def _resolve(doc: Doc, argument: Mapping[str, Any], entities: Mapping[tuple, Span]) -> Span | None:
    start, end, label = argument["start"], argument["end"], argument["type"]
    span = entities.get((start, end, label)) or doc.char_span(start, end, label=label)
    return span if span is not None and span.text == argument["text"] else None


def _key(attr: str) -> str:
    return f"spacy_slmre.{attr}"


# -- splitting and joining documents -------------------------------------------------------------------


def span_as_doc(span: Span) -> Doc:
    """`span.as_doc()` with the relations, pairs, candidates and answers that lie within the span."""
    doc = span.as_doc()
    _copy_records(span.doc, doc, offset=-span.start_char)
    return doc


def join_docs(docs: Sequence[Doc]) -> Doc:
    """`Doc.from_docs(docs)` with the relations, pairs, candidates and answers of all of them.

    Raises:
        ValueError: There are no documents.
    """
    if not docs:
        raise ValueError("There are no documents to join.")
    with warnings.catch_warnings():
        # spaCy says that it leaves our records out; they follow.
        warnings.filterwarnings("ignore", message=r"\[W10[12]\].*spacy_slmre")
        joined = Doc.from_docs(list(docs))
    assert joined is not None
    position = 0
    for doc in docs:
        if len(doc):
            _copy_records(doc, joined, offset=joined[position].idx)
            position += len(doc)
    return joined


def _copy_records(source: Doc, target: Doc, *, offset: int) -> None:
    for key, records in source.user_data.items():
        if not isinstance(key, str) or not key.startswith(_key("")) or key.endswith(report_name("")):
            continue
        shifted = [_shift(record, offset) for record in records]
        kept = [record for record in shifted if _within(record, len(target.text))]
        target.user_data[key] = [*target.user_data.get(key, ()), *kept]


def _shift(record: Record, offset: int) -> Record:
    return {**record, **{side: _shift_argument(record[side], offset) for side in ("head", "tail")}}


def _shift_argument(argument: Any, offset: int) -> Any:
    if isinstance(argument, Mapping):
        return {**argument, "start": argument["start"] + offset, "end": argument["end"] + offset}
    return [position + offset for position in argument]


def _within(record: Record, length: int) -> bool:
    for side in ("head", "tail"):
        argument = record[side]
        start, end = (argument["start"], argument["end"]) if isinstance(argument, Mapping) else argument
        if start < 0 or end > length:
            return False
    return True
