"""Blocks for the arcs template: sentences with arcs, and the text between them as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from spacy_slmre.directions import inverse_label
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.visual import arc_layout
from spacy_slmre.visual.arc_layout import ArcLayout, ArcSegment, EntityBox, TextPiece, lay_out
from spacy_slmre.visual.colors import color_of
from spacy_slmre.visual.options import ViewOptions

_CORNER_RADIUS = 7.0


@dataclass(frozen=True)
class PictureStyle:
    """Options and colors of all blocks of a picture."""

    options: ViewOptions
    colors: Mapping[str, str]  # by entity type
    relations: Mapping[str, str]  # style attributes by label
    scores: bool  # show scores next to labels


@dataclass(frozen=True)
class TextBlock:
    """Sentences without relations, as HTML."""

    html: Markup


@dataclass(frozen=True)
class EntityFrame:
    """The frame of an entity in a line; the name of its type is in its first line only."""

    x: float
    y: float
    width: float
    height: float
    color: str
    type: str
    type_y: float


@dataclass(frozen=True)
class DrawnArc:
    """A relation: SVG paths of its lines and arrowheads, its labels, and the frames of head and tail.

    A symmetric relation has no arrowheads.
    """

    style: str
    description: str
    line: str
    tips: str
    labels: list[tuple[float, float, float, str, str]]  # center, baseline, width, label, score
    frames: list[EntityFrame]


@dataclass(frozen=True)
class ArcBlock:
    """Sentences with relations, and everything drawn for them."""

    text: str
    width: float
    height: float
    pieces: list[tuple[float, float, float, str]]  # center, baseline, width, text
    frames: list[EntityFrame]
    arcs: list[DrawnArc]
    right_to_left: bool


def make_blocks(document: RelationDocument, style: PictureStyle) -> Iterator[TextBlock | ArcBlock]:
    """Yield the blocks of a document in text order; sentences with a relation between them share a block."""
    shown = style.options.shown_relations(document)
    text_start: int | None = None
    end = 0
    for start, block_end, related in _block_bounds(document, shown):
        if related:
            if text_start is not None and style.options.sentences == "all":
                yield _text_block(document, text_start, end, style)
            yield _arc_block(document, start, block_end, shown, style)
            text_start = None
        elif text_start is None:
            text_start = start
        end = block_end
    if text_start is not None and style.options.sentences == "all":
        yield _text_block(document, text_start, end, style)


def _block_bounds(document: RelationDocument, relations: list[DocumentRelation]) -> list[tuple[int, int, bool]]:
    """Join sentences with relations between them; return start, end, and whether there are relations.

    Text outside of all sentences has blocks of its own.
    """
    spans = [(*document.sentence_of(relation), True) for relation in relations]
    spans += [(start, end, False) for start, end in document.sentence_bounds]
    joined: list[tuple[int, int, bool]] = []
    for start, end, related in sorted(spans, key=lambda span: (span[0], -span[1])):
        if joined and start < joined[-1][1]:
            last = joined[-1]
            joined[-1] = last[0], max(last[1], end), last[2] or related
        else:
            joined.append((start, end, related))
    edges = [0, *(edge for start, end, _ in joined for edge in (start, end)), len(document.text)]
    outside = zip(edges[::2], edges[1::2], strict=True)
    return sorted([*joined, *((start, end, False) for start, end in outside if document.text[start:end].strip())])


def _text_block(document: RelationDocument, start: int, end: int, style: PictureStyle) -> TextBlock:
    html = Markup()
    position = start
    for entity in sorted(document.entities, key=lambda entity: (entity.start, -entity.end)):
        if entity.start >= position and entity.end <= end:  # the outermost of nested entities
            html += escape(document.text[position : entity.start])
            html += Markup('<mark style="--entity: {}">{}<small>{}</small></mark>').format(
                color_of(entity.type, style.colors), entity.text, entity.type
            )
            position = entity.end
    return TextBlock(html + escape(document.text[position:end]))


def _arc_block(
    document: RelationDocument, start: int, end: int, relations: list[DocumentRelation], style: PictureStyle
) -> ArcBlock:
    inside = [rel for rel in relations if all(start <= side.start < end for side in (rel.head, rel.tail))]
    mentions = {entity.key: entity for entity in document.entities if start <= entity.start and entity.end <= end}
    for relation in inside:
        mentions |= {side.key: side for side in (relation.head, relation.tail)}
    entities = [mentions[key] for key in sorted(mentions)]
    index = {entity.key: number for number, entity in enumerate(entities)}
    labels = [f"{rel.label} {rel.score:.2f}" if style.scores else rel.label for rel in inside]
    ends = [(index[rel.head.key], index[rel.tail.key]) for rel in inside]
    layout = lay_out(document.text, start, end, entities, ends, labels, float(style.options.width))
    frames = [_frame(layout, box, entities[box.entity], style) for box in layout.boxes]
    frames_of: dict[int, list[EntityFrame]] = {}
    for box, frame in zip(layout.boxes, frames, strict=True):
        frames_of.setdefault(box.entity, []).append(frame)
    arcs = []
    for arc, (relation, (head, tail)) in enumerate(zip(inside, ends, strict=True)):
        segments = [segment for segment in layout.segments if segment.arc == arc]
        if not segments:  # head or tail is only white space and has no position
            continue
        score = f"{relation.score:.2f}" if style.scores else ""
        description = f"{relation.head.text} – {relation.label} – {relation.tail.text}"
        description += f", score {score}" if score else ""
        line = " ".join(_line(layout, segment) for segment in segments)
        directed = inverse_label(relation.label, document.inverse_of) != relation.label
        tips = " ".join(_tip(layout, segment) for segment in segments) if directed else ""
        label = relation.label, score
        placed = [(segment.label, layout.lane_y(segment), segment.label_width - 4, *label) for segment in segments]
        both = [*frames_of[head], *frames_of[tail]]
        arcs.append(DrawnArc(style.relations[relation.label], description, line, tips, placed, both))
    text, runs = document.text[start:end], _runs(layout)
    return ArcBlock(text, layout.width, layout.height, runs, frames, arcs, layout.right_to_left)


def _runs(layout: ArcLayout) -> list[tuple[float, float, float, str]]:
    """Join pieces of a line that can be drawn together; return center, baseline, width and text."""
    runs: list[list[TextPiece]] = []
    for piece in layout.pieces:
        last = runs[-1][-1] if runs else None
        # Frames need room before and after them; right-to-left words are drawn one by one.
        if last and last.row == piece.row and last.x < piece.x and not last.after and not piece.before:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    drawn = []
    for run in runs:
        left, right = run[0].x, run[-1].x + run[-1].width
        text = "".join((" " if piece.gap and piece is not run[0] else "") + piece.text for piece in run)
        drawn.append(((left + right) / 2, layout.rows[run[0].row].y, right - left, text))
    return drawn


def _frame(layout: ArcLayout, box: EntityBox, entity: EntityMention, style: PictureStyle) -> EntityFrame:
    y = layout.rows[box.row].y
    inset = 1.5 * box.level
    return EntityFrame(
        box.x + inset,
        y - arc_layout.TEXT_SIZE - 1 + inset,
        box.width - 2 * inset,
        arc_layout.TEXT_SIZE + 7 - 2 * inset,
        color_of(entity.type, style.colors),
        entity.type if box.first else "",
        y + 6 + (box.level + 1) * arc_layout.TYPE_HEIGHT - 2,
    )


def _line(layout: ArcLayout, segment: ArcSegment) -> str:
    """Return the path of a bracket with round corners, which is open at the edge of a line."""
    top, foot = layout.lane_y(segment), layout.rows[segment.row].y - arc_layout.TEXT_SIZE - 2
    x1, x2 = segment.x1, segment.x2
    radius = min(_CORNER_RADIUS, abs(x2 - x1) / 2)
    turn = radius if x2 >= x1 else -radius
    path = f"M{x1:.1f} {top:.1f}"
    if segment.starts:
        path = f"M{x1:.1f} {foot:.1f}V{top + radius:.1f}Q{x1:.1f} {top:.1f} {x1 + turn:.1f} {top:.1f}"
    if not segment.ends:
        return f"{path}H{x2:.1f}"
    corner = f"Q{x2:.1f} {top:.1f} {x2:.1f} {top + radius:.1f}"
    return f"{path}H{x2 - turn:.1f}{corner}V{foot - 4:.1f}"


def _tip(layout: ArcLayout, segment: ArcSegment) -> str:
    """Return the path of the arrowhead; an SVG marker would need an id that is unique in the page."""
    if not segment.ends:
        return ""
    x, y = segment.x2, layout.rows[segment.row].y - arc_layout.TEXT_SIZE - 1
    return f"M{x:.1f} {y:.1f}L{x - 3.8:.1f} {y - 7:.1f}H{x + 3.8:.1f}Z"
