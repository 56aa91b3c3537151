"""What the readers of all annotation tools share: collecting entities and relations, and rejecting the rest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from spacy_slmre.corpus.records import Malformed, Pair, Record, Reject
from spacy_slmre.documents import UNTYPED, EntityMention
from spacy_slmre.instances import Mention
from spacy_slmre.util.json_files import is_int


class RecordBuilder:
    """Collects the entities, relations and clusters of one text; whatever cannot be represented becomes a reject.

    Args:
        text: The text.
        line: Line or row number in the source.
        id: Identifier of the text.
        file: The file, if the source is a folder.
        sentences: Start and end of each sentence, if they are known.

    Raises:
        Malformed: The text is not a string, or is empty.
    """

    def __init__(
        self, text: Any, *, line: int, id: str, file: str = "", sentences: Iterable[tuple[int, int]] | None = None
    ) -> None:
        if not isinstance(text, str) or not text.strip():
            raise Malformed("the text is not a string, or is empty")
        self.text, self.line, self.id, self.file = text, line, id, file
        self.sentences = None if sentences is None else tuple(sentences)
        self.rejects: list[Reject] = []
        self._entities: dict[Hashable, EntityMention] = {}
        self._invalid: set[Hashable] = set()
        self._utf16: Utf16Offsets | None = None
        self._pairs: dict[Pair, None] = {}
        self._clusters: list[tuple[Mention, ...]] = []
        self._n_relations = 0

    def reject(self, reason: str, detail: str) -> None:
        """Count something that cannot be converted."""
        self.rejects.append(Reject(self.line, self.id, reason, detail, self.file))

    def choose_units(self, entities: Iterable[tuple[Any, Any, Any]]) -> None:
        """Decide what offsets count, for all entities of the text: characters, unless more are right in UTF-16 units.

        Args:
            entities: Start, end and text of entities; a text that is no string is ignored.
        """
        convert, score = Utf16Offsets(self.text), 0
        for start, end, covered in entities:
            if isinstance(covered, str) and is_int(start) and is_int(end):
                score += self._covers(convert(start), convert(end), covered) - self._covers(start, end, covered)
        self._utf16 = convert if score > 0 else None

    def add_entity(self, key: Hashable, start: Any, end: Any, type: Any = None, *, covered: str | None = None) -> None:
        """Add an entity, unless it is invalid.

        Args:
            key: What relations refer to it by.
            start: Offset of its first character.
            end: Offset after its last character.
            type: Its entity type, if any.
            covered: Its text, if the source contains it. Offsets in UTF-16 code units are recognized by it.
        """
        try:
            start, end = self._check_offsets(start, end, covered)
            if not isinstance(type, str | None):
                raise Malformed(f"the entity type {type!r} is not a string")
        except Malformed as error:
            self._invalid.add(key)
            self.reject("invalid entity", f"{key!r}: {error}")
            return
        if key in self._entities or key in self._invalid:
            self.reject("repeated id", f"the entity id {key!r} occurs several times")
            if key in self._entities and (self._entities[key].start, self._entities[key].end) != (start, end):
                self._invalid.add(key)  # relations do not tell which one they mean
            return
        self._entities[key] = EntityMention(start, end, self.text[start:end], type or UNTYPED)

    def reject_entity(self, key: Hashable, reason: str, detail: str) -> None:
        """Reject an entity, and thereby the relations that refer to it."""
        self._invalid.add(key)
        self.reject(reason, f"{key!r}: {detail}")

    def reject_relation(self, reason: str, detail: str) -> None:
        """Reject a relation before its arguments are known."""
        self._n_relations += 1
        self.reject(reason, detail)

    def key_at(self, start: Any, end: Any, type: Any = None) -> Hashable:
        """Return the key of the entity at these offsets, preferably of this type; add one if there is none."""
        known = [key for key, one in self._entities.items() if (one.start, one.end) == (start, end)]
        known.sort(key=lambda key: self._entities[key].type != type)
        key = known[0] if known else ("at", start, end)
        if key not in self._entities and key not in self._invalid:
            self.add_entity(key, start, end, type)
        return key

    def add_relation(self, head: Hashable, tail: Hashable, label: Any) -> None:
        """Add a relation between two entities, given by their keys, unless it is invalid."""
        self._n_relations += 1
        label = label.strip() if isinstance(label, str) else label
        for key in (head, tail):
            if key in self._invalid:
                self.reject("relation of a rejected entity", f"{label!r}: the entity {key!r} was rejected")
                return
            if key not in self._entities:
                self.reject("relation of a missing entity", f"{label!r}: there is no entity {key!r}")
                return
        if not isinstance(label, str) or not label:
            shown = " and ".join(repr(self._entities[key].text) for key in (head, tail))
            self.reject("relation without a label", f"between {shown}")
            return
        self._pairs[Pair(self._mention(head), self._mention(tail), label)] = None

    def add_cluster(self, keys: Sequence[Hashable]) -> None:
        """Add entities, given by their keys, that are mentions of the same entity."""
        known = [key for key in keys if key in self._entities and key not in self._invalid]
        if len(known) < len(keys):
            missing = ", ".join(repr(key) for key in keys if key not in known)
            self.reject("coreference of a missing entity", missing)
        self.add_spans_as_cluster([(self._entities[key].start, self._entities[key].end) for key in known])

    def add_spans_as_cluster(self, spans: Iterable[tuple[int, int]]) -> None:
        """Add mentions of the same entity that need not be entities themselves; a single mention is no cluster."""
        cluster = tuple(Mention(start, end, "") for start, end in sorted(set(spans)))
        if len(cluster) > 1:
            self._clusters.append(cluster)

    def build(self) -> Iterator[Record | Reject]:
        """Yield all rejects, and the record unless all of its relations were rejected.

        Without its relations, all pairs of the text would wrongly be negative.
        """
        if self._n_relations and not self._pairs:
            self.reject("no relation left", f"all {self._n_relations} relations of the text were rejected")
        yield from self.rejects
        if self._pairs or not self._n_relations:
            yield Record(
                self.id,
                self.line,
                self.text,
                tuple(self._pairs),
                tuple(self._entities.values()),
                complete=True,
                sentences=self.sentences,
                clusters=tuple(self._clusters),
            )

    def _mention(self, key: Hashable) -> Mention:
        entity = self._entities[key]
        return Mention(entity.start, entity.end, entity.type)

    def _check_offsets(self, start: Any, end: Any, covered: str | None) -> tuple[int, int]:
        if not (is_int(start) and is_int(end)):
            raise Malformed(f"the offsets {start!r} and {end!r} are not whole numbers")
        if self._utf16 is not None:
            first, last = self._utf16(start), self._utf16(end)
            if covered is None or self._covers(first, last, covered):
                start, end, covered = first, last, None
        if covered is None or self._covers(start, end, covered):
            if not 0 <= start < end <= len(self.text):
                raise Malformed(f"[{start}:{end}] is outside of the text, which has {len(self.text)} characters")
            if not self.text[start:end].strip():
                raise Malformed(f"[{start}:{end}] is white space")
            return start, end
        convert = Utf16Offsets(self.text)
        if self._covers(convert(start), convert(end), covered):
            return convert(start), convert(end)
        raise Malformed(f"[{start}:{end}] is {self.text[max(start, 0) : max(end, 0)]!r}, not {covered!r}")

    def _covers(self, start: int, end: int, covered: str) -> bool:
        return 0 <= start < end <= len(self.text) and _without_space(self.text[start:end]) == _without_space(covered)


class Utf16Offsets:
    """Converts offsets in UTF-16 code units, which tools in JavaScript and Java count, to offsets in characters."""

    def __init__(self, text: str) -> None:
        wide = (position for position, character in enumerate(text) if ord(character) > 0xFFFF)
        self._wide = [position + number for number, position in enumerate(wide)]

    def __call__(self, offset: int) -> int:
        """Return the offset in characters."""
        return offset - bisect_left(self._wide, offset)


def _without_space(text: str) -> str:
    # Tools normalize white space when they copy the text of an entity, and some spell out line breaks.
    return "".join(text.replace("\\n", " ").split())
