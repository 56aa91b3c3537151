"""An interactive graph of the relations of all documents, as a self-contained page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
from markupsafe import Markup

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.edges import Edge, EdgeSource, Node, edges_of
from spacy_slmre.visual.colors import color_of, entity_colors, relation_styles
from spacy_slmre.visual.marked_text import split_at_spans
from spacy_slmre.visual.measure import text_width
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import stylesheet, template

_TEXT_SIZE = 13.0
_LABEL_SIZE = 11.0
_NODE_HEIGHT = 26.0
# Positions of the labels of parallel edges on their curves, from the node with the lower number.
_LABEL_SHARES = (0.3, 0.7, 0.2, 0.8, 0.5)
_MAX_TEXT = 28
# Sources per edge on the page; more would make it slow, and exports contain all.
_MAX_SOURCES = 20
_MIN_SIZE = (800.0, 480.0)


@dataclass(frozen=True)
class DrawnNode:
    """An entity: center and width of its shape in pixels, and its number of relations."""

    x: float
    y: float
    width: float
    text: str
    short: str
    type: str
    color: str
    degree: int


@dataclass(frozen=True)
class DrawnEdge:
    """A relation between two numbered nodes: a curve, its arrowhead, and the center of its label.

    A symmetric relation has no arrowhead.
    """

    style: str
    path: str
    tip: str
    x: float
    y: float
    label: str
    width: float
    description: str
    head: int
    tail: int


def graph_page(documents: Sequence[RelationDocument], options: ViewOptions) -> str:
    """Return a page with the graph, the sentences of each relation, and a table of all relations."""
    drawn_documents = [replace(one, relations=tuple(options.shown_relations(one))) for one in documents]
    merge = options.merge if options.level is None else None
    edges = sorted(
        edges_of(drawn_documents, options.level or "facts", merge), key=lambda edge: (-edge.count, -edge.score)
    )
    shown = edges[: options.max_relations]
    counts = Counter(edge.label for edge in shown)
    styles = relation_styles(counts.elements(), options.colors)
    nodes, drawn, box = draw(shown, options, styles)
    return template("graph.jinja").render(
        title=options.title,
        theme=options.theme,
        css=stylesheet(),
        script=Markup(template("graph.js").render()),
        nodes=nodes,
        edges=drawn,
        box=box,
        center=max(nodes, key=lambda node: node.degree, default=None),
        rows=shown,
        hidden=len(edges) - len(shown),
        legend=[(label, count, styles[label]) for label, count in counts.most_common()],
        data=[_details(edge, styles[edge.label]) for edge in shown],
    )


def draw(
    edges: Sequence[Edge], options: ViewOptions, styles: dict[str, str]
) -> tuple[list[DrawnNode], list[DrawnEdge], tuple[float, float, float, float]]:
    """Lay out nodes and edges; return them with the graph's left, top, width and height."""
    by_key: dict[str, Node] = {}
    for edge in edges:
        by_key |= {edge.head.key: edge.head, edge.tail.key: edge.tail}
    index = {key: number for number, key in enumerate(by_key)}
    ends = [(index[edge.head.key], index[edge.tail.key]) for edge in edges]
    texts = [_shorten(node.text) for node in by_key.values()]
    widths = np.array([text_width(text, _TEXT_SIZE) + 20 for text in texts])
    places = _places(ends, [edge.label for edge in edges], widths)
    degrees = Counter(node for pair in ends for node in set(pair))
    colors = entity_colors(options.colors)
    nodes = []
    for number, node in enumerate(by_key.values()):
        x, y = places[number].tolist()
        color, width = color_of(node.type, colors), float(widths[number])
        nodes.append(DrawnNode(x, y, width, node.text, texts[number], node.type, color, degrees[number]))
    total, parallel = Counter(map(frozenset, ends)), Counter[frozenset[int]]()
    drawn = []
    for edge, (head, tail) in zip(edges, ends, strict=True):
        pair = frozenset((head, tail))
        share = _LABEL_SHARES[parallel[pair] % len(_LABEL_SHARES)] if total[pair] > 1 else 0.5
        drawn.append(_edge(edge, nodes, head, tail, parallel[pair], share, styles[edge.label]))
        parallel[pair] += 1
    if not nodes:
        return nodes, drawn, (0.0, 0.0, 600.0, 300.0)
    margin = np.stack([widths / 2 + 30, np.full(len(widths), 70.0)], 1)
    low, high = (places - margin).min(axis=0), (places + margin).max(axis=0)
    # A minimum size, so that a small graph is not enlarged to the size of the window.
    size = np.maximum(high - low, _MIN_SIZE)
    left, top = ((low + high - size) / 2).tolist()
    return nodes, drawn, (left, top, *size.tolist())


def _places(ends: Sequence[tuple[int, int]], labels: Sequence[str], widths: np.ndarray) -> np.ndarray:
    """Return the centers of the nodes, (n_nodes, 2), laying out each connected component separately."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(widths)))
    lengths: dict[tuple[int, int], float] = {}
    for pair, label in zip(ends, labels, strict=True):
        graph.add_edge(*pair)
        lengths[pair] = max(lengths.get(pair, 0.0), text_width(label, _LABEL_SIZE, bold=True) + 60)
    places = np.zeros((len(widths), 2))
    parts = []
    for members in sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part))):
        own = sorted(members)
        if len(own) == 2:
            first = next(pair for pair in lengths if set(pair) == members)
            places[first[1]] = lengths[first] + widths[own].mean(), 0.0
        elif len(own) > 2:
            # This method does not need SciPy, and gives the same picture on all machines.
            scale = 85 * math.sqrt(len(own))
            part = graph.subgraph(own)
            spread = nx.spring_layout(part, seed=0, iterations=120, method="force", scale=scale)
            places[own] = [spread[node] * (1.3, 1.0) for node in own]
            places[own] = _push_apart(places[own], widths[own])
        half = np.stack([widths[own] / 2, np.full(len(own), _NODE_HEIGHT / 2)], 1)
        low, high = (places[own] - half).min(axis=0), (places[own] + half).max(axis=0)
        parts.append((own, low, high - low))
    _arrange(parts, places)
    return places


def _push_apart(places: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Separate overlapping shapes, with room for a label between them."""
    count = np.arange(len(places))
    order = np.sign(np.subtract.outer(count, count))[..., None]
    for _ in range(60):
        delta = places[:, None] - places[None]
        room = np.stack([(widths[:, None] + widths[None]) / 2 + 24, np.full(delta.shape[:2], 2 * _NODE_HEIGHT)], 2)
        overlap = np.clip(room - np.abs(delta), 0, None)
        overlap[count, count] = 0
        meets = (overlap > 0).all(axis=2)
        if not meets.any():
            break
        # Push along the axis with the smaller overlap; nodes in the same place are separated by their numbers.
        vertical = overlap[..., 1] <= overlap[..., 0]
        push = np.where(delta == 0, order, np.sign(delta)) * overlap / 4
        push[..., 0][vertical | ~meets] = 0
        push[..., 1][~vertical | ~meets] = 0
        places = places + push.sum(axis=1)
    return places


def _arrange(parts: list[tuple[list[int], np.ndarray, np.ndarray]], places: np.ndarray) -> None:
    """Arrange the connected components in rows, for an overall shape that fits a screen."""
    gap = 60.0
    area = sum(float((size[0] + gap) * (size[1] + gap)) for _, _, size in parts)
    width = max(math.sqrt(area) * 1.6, *(float(size[0]) for _, _, size in parts)) if parts else 0.0
    x = y = height = 0.0
    for own, low, size in sorted(parts, key=lambda part: -float(part[2][1])):
        if x and x + size[0] > width:
            x, y, height = 0.0, y + height + gap, 0.0
        places[own] += np.array([x, y]) - low
        x += float(size[0]) + gap
        height = max(height, float(size[1]))


def _edge(
    edge: Edge, nodes: Sequence[DrawnNode], head: int, tail: int, number: int, share: float, style: str
) -> DrawnEdge:
    """Draw an edge, given its number among the edges between the same nodes."""
    start, stop = nodes[head], nodes[tail]
    if head == tail:
        # A loop above the node, each higher than the one before.
        rise = _NODE_HEIGHT + 22 + 18 * number
        left, right, top = start.x - 18, start.x + 18, start.y - _NODE_HEIGHT / 2
        path = f"M{left:.1f} {top:.1f}C{left - 14:.1f} {top - rise:.1f} "
        path += f"{right + 14:.1f} {top - rise:.1f} {right:.1f} {top - 4:.1f}"
        tip, label = _arrowhead(right, top, math.pi / 2), (start.x, top - rise * 0.75)
    else:
        # A curve bends to the left of its direction, so that the two directions of a pair bend to different sides.
        dx, dy = stop.x - start.x, stop.y - start.y
        length = math.hypot(dx, dy) or 1.0
        bend = 26.0 * ((number + 1) // 2) * (1 if number % 2 else -1)
        if head > tail:
            bend, share = -bend, 1 - share
        x = (start.x + stop.x) / 2 - dy / length * 2 * bend
        y = (start.y + stop.y) / 2 + dx / length * 2 * bend
        x1, y1 = _border(start, x, y, 1.0)
        x2, y2 = _border(stop, x, y, 3.0)
        path = f"M{x1:.1f} {y1:.1f}Q{x:.1f} {y:.1f} {x2:.1f} {y2:.1f}"
        tip = _arrowhead(x2, y2, math.atan2(y2 - y, x2 - x))
        weights = np.array([(1 - share) ** 2, 2 * share * (1 - share), share**2])
        label = tuple((weights @ np.array([(x1, y1), (x, y), (x2, y2)])).tolist())
    description = f"{start.text} – {edge.label} – {stop.text}, score {edge.score:.2f}"
    if edge.count > 1:
        description += f", found {edge.count} times"
    width = text_width(edge.label, _LABEL_SIZE, bold=True) + 8
    return DrawnEdge(style, path, "" if edge.symmetric else tip, *label, edge.label, width, description, head, tail)


def _border(node: DrawnNode, x: float, y: float, gap: float) -> tuple[float, float]:
    """Return where the line from the center of a node to a point leaves its shape."""
    dx, dy = x - node.x, y - node.y
    half = node.width / 2 + gap, _NODE_HEIGHT / 2 + gap
    scale = max(abs(dx) / half[0], abs(dy) / half[1], 1e-9)
    return node.x + dx / scale, node.y + dy / scale


def _arrowhead(x: float, y: float, angle: float) -> str:
    points = [(x, y)]
    points += [(x - 9 * math.cos(angle + turn), y - 9 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MAX_TEXT else words[: _MAX_TEXT - 1] + "…"


def _details(edge: Edge, style: str) -> dict[str, object]:
    """Return the data of an edge for the page's script."""
    return {
        "head": edge.head.text,
        "label": edge.label,
        "tail": edge.tail.text,
        "score": round(edge.score, 4),
        "count": edge.count,
        "symmetric": edge.symmetric,
        "style": style,
        "sources": [_sentence(source) for source in edge.sources[:_MAX_SOURCES]],
    }


def _sentence(source: EdgeSource) -> dict[str, object]:
    """Return a sentence as parts [text, sides], where sides are "head", "tail", both or ""."""
    spans = {name: (mention.start, mention.end) for name, mention in (("head", source.head), ("tail", source.tail))}
    parts = [
        [source.sentence[start - source.start : end - source.start], " ".join(sides)]
        for start, end, sides in split_at_spans(source.start, source.end, spans)
    ]
    return {"document": source.document, "score": round(source.score, 4), "parts": parts}
