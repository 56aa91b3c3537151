"""Draw the plots of a report with matplotlib, as SVG in the colors and fonts of the page."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spacy_slmre.evaluation.results import Result
from spacy_slmre.evaluation.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Placeholder colors, which are replaced by the CSS variables of the page.
INK, SOFT, RULE, GROUND = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", GROUND: "var(--ground)"}
_SERIES = "#05"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slmre",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
}
MARKERS = "os^DvP*Xdph"
MARKER_SIGNS = "●■▲◆▼✚★✖♦⬟⬢"
"""The markers as characters."""
MAX_LABELS = 24
MIN_PAIRS = 20
"""Accuracies over fewer pairs are not drawn."""


@dataclass(frozen=True)
class Plot:
    """A plot, its caption and its data."""

    svg: Markup
    caption: str
    table: Table


def series_color(number: int) -> str:
    """Return the placeholder of the CSS variable `--series-NUMBER`."""
    return f"{_SERIES}{number:04x}"


def series_marker(number: int) -> str:
    """Return the marker of a system."""
    return MARKERS[number % len(MARKERS)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Axes, Callable[[str], Markup]]]:
    """Yield the axes of a figure (size in inches) and a function that returns its SVG, given an ARIA label."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), warnings.catch_warnings():
        # Texts may have glyphs that matplotlib's font lacks; the page's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")

        def finish(label: str) -> Markup:
            stream = io.StringIO()
            metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
            return _embed(stream.getvalue(), label)

        yield figure.subplots(), finish


def _embed(svg: str, label: str) -> Markup:
    """Adapt an SVG for an HTML page: with unique ids and the page's colors and fonts."""
    prefix = f"p{hashlib.sha256(f'{label}{svg}'.encode()).hexdigest()[:8]}-"
    svg = svg[svg.index("<svg") :]
    # These elements would apply to the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'style="[^"]*"', lambda style: _page_style(style[0]), svg)
    return Markup(svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(label), 1))


def _page_style(style: str) -> str:
    style = re.sub("font-family:[^;]*;", "", style)
    style = re.sub(r"#0([1-4])(?:0\1){2}", lambda match: _VARIABLES[match[0]], style)
    return re.sub(f"{_SERIES}([0-9a-f]{{4}})", lambda match: f"var(--series-{int(match[1], 16)})", style)


def forest_plot(results: Sequence[Result]) -> Plot:
    """Plot F1 with intervals on one corpus, and the closest published results."""
    published = {ref.name: ref.score for result in results for ref in result.references}
    names = [*(result.name for result in results), *(f"{name} (published)" for name in published)]
    with drawing(4.9, 0.62 + 0.27 * len(names)) as (axes, finish):
        for place, result in enumerate(results):
            axes.errorbar(result.f, place, xerr=_error_bar(result), capsize=3, lw=1.6, **_series_style(result))
        for place, score in enumerate(published.values(), len(results)):
            axes.plot(score, place, marker="D", color=SOFT, mfc="none", ls="")
        _label_rows(axes, [_shorten(name, 44) for name in names])
        axes.grid(axis="y", visible=False)
        low, high = axes.get_xlim()
        if high - low < 0.3:  # so that small differences do not look large
            middle = min(max((low + high) / 2, 0.15), 0.85)
            axes.set_xlim(middle - 0.15, middle + 0.15)
        axes.set_xlabel("Positive-class micro-F1")
        caption = f"{results[0].title}: micro-F1 with 95 % intervals"
        caption += ", and the closest published results" if published else ""
        svg = finish(caption)
    rows = [[Cell(result.name), *map(Cell.of, (result.f, *result.interval))] for result in results]
    rows += [[Cell(f"{name} (published)"), *map(Cell.of, (f, None, None))] for name, f in published.items()]
    return Plot(svg, caption, Table(caption, ("System", "Micro-F1", "Low", "High"), {"": rows}))


def label_plot(results: Sequence[Result]) -> Plot | None:
    """Plot F1 by label on one corpus, the most frequent gold labels first."""
    sizes: dict[str, int] = {}
    for result in results:
        for label, scores in result.metrics["per_label"].items():
            sizes[label] = max(sizes.get(label, 0), scores["gold"])
    labels = sorted((label for label in sizes if sizes[label]), key=lambda label: (-sizes[label], label))
    if not labels:
        return None
    shown = labels[:MAX_LABELS]
    scores = {
        result.name: [result.metrics["per_label"].get(label, {"f": 0.0})["f"] for label in labels] for result in results
    }
    with drawing(4.9, 0.7 + 0.2 * len(shown)) as (axes, finish):
        for result in results:
            style = {"ls": "", "ms": 5, "alpha": 0.85, "clip_on": False, **_series_style(result)}
            axes.plot(scores[result.name][: len(shown)], range(len(shown)), **style)
        _label_rows(axes, [f"{_shorten(label, 34)} ({sizes[label]:,})" for label in shown])
        axes.set(xlim=(0, 1), xlabel="F1")
        caption = f"{results[0].title}: F1 by label, with the number of gold relations"
        if len(labels) > len(shown):
            caption += f" (the {len(shown)} most frequent of {len(labels)}; the table has all)"
        svg = finish(caption)
    rows = [
        [Cell(label), Cell.of(sizes[label], ",d"), *(Cell.of(scores[result.name][place]) for result in results)]
        for place, label in enumerate(labels)
    ]
    header = ("Label", "Gold", *(result.name for result in results))
    return Plot(svg, caption, Table(caption, header, {"": rows}))


def reliability_plot(results: Sequence[Result]) -> Plot | None:
    """Plot accuracy by score."""
    scored = [result for result in results if result.metrics.get("calibration")]
    if not scored:
        return None
    rows = []
    with drawing(3.3, 2.9) as (axes, finish):
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (4, 3)))
        for result in scored:
            bins = [part for part in result.metrics["calibration"]["bins"] if part["count"]]
            total = sum(part["count"] for part in bins)
            points = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
            areas = [6 + 140 * part["count"] / total for part in bins]
            style = _series_style(result)
            axes.plot(*points, color=style["color"], lw=1, alpha=0.4)
            axes.scatter(*points, s=areas, alpha=0.8, clip_on=False, lw=0, **style)
            for part in bins:
                span = Cell(f"{part['low']:.2f}–{part['high']:.2f}", number=part["low"])
                values = map(Cell.of, (part["confidence"], part["accuracy"]))
                rows.append([Cell(result.name), span, Cell.of(part["count"], ",d"), *values])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Score", ylabel="Accuracy")
        errors = ", ".join(f"{result.name} {result.metrics['calibration']['ece']:.3f}" for result in scored)
        caption = (
            "Reliability: on the dashed line, accuracy equals the score. Marker areas are proportional to numbers of "
            f"pairs. Expected calibration error: {errors}"
        )
        svg = finish(caption)
    header = ("System", "Bin", "Pairs", "Mean score", "Accuracy")
    return Plot(svg, caption, Table("Reliability by score", header, {"": rows}))


def coverage_plot(results: Sequence[Result]) -> Plot | None:
    """Plot the accuracy of the pairs that reach a minimum score."""
    scored = [result for result in results if result.metrics.get("coverage")]
    if not scored:
        return None
    rows = []
    with drawing(3.3, 2.9) as (axes, finish):
        for result in scored:
            minimum = MIN_PAIRS / result.info["pairs"]
            points = [part for part in result.metrics["coverage"] if part["coverage"] >= minimum]
            x, y = ([part[name] for part in points] for name in ("coverage", "accuracy"))
            axes.plot(x, y, ms=4.5, lw=1.2, clip_on=False, **_series_style(result))
            for part in result.metrics["coverage"]:
                values = map(Cell.of, (part["coverage"], part["accuracy"], part["f"]))
                rows.append([Cell(result.name), Cell.of(part["score"], ".2f"), *values])
        axes.set(xlim=(0, 1), xlabel="Share of pairs kept", ylabel="Their accuracy")
        axes.set_ylim(top=1)
        steps = ", ".join(f"{part['score']:g}" for part in scored[0].metrics["coverage"])
        caption = f"Coverage: from right to left, pairs with a score of at least {steps}"
        svg = finish(caption)
    header = ("System", "Minimum score", "Coverage", "Accuracy", "Micro-F1")
    return Plot(svg, caption, Table("Coverage and quality by minimum score", header, {"": rows}))


def speed_plot(results: Sequence[Result]) -> Plot | None:
    """Plot F1 by speed on one corpus."""
    timed = [(result, rate) for result in results if (rate := result.pairs_per_second)]
    if not timed:
        return None
    title = results[0].title
    with drawing(3.3, 2.6) as (axes, finish):
        for result, rate in timed:
            axes.errorbar(rate, result.f, yerr=_error_bar(result), capsize=2.5, lw=1.2, **_series_style(result))
        log_axis(axes, [rate for _, rate in timed])
        axes.set(xlabel="Pairs per second", ylabel="Micro-F1")
        machines = {result.info.get("environment", {}).get("machine", "") for result, _ in timed}
        caption = title + (". Measured on different machines, see the table" if len(machines) > 1 else "")
        svg = finish(f"Micro-F1 by speed, {caption}")
    rows = [
        [Cell(result.name), Cell.of(rate, ",.1f"), *map(Cell.of, (result.f, *result.interval))]
        for result, rate in timed
    ]
    header = ("System", "Pairs/s", "Micro-F1", "Low", "High")
    return Plot(svg, caption, Table(f"Speed and micro-F1 on {title}", header, {"": rows}))


def log_axis(
    axes: Axes,
    values: Sequence[float],
    text: Callable[[float], str] = lambda value: f"{value:,.0f}" if value >= 1 else f"{value:g}",
) -> None:
    """Make the x axis logarithmic, with ticks at round numbers in plain notation and margins at both ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    room = 1.5 if high / low > 3 else 2.2
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    subs = (1.0,) if high / low > 1000 else (1.0, 3.0) if high / low > 8 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _series_style(result: Result) -> dict[str, Any]:
    return {"color": series_color(result.series), "marker": series_marker(result.series)}


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _error_bar(result: Result) -> list[list[float]]:
    """Return the distances to both ends of the interval, which need not contain the score."""
    low, high = result.interval
    return [[max(result.f - low, 0.0)], [max(high - result.f, 0.0)]]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
