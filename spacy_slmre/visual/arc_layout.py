"""Layout of text, entities and arcs: lines of text, with as many lanes above each line as its arcs need.

An arc within a line is a bracket from head to tail. An arc to another line ends at the edge of its line and continues
at the edge of the other one, with its label on both. Arcs and labels in the same lane do not overlap, and arcs avoid
crossing other labels if there is room.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from spacy_slmre.documents import EntityMention
from spacy_slmre.visual.measure import text_width

# All sizes in pixels.
TEXT_SIZE = 15.0
LABEL_SIZE = 11.0
TYPE_SIZE = 9.0
LANE_HEIGHT = 21.0
FIRST_LANE = 16.0
TYPE_HEIGHT = 11.0
_LINE_GAP = 8.0
_PADDING = 4.0
_MARGIN = 6.0
# Longer words are broken; in characters.
_MAX_WORD = 40

# Characters of scripts without spaces, between which a line may break.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


@dataclass
class TextPiece:
    """Characters that are drawn together."""

    start: int
    end: int
    text: str
    width: float
    gap: float  # width of the space before the piece
    breaks: bool  # a line may begin here
    before: float = 0.0  # room for the frame of an entity that begins here
    after: float = 0.0  # room for the frame of an entity that ends here
    x: float = 0.0  # left end
    row: int = 0


@dataclass
class EntityBox:
    """An entity, or its part in one line; `level` is its depth of nesting."""

    entity: int
    row: int
    x: float
    width: float
    level: int
    first: bool


@dataclass
class ArcSegment:
    """An arc, or its part in one line; `x1` is the end towards the head, `x2` the one towards the tail."""

    arc: int  # number of the relation
    row: int
    x1: float
    x2: float
    label_width: float
    starts: bool  # at the head, not at the edge of the line
    ends: bool  # at the tail, not at the edge of the line
    lane: int = 0
    label: float = 0.0  # center of the label

    @property
    def left(self) -> float:
        """Left end, including the label."""
        return min(self.x1, self.x2, self.label - self.label_width / 2)

    @property
    def right(self) -> float:
        """Right end, including the label."""
        return max(self.x1, self.x2, self.label + self.label_width / 2)

    def overlaps(self, other: ArcSegment) -> bool:
        """Return whether two segments would overlap in the same lane."""
        return self.left < other.right + _MARGIN and other.left < self.right + _MARGIN

    def crosses_label(self, other: ArcSegment) -> int:
        """Return how many vertical lines of the upper segment cross the lower one's label."""
        low, high = (self, other) if self.lane < other.lane else (other, self)
        legs = [x for x, drawn in ((high.x1, high.starts), (high.x2, high.ends)) if drawn]
        return sum(abs(x - low.label) < low.label_width / 2 + 2 for x in legs)


@dataclass
class TextRow:
    """A line of text; `y` is its baseline, `top` the upper end of its lanes."""

    y: float = 0.0
    top: float = 0.0
    lanes: int = 0
    levels: int = 0


@dataclass
class ArcLayout:
    """Text, entities and arcs with their positions."""

    width: float
    right_to_left: bool = False
    height: float = 0.0
    rows: list[TextRow] = field(default_factory=list)
    pieces: list[TextPiece] = field(default_factory=list)
    boxes: list[EntityBox] = field(default_factory=list)
    segments: list[ArcSegment] = field(default_factory=list)

    def lane_y(self, segment: ArcSegment) -> float:
        """Return the height of an arc's horizontal line."""
        return self.rows[segment.row].y - TEXT_SIZE - FIRST_LANE - segment.lane * LANE_HEIGHT


def lay_out(
    text: str,
    start: int,
    end: int,
    entities: Sequence[EntityMention],
    ends: Sequence[tuple[int, int]],
    labels: Sequence[str],
    width: float,
) -> ArcLayout:
    """Lay out a part of a text.

    Args:
        text: The text of the document.
        start: Offset of the first character of the part.
        end: Offset after its last character.
        entities: The distinct entities in it.
        ends: Indices of head and tail in `entities`, for each relation.
        labels: The labels to draw on the arcs.
        width: Width of a line in pixels.
    """
    pieces = _split(text, start, end, entities)
    inside = [
        [piece for piece in pieces if entity.start <= piece.start and piece.end <= entity.end] for entity in entities
    ]
    for entity, parts in zip(entities, inside, strict=True):
        if parts:
            _add_padding(parts, text_width(entity.type, TYPE_SIZE) * 1.1 + 6)
    rows = [TextRow() for _ in range(_break_lines(pieces, width))]
    layout = ArcLayout(width, _is_right_to_left(text[start:end]), rows=rows, pieces=pieces)
    if layout.right_to_left:
        for piece in pieces:
            piece.x = width - piece.x - piece.width
        _mirror_left_to_right_words(pieces)
    for number, level in enumerate(_levels(entities)):
        layout.boxes += _boxes(number, inside[number], level)
    for box in layout.boxes:
        layout.rows[box.row].levels = max(layout.rows[box.row].levels, box.level + 1)
    layout.segments = _segments(ends, labels, layout)
    for number, row in enumerate(layout.rows):
        own = [segment for segment in layout.segments if segment.row == number]
        _choose_lanes(own, width)
        row.lanes = max((segment.lane + 1 for segment in own), default=0)
        row.top = layout.height
        row.y = row.top + row.lanes * LANE_HEIGHT + (FIRST_LANE if row.lanes else 4.0) + TEXT_SIZE
        layout.height = row.y + 7.0 + row.levels * TYPE_HEIGHT + _LINE_GAP
    if not layout.right_to_left:
        # Shrink to the content, so that a short text needs no scrolling in a narrow window.
        ends_of_text = [piece.x + piece.width + piece.after for piece in pieces]
        layout.width = max([*ends_of_text, *(segment.right for segment in layout.segments)], default=0.0) + 2
    return layout


# -- text ------------------------------------------------------------------------------------------------


def _split(text: str, start: int, end: int, entities: Sequence[EntityMention]) -> list[TextPiece]:
    cuts = sorted({edge for entity in entities for edge in (entity.start, entity.end)})
    pieces: list[TextPiece] = []
    for word in _WORD.finditer(text, start, end):
        edges = [word.start(), *(cut for cut in cuts if word.start() < cut < word.end()), word.end()]
        for first, last in pairwise(edges):
            for begin in range(first, last, _MAX_WORD):
                part = text[begin : min(begin + _MAX_WORD, last)]
                has_gap = bool(pieces) and pieces[-1].end != begin
                gap = text_width(" ", TEXT_SIZE) if has_gap else 0.0
                # Lines do not break at entity boundaries within a word.
                breaks = not pieces or has_gap or begin == word.start() or begin != first
                width = text_width(part, TEXT_SIZE)
                pieces.append(TextPiece(begin, begin + len(part), part, width, gap, breaks))
    return pieces


def _add_padding(pieces: list[TextPiece], type_width: float) -> None:
    """Add padding to an entity's pieces, with room for the name of its type."""
    pieces[0].before += _PADDING
    pieces[-1].after += _PADDING
    room = sum(piece.width + piece.gap + piece.before + piece.after for piece in pieces) - pieces[0].gap
    pieces[-1].after += max(0.0, type_width - room)


def _break_lines(pieces: list[TextPiece], width: float) -> int:
    """Assign lines and positions, and return the number of lines."""
    words: list[list[TextPiece]] = []
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


def _is_right_to_left(text: str) -> bool:
    return _direction(text) in ("R", "AL")


def _direction(text: str) -> str:
    """Return the class of the first character with a direction: L, R or AL; "" if there is none."""
    return next((found for found in map(unicodedata.bidirectional, text) if found in ("L", "R", "AL")), "")


def _mirror_left_to_right_words(pieces: list[TextPiece]) -> None:
    """Let successive words of another script, such as "New York", run from left to right in right-to-left text."""
    direction = ""

    def direction_in_row(piece: TextPiece) -> tuple[int, str]:
        nonlocal direction
        direction = _direction(piece.text) or (direction if piece.text.isalnum() else "")  # "May 1990" is one run
        return piece.row, direction

    for (_, found), group in groupby(pieces, key=direction_in_row):
        if found == "L":
            run = list(group)
            left, right = run[-1].x, run[0].x + run[0].width
            for piece in run:
                piece.x = left + right - piece.x - piece.width


# -- entities --------------------------------------------------------------------------------------------


def _levels(entities: Sequence[EntityMention]) -> list[int]:
    """Return the depth of nesting; entities that overlap get different levels."""
    levels: dict[int, int] = {}
    for number in sorted(range(len(entities)), key=lambda n: entities[n].start - entities[n].end):
        entity = entities[number]
        taken = {
            level
            for other, level in levels.items()
            if entities[other].start < entity.end and entity.start < entities[other].end
        }
        levels[number] = next(level for level in range(len(entities) + 1) if level not in taken)
    return [levels[number] for number in range(len(entities))]


def _boxes(number: int, pieces: list[TextPiece], level: int) -> list[EntityBox]:
    boxes: list[EntityBox] = []
    for row in dict.fromkeys(piece.row for piece in pieces):
        parts = [piece for piece in pieces if piece.row == row]
        left = min(piece.x - _PADDING for piece in parts)
        right = max(piece.x + piece.width + max(_PADDING, piece.after) for piece in parts)
        boxes.append(EntityBox(number, row, left, right - left, level, not boxes))
    return boxes


# -- arcs ------------------------------------------------------------------------------------------------


def _segments(ends: Sequence[tuple[int, int]], labels: Sequence[str], layout: ArcLayout) -> list[ArcSegment]:
    width = layout.width
    anchors = {box.entity: box for box in layout.boxes if box.first}
    arcs = {arc: pair for arc, pair in enumerate(ends) if pair[0] in anchors and pair[1] in anchors}
    # Each arc gets its own port on a box, ordered by where it leads, so that arcs do not cross there.
    leaving: dict[int, list[tuple[float, int, int]]] = {}
    for arc, pair in arcs.items():
        for side in (0, 1):
            box, other = anchors[pair[side]], anchors[pair[1 - side]]
            towards = other.x + width * ((other.row > box.row) - (other.row < box.row))
            leaving.setdefault(box.entity, []).append((towards, arc, side))
    ports: dict[tuple[int, int], float] = {}
    for entity, arcs_of_box in leaving.items():
        box = anchors[entity]
        inner = max(box.width - 2 * _MARGIN, 0.0)
        for number, (_, arc, side) in enumerate(sorted(arcs_of_box), 1):
            ports[arc, side] = box.x + _MARGIN + inner * number / (len(arcs_of_box) + 1)
    segments: list[ArcSegment] = []
    for arc, (head, tail) in arcs.items():
        first, last = anchors[head].row, anchors[tail].row
        x1, x2 = ports[arc, 0], ports[arc, 1]
        label_width = text_width(labels[arc], LABEL_SIZE, bold=True) + 10
        if first == last:
            segments.append(ArcSegment(arc, first, x1, x2, label_width, True, True))
        else:
            forward = (first < last) != layout.right_to_left
            exit, entry = (width, 0.0) if forward else (0.0, width)
            segments.append(ArcSegment(arc, first, x1, exit, label_width, True, False))
            segments.append(ArcSegment(arc, last, entry, x2, label_width, False, True))
    return segments


def _choose_lanes(segments: list[ArcSegment], width: float) -> None:
    placed: list[ArcSegment] = []
    for segment in sorted(segments, key=lambda segment: max(abs(segment.x1 - segment.x2), segment.label_width)):
        best: tuple[int, int, float] | None = None
        for lane in range(len(segments) + 1):
            for share in (0.5, 0.35, 0.65, 0.2, 0.8):
                segment.lane = lane
                segment.label = _label_position(segment, share, width)
                if any(segment.overlaps(other) for other in placed if other.lane == lane):
                    continue
                crossed = sum(segment.crosses_label(other) for other in placed)
                if best is None or crossed < best[0]:
                    best = crossed, lane, segment.label
            # Use up to three more lanes to avoid crossing a label.
            if best is not None and (best[0] == 0 or lane >= best[1] + 3):
                break
        assert best is not None, "the topmost lane is free"
        _, segment.lane, segment.label = best
        placed.append(segment)


def _label_position(segment: ArcSegment, share: float, width: float) -> float:
    low, high = min(segment.x1, segment.x2), max(segment.x1, segment.x2)
    half = segment.label_width / 2
    if high - low > segment.label_width + 8:
        position = min(max(low + share * (high - low), low + half + 4), high - half - 4)
    else:
        position = (low + high) / 2
    return min(max(position, half), max(width - half, half))
