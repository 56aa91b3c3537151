"""A document as blocks: sentences whose relations are drawn together, and the text between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.visual import arcs
from spacy_slmre.visual.colors import color_of
from spacy_slmre.visual.options import ViewOptions

_RADIUS = 7.0


@dataclass(frozen=True)
class Style:
    """Looks that all blocks of a picture share.

    Attributes:
        options: The options.
        colors: Colours by entity type.
        relations: Style attributes by label.
        scores: Write scores beside labels.
    """

    options: ViewOptions
    colors: Mapping[str, str]
    relations: Mapping[str, str]
    scores: bool


@dataclass(frozen=True)
class PlainBlock:
    """Sentences without relations, as HTML."""

    html: Markup


@dataclass(frozen=True)
class Frame:
    """The frame of an entity in one line, with the name of its type where it is the first."""

    x: float
    y: float
    width: float
    height: float
    color: str
    type: str
    type_y: float
    words: str


@dataclass(frozen=True)
class Arc:
    """A relation: its lines and their ends as SVG paths, its labels, and the frames that it joins."""

    style: str
    says: str
    line: str
    tips: str
    labels: list[tuple[float, float, float, str, str]]
    frames: list[Frame]


@dataclass(frozen=True)
class ArcBlock:
    """Sentences with relations, and all that is drawn of them."""

    text: str
    width: float
    height: float
    pieces: list[tuple[float, float, float, str]]
    frames: list[Frame]
    arcs: list[Arc]


def make_blocks(document: RelationDocument, style: Style) -> Iterator[PlainBlock | ArcBlock]:
    """The blocks of a document in text order; a relation across sentences joins them to one block."""
    shown = [one for one in document.relations if style.options.shows(one.label, one.score)]
    bounds = _join_sentences(document, shown)
    plain_from: int | None = None
    for start, end, related in bounds:
        if not related:
            plain_from = start if plain_from is None else plain_from
            plain_to = end
            continue
        if plain_from is not None and style.options.sentences == "all":
            yield _plain(document, plain_from, plain_to, style)
        plain_from = None
        yield _arc_block(document, start, end, shown, style)
    if plain_from is not None and style.options.sentences == "all":
        yield _plain(document, plain_from, plain_to, style)


def sentence_of(document: RelationDocument, relation: DocumentRelation) -> str:
    """The text of the sentence of a relation, in one line."""
    start, end = document.sentence_of(relation)
    return " ".join(document.text[start:end].split())


def _join_sentences(
    document: RelationDocument, relations: list[DocumentRelation]
) -> list[tuple[int, int, bool]]:
    """Start, end and whether it has relations, of sentences and of those that relations join."""
    spans = sorted((*document.sentence_of(one), True) for one in relations)
    spans += [(start, end, False) for start, end in document.sentence_bounds]
    joined: list[tuple[int, int, bool]] = []
    for start, end, related in sorted(spans, key=lambda span: (span[0], -span[1])):
        if joined and start < joined[-1][1]:
            last = joined[-1]
            joined[-1] = last[0], max(last[1], end), last[2] or related
        else:
            joined.append((start, end, related))
    return joined


def _plain(document: RelationDocument, start: int, end: int, style: Style) -> PlainBlock:
    html = Markup()
    position = start
    for entity in document.entities:
        if entity.start >= position and entity.end <= end:
            html += escape(document.text[position : entity.start])
            html += Markup('<mark style="--entity: {}">{}<small>{}</small></mark>').format(
                color_of(entity.type, style.colors), entity.text, entity.type
            )
            position = entity.end
    return PlainBlock(html + escape(document.text[position:end]))


def _arc_block(
    document: RelationDocument, start: int, end: int, relations: list[DocumentRelation], style: Style
) -> ArcBlock:
    inside = [one for one in relations if all(start <= side.start < end for side in (one.head, one.tail))]
    found = {_place(one): one for one in document.entities if start <= one.start and one.end <= end}
    for relation in inside:
        found |= {_place(side): side for side in (relation.head, relation.tail)}
    entities = [found[place] for place in sorted(found)]
    number = {_place(entity): n for n, entity in enumerate(entities)}
    labels = [f"{one.label} {one.score:.2f}" if style.scores else one.label for one in inside]
    layout = arcs.lay_out(
        document.text,
        start,
        end,
        entities,
        [(one, number[_place(one.head)], number[_place(one.tail)]) for one in inside],
        labels,
        float(style.options.width),
    )
    frames = {box_id: _frame(layout, box, entities, style) for box_id, box in enumerate(layout.boxes)}
    frames_of: dict[int, list[Frame]] = {}
    for box_id, box in enumerate(layout.boxes):
        frames_of.setdefault(box.entity, []).append(frames[box_id])
    drawn = []
    for arc, relation in enumerate(inside):
        segments = [segment for segment in layout.segments if segment.arc == arc]
        if not segments:  # an argument of nothing but white space has no place in the picture
            continue
        places = []
        for segment in segments:
            y = layout.lane_y(segment)
            score = f"{relation.score:.2f}" if style.scores else ""
            places.append((segment.label, y, segment.label_width - 4, relation.label, score))
        ends = [*frames_of[number[_place(relation.head)]], *frames_of[number[_place(relation.tail)]]]
        drawn.append(
            Arc(
                style.relations[relation.label],
                f"{relation.head.text} – {relation.label} – {relation.tail.text}, score {relation.score:.2f}",
                " ".join(_line(layout, segment) for segment in segments),
                " ".join(_tip(layout, segment) for segment in segments),
                places,
                ends,
            )
        )
    return ArcBlock(
        document.text[start:end],
        layout.width,
        layout.height,
        _runs(layout),
        list(frames.values()),
        drawn,
    )


def _runs(layout: arcs.ArcLayout) -> list[tuple[float, float, float, str]]:
    """Middle, baseline, width and words of each stretch of text that can be drawn at once."""
    runs: list[list[arcs.Piece]] = []
    for piece in layout.pieces:
        last = runs[-1][-1] if runs else None
        # The frame of an entity takes room before and after it; words from right to left stand one by one.
        if last and last.row == piece.row and last.x < piece.x and not last.after and not piece.before:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    drawn = []
    for run in runs:
        left, right = run[0].x, run[-1].x + run[-1].width
        words = "".join((" " if piece.gap and piece is not run[0] else "") + piece.text for piece in run)
        drawn.append(((left + right) / 2, layout.rows[run[0].row].y, right - left, words))
    return drawn


def _frame(layout: arcs.ArcLayout, box: arcs.Box, entities: list[EntityMention], style: Style) -> Frame:
    entity, y = entities[box.entity], layout.rows[box.row].y
    inset = 1.5 * box.level
    return Frame(
        box.x + inset,
        y - arcs.TEXT_SIZE - 1 + inset,
        box.width - 2 * inset,
        arcs.TEXT_SIZE + 7 - 2 * inset,
        color_of(entity.type, style.colors),
        entity.type if box.first else "",
        y + 6 + (box.level + 1) * arcs.TYPE_LINE - 2,
        entity.text,
    )


def _line(layout: arcs.ArcLayout, segment: arcs.Segment) -> str:
    """A bracket with round corners; what comes from another line or goes to one has no leg there."""
    top, foot = layout.lane_y(segment), layout.rows[segment.row].y - arcs.TEXT_SIZE - 2
    sign = 1 if segment.x2 >= segment.x1 else -1
    round_by = min(_RADIUS, abs(segment.x2 - segment.x1) / 2)
    path = f"M{segment.x1:.1f} {top:.1f}"
    if segment.starts:
        corner = segment.x1 + sign * round_by
        path = f"M{segment.x1:.1f} {foot:.1f}V{top + round_by:.1f}"
        path += f"Q{segment.x1:.1f} {top:.1f} {corner:.1f} {top:.1f}"
    if segment.ends:
        corner = segment.x2 - sign * round_by
        path += (
            f"H{corner:.1f}Q{segment.x2:.1f} {top:.1f} {segment.x2:.1f} {top + round_by:.1f}V{foot - 4:.1f}"
        )
    else:
        path += f"H{segment.x2:.1f}"
    return path


def _tip(layout: arcs.ArcLayout, segment: arcs.Segment) -> str:
    """The arrow head at the tail, as a path of its own: a marker would need an id of its own in the page."""
    if not segment.ends:
        return ""
    x, y = segment.x2, layout.rows[segment.row].y - arcs.TEXT_SIZE - 1
    return f"M{x:.1f} {y:.1f}L{x - 3.8:.1f} {y - 7:.1f}H{x + 3.8:.1f}Z"


def _place(argument: EntityMention) -> tuple[int, int, str]:
    return argument.start, argument.end, argument.type
