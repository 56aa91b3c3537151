"""Relation instances: pairs of entity mentions in context, the input of all models.

Models only see these instances, never a spaCy `Doc`; nothing here depends on a model.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.schema import LabelSchema

Truncate = Callable[[Sequence["RelationInstance"]], Sequence["RelationInstance | None"]]
"""Truncates contexts around their pairs; returns None for pairs that do not fit."""


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """An entity mention in a context: character offsets into its text, and the mapped entity type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, eq=False)
class Context:
    """A sentence or window with all mentions of its candidate pairs, in text order.

    Instances share this object, and models compute it once: contexts are compared by identity. It contains the mentions
    of all of its pairs, so that results do not depend on how pairs are batched.
    """

    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, eq=False, slots=True)
class RelationInstance:
    """An ordered pair of mentions to be labeled.

    Attributes:
        head: Index of the head in `context.mentions`.
        tail: Index of the tail in `context.mentions`.
        label: The gold label, if known.
    """

    context: Context
    head: int
    tail: int
    label: str | None = None

    @property
    def head_mention(self) -> Mention:
        """The head."""
        return self.context.mentions[self.head]

    @property
    def tail_mention(self) -> Mention:
        """The tail."""
        return self.context.mentions[self.tail]

    def text_of(self, mention: Mention) -> str:
        """Return the text of a mention."""
        return self.context.text[mention.start : mention.end]

    @classmethod
    def from_offsets(
        cls, text: str, head: tuple[int, int, str], tail: tuple[int, int, str], label: str | None = None
    ) -> RelationInstance:
        """Make a pair with its own context; head and tail are (start, end, type) with character offsets.

        Raises:
            ValueError: An offset is outside the text, or an argument is empty.
        """
        mentions = [Mention(*head), Mention(*tail)]
        for mention in mentions:
            if not 0 <= mention.start < mention.end <= len(text):
                raise ValueError(f"The argument [{mention.start}:{mention.end}] is outside the text {text!r}.")
        ordered = sorted(set(mentions))
        context = Context(text, tuple(ordered))
        return cls(context, ordered.index(mentions[0]), ordered.index(mentions[1]), label)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: text, label, and head and tail as [start, end, type]."""
        sides = {
            side: [mention.start, mention.end, mention.type]
            for side, mention in (("head", self.head_mention), ("tail", self.tail_mention))
        }
        return {"text": self.context.text, **sides, "label": self.label}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RelationInstance:
        """Read the result of `to_dict`; mentions other than the two arguments are not kept.

        Raises:
            ValueError: A field is missing or has the wrong form.
        """
        try:
            head, tail = (_offsets(data[side]) for side in ("head", "tail"))
            if not isinstance(data["text"], str):
                raise TypeError("the text is not a string")
            return cls.from_offsets(data["text"], head, tail, data.get("label"))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'An instance must have "text", and "head" and "tail" as [start, end, type]; found {data!r}.'
            ) from error


def _offsets(values: Sequence) -> tuple[int, int, str]:
    if len(values) != 3:
        raise TypeError("an argument must have three parts")
    start, end, entity_type = values
    return int(start), int(end), str(entity_type)


def contexts_of(instances: Iterable[RelationInstance]) -> list[Context]:
    """Return the distinct contexts of instances, in order."""
    return list(dict.fromkeys(instance.context for instance in instances))


def gold_columns(instances: Iterable[RelationInstance], schema: LabelSchema) -> list[int]:
    """Return the column of each instance's label in a schema.

    Raises ValueError if an instance has no label, or one outside the schema.
    """
    columns = []
    for instance in instances:
        if instance.label not in schema.index:
            found = "no label" if instance.label is None else f'the label "{instance.label}"'
            names = ", ".join(schema.names)
            raise ValueError(f"An instance of {instance.context.text!r} has {found}, but the labels are: {names}.")
        columns.append(schema.index[instance.label])
    return columns


def invented_instance() -> RelationInstance:
    """Return a pair for trying a model before the first document; another mention has the same text as the tail."""
    mentions = (Mention(0, 7, "PER"), Mention(20, 24, "LOC"), Mention(29, 33, "LOC"))
    return RelationInstance(Context("Ann Lee was born in Rome and Rome is her home.", mentions), 0, 1)


# -- from documents ----------------------------------------------------------------------------------------


def make_instances(
    doc: Doc, pairs: Sequence[tuple[Span, Span]], schema: LabelSchema, labels: Sequence[str] | None = None
) -> list[RelationInstance]:
    """Turn (head, tail) pairs of a document, optionally with gold labels, into instances in the same order.

    The context of a pair is the sentence with both arguments, or all sentences from one argument to the other; in a
    document without sentence boundaries, it is the whole text. The schema maps entity types.
    """
    starts = [sent.start for sent in doc.sents] if doc.has_annotation("SENT_START") else [0]
    starts.append(len(doc))
    windows: list[tuple[int, int]] = []
    spans_in: dict[tuple[int, int], set[tuple[int, int, str]]] = {}
    for head, tail in pairs:
        first = bisect.bisect_right(starts, min(head.start, tail.start)) - 1
        last = bisect.bisect_left(starts, max(head.end, tail.end))
        window = (starts[first], starts[last])
        windows.append(window)
        spans_in.setdefault(window, set()).update(_bounds(span) for span in (head, tail))

    contexts: dict[tuple[int, int], tuple[Context, dict[tuple[int, int, str], int]]] = {}
    for window, spans in spans_in.items():
        span = doc[window[0] : window[1]]
        # White space at the edges would only cost tokens. Offsets are relative to the stripped text.
        text = span.text.strip()
        offset = span.start_char + len(span.text) - len(span.text.lstrip())
        ordered = sorted(spans)
        mentions = tuple(
            # An entity may begin or end with white space that was stripped.
            Mention(max(start - offset, 0), min(end - offset, len(text)), schema.map_type(label))
            for start, end, label in ordered
        )
        contexts[window] = (Context(text, mentions), {bounds: position for position, bounds in enumerate(ordered)})
    instances = []
    gold: Sequence[str | None] = [None] * len(pairs) if labels is None else labels
    for (head, tail), window, label in zip(pairs, windows, gold, strict=True):
        context, positions = contexts[window]
        instances.append(RelationInstance(context, positions[_bounds(head)], positions[_bounds(tail)], label))
    return instances


def _bounds(span: Span) -> tuple[int, int, str]:
    return span.start_char, span.end_char, span.label_


@dataclass
class DocInstances:
    """A document with the instances of its candidate pairs.

    Attributes:
        schema: The labels of the document.
        pairs: The candidate pairs that fit the model.
        instances: The instance of each pair.
        truncated: Whether the context of each instance was truncated.
        typed: Whether a pair may only have labels that the schema allows for its entity types.
        report: Numbers of pairs considered, scored, truncated, and skipped by reason.
    """

    doc: Doc
    schema: LabelSchema
    pairs: list[tuple[Span, Span]]
    instances: list[RelationInstance]
    truncated: list[bool]
    typed: bool
    report: dict[str, Any]


def make_doc_instances(
    doc: Doc, candidates: CandidateGenerator, schema: LabelSchema, truncate: Truncate
) -> DocInstances:
    """Turn the candidate pairs of a document into instances, and report how many were skipped and why."""
    proposed = candidates(doc, schema)
    instances = make_instances(doc, proposed.pairs, schema)
    kept = [
        (pair, instance, instance is not original)
        for pair, instance, original in zip(proposed.pairs, truncate(instances), instances, strict=True)
        if instance is not None
    ]
    skipped = dict(proposed.skipped)
    if too_long := len(instances) - len(kept):
        skipped["too_long"] = too_long
    report = {
        "considered": proposed.considered,
        "scored": len(kept),
        "truncated": sum(truncated for *_, truncated in kept),
        "skipped": skipped,
    }
    return DocInstances(
        doc,
        schema,
        [pair for pair, _, _ in kept],
        [instance for _, instance, _ in kept],
        [truncated for _, _, truncated in kept],
        proposed.typed,
        report,
    )


def describe_truncation(report: Mapping[str, Any], report_name: str) -> str | None:
    """Return a warning if pairs of a document were skipped or truncated, else None."""
    skipped = report["skipped"]
    numbers = {"cap": skipped.get("cap"), "too_long": skipped.get("too_long"), "truncated": report["truncated"]}
    if not any(numbers.values()):
        return None
    counts = ", ".join(f"{number} {reason}" for reason, number in numbers.items() if number)
    return (
        f"a document is too long or has too many pairs ({counts}). See doc._.{report_name} of each document for the "
        "numbers of truncated and skipped pairs; this warning is shown only once."
    )


def describe_training_truncation(
    instances: Sequence[RelationInstance], fitting: Sequence[RelationInstance | None], limits: str
) -> str | None:
    """Return a warning if training instances were skipped or truncated, else None."""
    changed = sum(new is not old for new, old in zip(fitting, instances, strict=True))
    skipped = sum(instance is None for instance in fitting)
    if not changed:
        return None
    return (
        f"{changed:,} of {len(instances):,} pairs have contexts that are too long ({limits}, or the model's own "
        f"limit): {changed - skipped:,} were truncated around their arguments, and {skipped:,} were skipped because "
        "their arguments are too far apart."
    )


# -- truncation --------------------------------------------------------------------------------------------


def truncate_instances(
    instances: Sequence[RelationInstance],
    limit: int,
    *,
    count_tokens: Callable[[Sequence[Context]], list[int]],
    offsets_of: Callable[[Context], Sequence[tuple[int, int]]],
) -> list[RelationInstance | None]:
    """Truncate contexts with more than `limit` tokens around their pairs.

    Args:
        instances: Any instances.
        limit: Maximum number of tokens of a context.
        count_tokens: Counts the tokens of contexts, including tokens that the model adds.
        offsets_of: Returns the character offsets (start, end) of the tokens in a context's text.

    Returns:
        For each instance: itself, a truncated copy, or None if its two arguments are too far apart.
    """
    contexts = contexts_of(instances)
    sizes = dict(zip(contexts, count_tokens(contexts), strict=True))
    offsets: dict[Context, Sequence[tuple[int, int]]] = {}
    truncaters: dict[tuple[Context, int], ContextTruncater] = {}

    def truncated(instance: RelationInstance) -> RelationInstance | None:
        context, budget = instance.context, limit
        window: RelationInstance | None = instance
        while window is not None and sizes[window.context] > limit:
            if (context, budget) not in truncaters:
                if context not in offsets:
                    offsets[context] = offsets_of(context)
                truncaters[context, budget] = ContextTruncater(context, offsets[context], budget)
            window = truncaters[context, budget](instance)
            if window is not None and window.context not in sizes:
                sizes[window.context] = count_tokens([window.context])[0]
            # The model adds tokens of its own, whose number is only known after truncation.
            budget -= max(1, budget // 8)
        return window

    return [truncated(instance) for instance in instances]


class ContextTruncater:
    """Cuts windows of at most `budget` tokens out of a long context, around pairs of its mentions.

    Windows begin on a coarse grid, so that neighboring pairs share a context.

    Args:
        context: The context to cut.
        offsets: Character offsets (start, end) of the model's tokens in the context's text.
        budget: Maximum number of these tokens in a window.
    """

    def __init__(self, context: Context, offsets: Sequence[tuple[int, int]], budget: int) -> None:
        self.context = context
        # Zero-width tokens (a byte of a longer character, a special token) are not boundaries.
        self.starts = [start for start, end in offsets if end > start]
        self.ends = [end for start, end in offsets if end > start]
        if self.starts:  # a tokenizer may drop characters, such as zero-width spaces, and a mention may begin with one
            self.starts[0], self.ends[-1] = 0, len(context.text)
        self.budget = budget
        self._windows: dict[int, tuple[Context, dict[int, int]]] = {}

    def __call__(self, instance: RelationInstance) -> RelationInstance | None:
        """Return the instance in its window, or None if its two arguments do not fit into one."""
        mentions = (instance.head_mention, instance.tail_mention)
        first = bisect.bisect_right(self.starts, min(mention.start for mention in mentions)) - 1
        last = bisect.bisect_left(self.ends, max(mention.end for mention in mentions))
        first, last = max(first, 0), min(last, len(self.ends) - 1)
        length = last - first + 1
        if length > self.budget:
            return None
        begin = first - (self.budget - length) // 2
        begin -= begin % max(1, self.budget // 4)
        begin = max(0, min(max(begin, last + 1 - self.budget), len(self.starts) - self.budget))
        context, positions = self._window(begin)
        return RelationInstance(context, positions[instance.head], positions[instance.tail], instance.label)

    def _window(self, begin: int) -> tuple[Context, dict[int, int]]:
        if begin not in self._windows:
            start = self.starts[begin]
            end = self.ends[min(begin + self.budget, len(self.ends)) - 1]
            inside = [
                (position, mention)
                for position, mention in enumerate(self.context.mentions)
                if start <= mention.start and mention.end <= end
            ]
            context = Context(
                self.context.text[start:end], tuple(Mention(m.start - start, m.end - start, m.type) for _, m in inside)
            )
            self._windows[begin] = (context, {position: new for new, (position, _) in enumerate(inside)})
        return self._windows[begin]
