"""Relation instances: a pair of entities in its context, as both kinds of model read it.

Nothing here depends on a model, and the models know no spaCy `Doc`: they receive these instances.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.relations import PAIRS, RELATIONS, Relation
from spacy_slmre.schema import LabelSchema


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """An entity in a context: character offsets into its text, and the mapped entity type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, eq=False)
class Context:
    """A sentence or window with all the mentions that are asked about in it, in text order.

    Instances of one context share the object, and models compute it once: contexts are compared by
    identity. The mentions belong to the context and not to a batch, so that an answer does not depend
    on which pairs happen to be asked together.
    """

    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, eq=False, slots=True)
class RelationInstance:
    """An ordered pair of mentions, to be labelled.

    Attributes:
        context: Text and mentions.
        head: Position of the head in `context.mentions`.
        tail: Position of the tail in `context.mentions`.
        label: The gold label where one is known.
    """

    context: Context
    head: int
    tail: int
    label: str | None = None

    @property
    def head_mention(self) -> Mention:
        """The head's offsets and type."""
        return self.context.mentions[self.head]

    @property
    def tail_mention(self) -> Mention:
        """The tail's offsets and type."""
        return self.context.mentions[self.tail]

    def text_of(self, mention: Mention) -> str:
        """The words of a mention."""
        return self.context.text[mention.start : mention.end]

    @classmethod
    def from_offsets(
        cls,
        text: str,
        head: tuple[int, int, str],
        tail: tuple[int, int, str],
        label: str | None = None,
    ) -> RelationInstance:
        """One pair with a context of its own; head and tail are (start, end, type) in characters.

        Raises:
            ValueError: An offset lies outside the text, or an argument is empty.
        """
        mentions = [Mention(*head), Mention(*tail)]
        for mention in mentions:
            if not 0 <= mention.start < mention.end <= len(text):
                raise ValueError(
                    f"The argument [{mention.start}:{mention.end}] lies outside the text {text!r}."
                )
        ordered = sorted(set(mentions))
        context = Context(text, tuple(ordered))
        return cls(context, ordered.index(mentions[0]), ordered.index(mentions[1]), label)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: text, head and tail as [start, end, type], label."""
        sides = {
            side: [mention.start, mention.end, mention.type]
            for side, mention in (("head", self.head_mention), ("tail", self.tail_mention))
        }
        return {"text": self.context.text, **sides, "label": self.label}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RelationInstance:
        """The inverse of `to_dict`; mentions other than the two arguments are not kept.

        Raises:
            ValueError: A field is missing or has the wrong form.
        """
        try:
            head, tail = (_offsets(data[side]) for side in ("head", "tail"))
            if not isinstance(data["text"], str):
                raise TypeError("the text is no text")
            return cls.from_offsets(data["text"], head, tail, data.get("label"))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'An instance has "text", and "head" and "tail" as [start, end, type]; found {data!r}.'
            ) from error


def _offsets(values: Sequence) -> tuple[int, int, str]:
    if len(values) != 3:
        raise TypeError("an argument has three parts")
    start, end, entity_type = values
    return int(start), int(end), str(entity_type)


def make_instances(
    doc: Doc,
    pairs: Sequence[tuple[Span, Span]],
    schema: LabelSchema,
    labels: Sequence[str] | None = None,
) -> list[RelationInstance]:
    """The instances of candidate pairs, in their order, with gold labels where these are given.

    The context of a pair is the sentence that holds both arguments, or all sentences from the one's to
    the other's; in a document without sentence boundaries it is the whole text.
    """
    starts = [sent.start for sent in doc.sents] if doc.has_annotation("SENT_START") else [0]
    starts.append(len(doc))
    places: list[tuple[int, int]] = []
    spans_at: dict[tuple[int, int], set[tuple[int, int, str]]] = {}
    for head, tail in pairs:
        first = bisect.bisect_right(starts, min(head.start, tail.start)) - 1
        beyond = bisect.bisect_left(starts, max(head.end, tail.end))
        place = (starts[first], starts[beyond])
        places.append(place)
        spans_at.setdefault(place, set()).update(_bounds(span) for span in (head, tail))

    contexts: dict[tuple[int, int], tuple[Context, dict[tuple[int, int, str], int]]] = {}
    for place, spans in spans_at.items():
        window = doc[place[0] : place[1]]
        # White space at the edges would only cost tokens; offsets count from the first other character.
        text = window.text.strip()
        offset = window.start_char + len(window.text) - len(window.text.lstrip())
        ordered = sorted(spans)
        mentions = tuple(
            # An entity may begin or end with white space that is cut off here.
            Mention(max(start - offset, 0), min(end - offset, len(text)), schema.map_type(label))
            for start, end, label in ordered
        )
        contexts[place] = (
            Context(text, mentions),
            {bounds: position for position, bounds in enumerate(ordered)},
        )
    instances = []
    gold: Sequence[str | None] = [None] * len(pairs) if labels is None else labels
    for (head, tail), place, label in zip(pairs, places, gold, strict=True):
        context, positions = contexts[place]
        bounds = positions[_bounds(head)], positions[_bounds(tail)]
        instances.append(RelationInstance(context, *bounds, label))
    return instances


def make_gold_instances(doc: Doc, schema: LabelSchema) -> list[RelationInstance]:
    """The labelled instances of a gold document: its annotated pairs or, where it has none, its relations.

    A pair with several labels gives several instances, which share their context.
    """
    annotated: Sequence[Relation] = getattr(doc._, PAIRS) or getattr(doc._, RELATIONS)
    pairs = [(relation.head, relation.tail) for relation in annotated]
    return make_instances(doc, pairs, schema, [relation.label for relation in annotated])


def _bounds(span: Span) -> tuple[int, int, str]:
    return span.start_char, span.end_char, span.label_


def contexts_of(instances: Iterable[RelationInstance]) -> list[Context]:
    """The contexts of instances, each once (they are compared by identity)."""
    return list(dict.fromkeys(instance.context for instance in instances))


def shorten(
    instances: Sequence[RelationInstance],
    limit: int,
    *,
    count_tokens: Callable[[Sequence[Context]], list[int]],
    offsets_of: Callable[[Context], Sequence[tuple[int, int]]],
) -> list[RelationInstance | None]:
    """Shorten the contexts that have too many of a model's tokens around their pairs.

    Args:
        instances: Any instances.
        limit: Most tokens of a context.
        count_tokens: How many tokens contexts have, whatever the model adds to them included.
        offsets_of: Character offsets (start, end) of the tokens in a context's text.

    Returns:
        For every instance itself, its shortened form, or None where its two arguments stand farther apart
        than that.
    """
    contexts = contexts_of(instances)
    sizes = dict(zip(contexts, count_tokens(contexts), strict=True))
    offsets: dict[Context, Sequence[tuple[int, int]]] = {}
    shorteners: dict[tuple[Context, int], Shortener] = {}

    def shortened(instance: RelationInstance) -> RelationInstance | None:
        whole, budget = instance.context, limit
        window: RelationInstance | None = instance
        while window is not None and sizes[window.context] > limit:
            if (whole, budget) not in shorteners:
                if whole not in offsets:
                    offsets[whole] = offsets_of(whole)
                shorteners[whole, budget] = Shortener(whole, offsets[whole], budget)
            window = shorteners[whole, budget](instance)
            if window is not None and window.context not in sizes:
                sizes[window.context] = count_tokens([window.context])[0]
            # What a model adds takes tokens too; how many is known only of a window that is cut.
            budget -= max(1, budget // 8)
        return window

    return [shortened(instance) for instance in instances]


class Shortener:
    """Cuts one long context to windows of at most `budget` tokens around pairs of its mentions.

    Windows begin on a coarse grid, so that pairs that stand close together share one context.

    Args:
        context: The context to cut.
        offsets: Character offsets (start, end) of the model's tokens in the context's text.
        budget: How many of these tokens a window may have.
    """

    def __init__(self, context: Context, offsets: Sequence[tuple[int, int]], budget: int) -> None:
        self.context = context
        # Tokens of no width (a byte of a longer character, a special token) bound nothing.
        self.starts = [start for start, end in offsets if end > start]
        self.ends = [end for start, end in offsets if end > start]
        self.budget = budget
        self._windows: dict[int, tuple[Context, dict[int, int]]] = {}

    def __call__(self, instance: RelationInstance) -> RelationInstance | None:
        """The instance in its window, or None where its two arguments do not fit into one."""
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
                self.context.text[start:end],
                tuple(Mention(m.start - start, m.end - start, m.type) for _, m in inside),
            )
            self._windows[begin] = (context, {position: new for new, (position, _) in enumerate(inside)})
        return self._windows[begin]
