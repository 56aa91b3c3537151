"""The relations of all documents as a graph on one page, which needs no other file and no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from markupsafe import Markup

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.edges import Edge, EdgeSource, Node, make_edges, merge_edges
from spacy_slmre.visual.colors import color_of, entity_colors, relation_styles
from spacy_slmre.visual.measure import text_width
from spacy_slmre.visual.options import ViewOptions

_TEXT = 13.0
_LABEL = 11.0
_HEIGHT = 26.0
# Where on their curves the labels of parallel edges stand, seen from the first of the two nodes.
_SHARES = (0.38, 0.62, 0.26, 0.74, 0.5)
_SHORT = 28
# Sources that the page tells of one edge: more would make it slow, and are in the exports.
_SOURCES = 20


@dataclass(frozen=True)
class DrawnNode:
    """An entity: centre and width of its shape, in pixels."""

    key: str
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
    """A relation: a curve, its tip, and the place of its label."""

    style: str
    path: str
    tip: str
    x: float
    y: float
    label: str
    width: float
    says: str
    head: int
    tail: int


def graph_page(documents: Sequence[RelationDocument], options: ViewOptions) -> str:
    """A whole page: the graph, what was found where, and all relations as a table.

    Args:
        documents: The documents; those that failed are passed over.
        options: What to show, and how.
    """
    # Local, for the two use each other's templates.
    from spacy_slmre.visual.rendering import template

    edges = merge_edges(
        (edge for edge in make_edges(documents) if options.shows(edge.label, edge.score)), options.merge
    )
    shown = edges[: options.max_relations]
    counts = Counter(edge.label for edge in shown)
    given = {name.upper(): color for name, color in options.colors.items()}
    styles = relation_styles(counts.elements(), given)
    nodes, drawn, box = draw(shown, options, styles)
    return str(
        template("graph.jinja").render(
            title=options.title,
            theme=options.theme,
            css=Markup(template("style.css").render()),
            script=Markup(template("graph.js").render()),
            nodes=nodes,
            edges=drawn,
            box=box,
            rows=shown,
            hidden=len(edges) - len(shown),
            legend=[(label, count, styles[label]) for label, count in counts.most_common()],
            data=[_told(edge, style=styles[edge.label]) for edge in shown],
        )
    )


def draw(
    edges: Sequence[Edge], options: ViewOptions, styles: dict[str, str]
) -> tuple[list[DrawnNode], list[DrawnEdge], tuple[float, float, float, float]]:
    """Places for nodes and edges.

    Args:
        edges: The edges; parallel ones get curves apart from each other.
        options: Colours.
        styles: Style attributes by label.

    Returns:
        Nodes, edges (whose `head` and `tail` count the nodes), and left, top, width and height of all.
    """
    found: dict[str, Node] = {}
    for edge in edges:
        found |= {edge.head.key: edge.head, edge.tail.key: edge.tail}
    index = {key: number for number, key in enumerate(found)}
    shorts = [_shorten(node.text) for node in found.values()]
    widths = np.array([text_width(short, _TEXT) + 20 for short in shorts])
    places = _places(edges, index, widths)
    degrees = Counter(key for edge in edges for key in {edge.head.key, edge.tail.key})
    colors = entity_colors(options.colors)
    nodes = [
        DrawnNode(
            key,
            float(places[number][0]),
            float(places[number][1]),
            float(widths[number]),
            node.text,
            shorts[number],
            node.type,
            color_of(node.type, colors),
            degrees[key],
        )
        for number, (key, node) in enumerate(found.items())
    ]
    pairs = [frozenset((index[edge.head.key], index[edge.tail.key])) for edge in edges]
    together, parallel = Counter(pairs), Counter[frozenset[int]]()
    drawn = []
    for edge, pair in zip(edges, pairs, strict=True):
        head, tail = index[edge.head.key], index[edge.tail.key]
        number = parallel[pair]
        parallel[pair] += 1
        share = _SHARES[number % len(_SHARES)] if together[pair] > 1 else 0.5
        drawn.append(_edge(edge, nodes, head, tail, number, share, styles[edge.label]))
    if not nodes:
        return nodes, drawn, (0.0, 0.0, 600.0, 300.0)
    margin = np.stack([widths / 2 + 30, np.full(len(widths), 70.0)], 1)
    low, high = (places - margin).min(axis=0), (places + margin).max(axis=0)
    # A small graph is not blown up to the size of the window.
    size = np.maximum(high - low, (800.0, 480.0))
    corner = (low + high - size) / 2
    return nodes, drawn, (float(corner[0]), float(corner[1]), float(size[0]), float(size[1]))


def _places(edges: Sequence[Edge], index: dict[str, int], widths: np.ndarray) -> np.ndarray:
    """Centres of the nodes, (n_nodes, 2): each connected part by itself, and the parts on shelves."""
    graph = nx.Graph()
    graph.add_nodes_from(index.values())
    lengths: dict[tuple[int, int], float] = {}
    for edge in edges:
        head, tail = index[edge.head.key], index[edge.tail.key]
        graph.add_edge(head, tail)
        lengths[head, tail] = max(lengths.get((head, tail), 0.0), text_width(edge.label, _LABEL) + 60)
    places = np.zeros((len(index), 2))
    parts = []
    for members in sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part))):
        own = sorted(members)
        if len(own) == 2:
            first = next(pair for pair in lengths if set(pair) == set(own))
            apart = lengths[first] + (widths[own[0]] + widths[own[1]]) / 2
            places[first[1]] = apart, 0.0
        elif len(own) > 2:
            # The method without SciPy, whatever is installed: the same picture everywhere.
            spread = nx.spring_layout(
                graph.subgraph(own), seed=0, iterations=120, method="force", scale=85 * math.sqrt(len(own))
            )
            places[own] = [spread[node] * (1.3, 1.0) for node in own]
            places[own] = _apart(places[own], widths[own])
        half = np.stack([widths[own] / 2, np.full(len(own), _HEIGHT / 2)], 1)
        low, high = (places[own] - half).min(axis=0), (places[own] + half).max(axis=0)
        parts.append((own, low, high - low))
    _shelve(parts, places)
    return places


def _apart(places: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Push shapes apart that overlap, with room for a label between them."""
    for _ in range(60):
        delta = places[:, None] - places[None]
        room = np.stack([(widths[:, None] + widths[None]) / 2 + 24, np.full(delta.shape[:2], 2 * _HEIGHT)], 2)
        overlap = np.clip(room - np.abs(delta), 0, None)
        overlap[np.arange(len(places)), np.arange(len(places))] = 0
        meets = (overlap > 0).all(axis=2)
        if not meets.any():
            break
        # Along the axis where less is to be done; nodes in one place part by their number.
        vertical = overlap[..., 1] <= overlap[..., 0]
        sign = np.where(
            delta == 0,
            np.sign(np.subtract.outer(np.arange(len(places)), np.arange(len(places))))[..., None],
            np.sign(delta),
        )
        push = sign * overlap / 4
        push[..., 0][vertical | ~meets] = 0
        push[..., 1][~vertical | ~meets] = 0
        places = places + push.sum(axis=1)
    return places


def _shelve(parts: list[tuple[list[int], np.ndarray, np.ndarray]], places: np.ndarray) -> None:
    """Put the connected parts side by side, on shelves about as wide as all of them are high."""
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
    start, stop = nodes[head], nodes[tail]
    says = f"{start.text} – {edge.label} – {stop.text}, score {edge.score:.2f}, found {edge.count} times"
    if edge.count == 1:
        says = says.replace(", found 1 times", "")
    width = text_width(edge.label, _LABEL) + 8
    if head == tail:
        # A loop above the node, each higher than the one before.
        rise = _HEIGHT + 22 + 18 * number
        left, right, top = start.x - 18, start.x + 18, start.y - _HEIGHT / 2
        path = f"M{left:.1f} {top:.1f}C{left - 14:.1f} {top - rise:.1f} "
        path += f"{right + 14:.1f} {top - rise:.1f} {right:.1f} {top - 4:.1f}"
        return DrawnEdge(
            style,
            path,
            _arrow(right, top, math.pi / 2),
            start.x,
            top - rise * 0.75,
            edge.label,
            width,
            says,
            head,
            tail,
        )
    # Both directions of a pair curve to different sides, since a curve bends to the left of its direction.
    dx, dy = stop.x - start.x, stop.y - start.y
    length = math.hypot(dx, dy) or 1.0
    bend = 0.0 if number == 0 else 26.0 * ((number + 1) // 2) * (1 if number % 2 else -1)
    if head > tail:
        bend = -bend
    middle = (start.x + stop.x) / 2 - dy / length * 2 * bend, (start.y + stop.y) / 2 + dx / length * 2 * bend
    x1, y1 = _border(start, *middle, 1.0)
    x2, y2 = _border(stop, *middle, 3.0)
    path = f"M{x1:.1f} {y1:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {x2:.1f} {y2:.1f}"
    angle = math.atan2(y2 - middle[1], x2 - middle[0])
    share = 1 - share if head > tail else share
    weights = (1 - share) ** 2, 2 * share * (1 - share), share**2
    label = tuple(
        sum(weight * value for weight, value in zip(weights, values, strict=True))
        for values in ((x1, middle[0], x2), (y1, middle[1], y2))
    )
    return DrawnEdge(
        style, path, _arrow(x2, y2, angle), label[0], label[1], edge.label, width, says, head, tail
    )


def _border(node: DrawnNode, x: float, y: float, gap: float) -> tuple[float, float]:
    """Where the line from the centre of a node to a point leaves its shape."""
    dx, dy = x - node.x, y - node.y
    half = node.width / 2 + gap, _HEIGHT / 2 + gap
    scale = max(abs(dx) / half[0], abs(dy) / half[1], 1e-9)
    return node.x + dx / scale, node.y + dy / scale


def _arrow(x: float, y: float, angle: float) -> str:
    points = [(x, y)]
    points += [(x - 9 * math.cos(angle + turn), y - 9 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHORT else words[: _SHORT - 1] + "…"


def _told(edge: Edge, style: str) -> dict[str, object]:
    """What the page tells of an edge."""
    return {
        "head": edge.head.text,
        "label": edge.label,
        "tail": edge.tail.text,
        "score": round(edge.score, 4),
        "count": edge.count,
        "style": style,
        "sources": [_parts(source) for source in edge.sources[:_SOURCES]],
    }


def _parts(source: EdgeSource) -> dict[str, object]:
    """A sentence in parts: words, and which argument they are ("", "head" or "tail")."""
    spans = sorted(
        [(source.head.start, source.head.end, "head"), (source.tail.start, source.tail.end, "tail")]
    )
    parts, position = [], source.start
    for start, end, side in spans:
        if start >= position and end <= source.end:
            parts.append([source.sentence[position - source.start : start - source.start], ""])
            parts.append([source.sentence[start - source.start : end - source.start], side])
            position = end
    parts.append([source.sentence[position - source.start :], ""])
    return {"document": source.document, "score": round(source.score, 4), "parts": parts}
