"""Where text, entities and arcs stand: lines of text, and above each line as many lanes as its arcs need.

An arc within a line is a bracket from head to tail. One that goes to another line leaves at the end of its
line and comes back at the start of the other, with its label on both. Within a lane nothing overlaps, labels
included; legs keep out of the way of labels of other arcs where there is room.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from spacy_slmre.documents import DocumentRelation, EntityMention
from spacy_slmre.visual.measure import text_width

TEXT_SIZE = 15.0
LABEL_SIZE = 11.0
TYPE_SIZE = 9.0
LANE = 21.0
BASE_LANE = 16.0
LINE = 22.0
TYPE_LINE = 11.0
_LINE_GAP = 8.0
_PADDING = 4.0
_MARGIN = 6.0
# A word that no line could hold is cut into pieces of this many characters.
_LONGEST = 40

# Scripts without spaces break anywhere, and everything else at white space.
_PIECE = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]|[^\\s\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+"
)


@dataclass
class Piece:
    """Characters that are drawn together: `x` is their left end, in pixels."""

    start: int
    end: int
    text: str
    width: float
    before: float = 0.0
    after: float = 0.0
    gap: float = 0.0
    breaks: bool = True
    x: float = 0.0
    row: int = 0


@dataclass
class Box:
    """An entity, or the part of it that stands in one line."""

    entity: int
    row: int
    x: float
    width: float
    level: int
    first: bool


@dataclass
class Segment:
    """An arc, or the part of it that stands in one line.

    Attributes:
        arc: Number of the relation.
        row: The line.
        x1: Where it begins, at the head.
        x2: Where it ends, at the tail.
        label: Centre of its label.
        label_width: Width of its label.
        lane: How far above the text, from 0.
        starts: It begins at the head here (otherwise it comes from another line).
        ends: It ends at the tail here.
    """

    arc: int
    row: int
    x1: float
    x2: float
    label: float
    label_width: float
    starts: bool
    ends: bool
    lane: int = 0

    @property
    def left(self) -> float:
        """Left end of the line, label included."""
        return min(self.x1, self.x2, self.label - self.label_width / 2)

    @property
    def right(self) -> float:
        """Right end of the line, label included."""
        return max(self.x1, self.x2, self.label + self.label_width / 2)

    @property
    def legs(self) -> list[float]:
        """Where it goes down to the text."""
        return [x for x, there in ((self.x1, self.starts), (self.x2, self.ends)) if there]

    def label_meets(self, x: float) -> bool:
        """Whether a leg at `x` runs through the label."""
        return abs(x - self.label) < self.label_width / 2 + 2


@dataclass
class Row:
    """A line of text: `y` is its baseline, `top` the upper end of its lanes."""

    y: float = 0.0
    top: float = 0.0
    lanes: int = 0
    levels: int = 0


@dataclass
class ArcLayout:
    """Everything with its place, in pixels."""

    width: float
    height: float
    rows: list[Row]
    pieces: list[Piece]
    boxes: list[Box]
    segments: list[Segment]

    def lane_y(self, segment: Segment) -> float:
        """Height of the line of an arc."""
        return self.rows[segment.row].y - TEXT_SIZE - BASE_LANE - segment.lane * LANE


def lay_out(
    text: str,
    start: int,
    end: int,
    entities: Sequence[EntityMention],
    relations: Sequence[tuple[DocumentRelation, int, int]],
    labels: Sequence[str],
    width: float,
) -> ArcLayout:
    """Lay out a stretch of a text.

    Args:
        text: The whole text, which offsets count.
        start: First character of the stretch.
        end: Character after its last.
        entities: The entities in it, none twice.
        relations: Relations, with the numbers of their head and tail in `entities`.
        labels: What is written on each of them.
        width: Width of a line, in pixels.
    """
    pieces = _pieces(text, start, end, entities)
    levels = _levels(entities)
    _make_room(pieces, entities)
    rows = [Row() for _ in range(_break_lines(pieces, width))]
    right = _right_to_left(text[start:end])
    if right:
        for piece in pieces:
            piece.x = width - piece.x - piece.width
    boxes_of = {
        number: _boxes(number, entity, pieces, levels[number]) for number, entity in enumerate(entities)
    }
    for boxes in boxes_of.values():
        for box in boxes:
            rows[box.row].levels = max(rows[box.row].levels, box.level + 1)
    segments = _segments(relations, labels, boxes_of, width, right)
    for number, row in enumerate(rows):
        own = [segment for segment in segments if segment.row == number]
        _choose_lanes(own, width)
        row.lanes = max((segment.lane + 1 for segment in own), default=0)
    height = _stack(rows)
    boxes = [box for found in boxes_of.values() for box in found]
    return ArcLayout(width, height, rows, pieces, boxes, segments)


# -- text ------------------------------------------------------------------------------------------------


def _pieces(text: str, start: int, end: int, entities: Sequence[EntityMention]) -> list[Piece]:
    cuts = sorted({edge for entity in entities for edge in (entity.start, entity.end)})
    pieces: list[Piece] = []
    for match in _PIECE.finditer(text, start, end):
        edges = [match.start(), *(cut for cut in cuts if match.start() < cut < match.end()), match.end()]
        for first, last in pairwise(edges):
            for begin in range(first, last, _LONGEST):
                stop = min(begin + _LONGEST, last)
                gap = bool(pieces) and text[pieces[-1].end : begin] != ""
                glued = bool(pieces) and not gap and begin != match.start()
                pieces.append(
                    Piece(
                        begin,
                        stop,
                        text[begin:stop],
                        text_width(text[begin:stop], TEXT_SIZE),
                        gap=text_width(" ", TEXT_SIZE) if gap else 0.0,
                        breaks=not glued or begin != first,
                    )
                )
    return pieces


def _make_room(pieces: list[Piece], entities: Sequence[EntityMention]) -> None:
    """Space inside the frame of an entity, and enough of it for the name of its type."""
    for entity in entities:
        inside = [piece for piece in pieces if entity.start <= piece.start and piece.end <= entity.end]
        if not inside:
            continue
        inside[0].before += _PADDING
        inside[-1].after += _PADDING
        room = sum(piece.width + piece.gap + piece.before + piece.after for piece in inside) - inside[0].gap
        inside[-1].after += max(0.0, text_width(entity.type, TYPE_SIZE) * 1.1 + 6 - room)


def _break_lines(pieces: list[Piece], width: float) -> int:
    """Give pieces their line and place; returns the number of lines."""
    words: list[list[Piece]] = []
    for piece in pieces:
        if piece.breaks or not words:
            words.append([piece])
        else:
            words[-1].append(piece)
    x, row = 0.0, 0
    for word in words:
        length = sum(piece.before + piece.width + piece.after for piece in word)
        if x and x + word[0].gap + length > width:
            x, row = 0.0, row + 1
        for piece in word:
            x += piece.gap if x else 0.0
            piece.x, piece.row = x + piece.before, row
            x += piece.before + piece.width + piece.after
    return row + 1


def _right_to_left(text: str) -> bool:
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


# -- entities --------------------------------------------------------------------------------------------


def _levels(entities: Sequence[EntityMention]) -> list[int]:
    """How deep each entity lies within others; entities that overlap have different levels."""
    levels = [0] * len(entities)
    placed: list[int] = []
    for number in sorted(range(len(entities)), key=lambda n: entities[n].start - entities[n].end):
        entity = entities[number]
        taken = {
            levels[other]
            for other in placed
            if entities[other].start < entity.end and entity.start < entities[other].end
        }
        levels[number] = next(level for level in range(len(entities) + 1) if level not in taken)
        placed.append(number)
    return levels


def _boxes(number: int, entity: EntityMention, pieces: list[Piece], level: int) -> list[Box]:
    boxes: list[Box] = []
    inside = [piece for piece in pieces if entity.start <= piece.start and piece.end <= entity.end]
    for row in dict.fromkeys(piece.row for piece in inside):
        there = [piece for piece in inside if piece.row == row]
        left = min(piece.x - _PADDING for piece in there)
        right = max(piece.x + piece.width + max(_PADDING, piece.after) for piece in there)
        boxes.append(Box(number, row, left, right - left, level, not boxes))
    return boxes


# -- arcs ------------------------------------------------------------------------------------------------


def _segments(
    relations: Sequence[tuple[DocumentRelation, int, int]],
    labels: Sequence[str],
    boxes_of: dict[int, list[Box]],
    width: float,
    right_to_left: bool,
) -> list[Segment]:
    # Every arc gets a port of its own on a box, ordered by where it goes, so that legs do not cross there.
    ends: dict[int, list[tuple[float, int, int]]] = {}
    anchors = {number: boxes[0] for number, boxes in boxes_of.items() if boxes}
    arcs = [
        (arc, head, tail)
        for arc, (_, head, tail) in enumerate(relations)
        if head in anchors and tail in anchors
    ]
    for arc, head, tail in arcs:
        for side, (own, other) in enumerate(((head, tail), (tail, head))):
            ends.setdefault(own, []).append((_towards(anchors[own], anchors[other], width), arc, side))
    ports: dict[tuple[int, int], float] = {}
    for entity, found in ends.items():
        box = anchors[entity]
        inner = max(box.width - 2 * _MARGIN, 0.0)
        for number, (_, arc, side) in enumerate(sorted(found), 1):
            ports[arc, side] = box.x + _MARGIN + inner * number / (len(found) + 1)
    segments: list[Segment] = []
    for arc, head, tail in arcs:
        x1, x2 = ports[arc, 0], ports[arc, 1]
        first, last = anchors[head].row, anchors[tail].row
        label_width = text_width(labels[arc], LABEL_SIZE) + 10

        def add(row: int, begin: float, stop: float, starts: bool, stops: bool) -> None:
            segments.append(Segment(arc, row, begin, stop, 0.0, label_width, starts, stops))  # noqa: B023

        if first == last:
            add(first, x1, x2, True, True)
        else:
            # The line ends where reading goes on to the next one.
            after, before = (0.0, width) if right_to_left else (width, 0.0)
            leaving, coming = (after, before) if first < last else (before, after)
            add(first, x1, leaving, True, False)
            add(last, coming, x2, False, True)
    return segments


def _towards(own: Box, other: Box, width: float) -> float:
    if own.row == other.row:
        return other.x
    return width + other.x if other.row > own.row else other.x - width


def _choose_lanes(segments: list[Segment], width: float) -> None:
    placed: list[Segment] = []
    for segment in sorted(segments, key=lambda one: max(abs(one.x1 - one.x2), one.label_width)):
        best: tuple[int, int, float] | None = None
        for lane in range(len(segments) + 1):
            for share in (0.5, 0.35, 0.65, 0.2, 0.8):
                segment.lane = lane
                segment.label = _label_place(segment, share, width)
                if any(_overlap(segment, other) for other in placed if other.lane == lane):
                    continue
                crossed = _crossings(segment, placed)
                if best is None or crossed < best[0]:
                    best = crossed, lane, segment.label
            # A few lanes more are a fair price for labels that no leg runs through, many are not.
            if best is not None and (best[0] == 0 or lane >= best[1] + 3):
                break
        assert best is not None, "the lane above all others is free"
        _, segment.lane, segment.label = best
        placed.append(segment)


def _label_place(segment: Segment, share: float, width: float) -> float:
    low, high = min(segment.x1, segment.x2), max(segment.x1, segment.x2)
    half = segment.label_width / 2
    if high - low > segment.label_width + 8:
        place = min(max(low + share * (high - low), low + half + 4), high - half - 4)
    else:
        place = (low + high) / 2
    return min(max(place, half), max(width - half, half))


def _overlap(one: Segment, other: Segment) -> bool:
    return one.left < other.right + _MARGIN and other.left < one.right + _MARGIN


def _crossings(segment: Segment, placed: list[Segment]) -> int:
    crossed = 0
    for other in placed:
        low, high = (segment, other) if segment.lane < other.lane else (other, segment)
        crossed += sum(low.label_meets(x) for x in high.legs)
    return crossed


def _stack(rows: list[Row]) -> float:
    y = 0.0
    for row in rows:
        row.top = y
        y += row.lanes * LANE + (BASE_LANE if row.lanes else 4.0) + TEXT_SIZE
        row.y = y
        y += 7.0 + row.levels * TYPE_LINE + _LINE_GAP
    return y
