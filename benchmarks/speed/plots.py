"""Plots of how cost grows, as SVG files that follow the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spacy_slmre.evaluation.plots import drawing, series_color

MARKERS = "os^Dv"
THEMES = """<style>
svg{--ink:#1f2328;--soft:#59636e;--rule:#d1d9e0;--ground:#ffffff;font-family:system-ui,sans-serif;
--series-0:#0969da;--series-1:#bc4c00;--series-2:#1a7f37;--series-3:#8250df;--series-4:#bf3989}
@media(prefers-color-scheme:dark){svg{--ink:#f0f6fc;--soft:#9198a1;--rule:#3d444d;--ground:#0d1117;
--series-0:#58a6ff;--series-1:#f0883e;--series-2:#3fb950;--series-3:#bc8cff;--series-4:#f778ba}}
</style><rect width="100%" height="100%" fill="var(--ground)"/>"""
Line = tuple[str, Sequence[float], Sequence[float]]
"""Name, x and y of a line."""


def plots(named: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Return file name, caption and SVG of each plot with measurements.

    Args:
        named: Results by the name shown to readers, which is the machine.
    """
    sizes = {name: found for name, results in named.items() if (found := _found(results, "sizes"))}
    for part, y in (("pairs", "ms a sentence"), ("labels", "ms a pair"), ("context", "ms a pair")):
        lines = [_grown(name, found[part]) for name, found in sizes.items()]
        if lines:
            x = next(iter(sizes.values()))[part]["size"]
            yield _plot(f"speed_{part}", f"Time by {x}", x, y, lines)
    growth = {name: found for name, results in named.items() if (found := _found(results, "growth"))}
    if not growth:
        return
    lines = [_grown(name, found["document"]) for name, found in growth.items()]
    yield _plot("speed_document", "Time by length of a document", "sentences", "ms a document", lines)
    lines, memory = [], []
    for name, found in growth.items():
        for corpus in found["corpora"]:
            who = f"{name}, {corpus['component']}" if len(growth) > 1 else corpus["component"]
            documents = [one["documents"] for one in corpus["readings"]]
            label = f"{who}: power of {corpus['exponent']:.2f}"
            lines.append((label, documents, [one["seconds"] for one in corpus["readings"]]))
            memory.append((who, documents, [one["above_gb"] for one in corpus["readings"]]))
    yield _plot("speed_corpus", "Time by size of a corpus", "documents", "seconds", lines)
    caption = "Memory above the loaded model by size of a corpus"
    yield _plot("speed_memory", caption, "documents", "GB above the loaded model", memory, logarithms="x")


def _found(results: Mapping[str, Any], part: str) -> Mapping[str, Any] | None:
    return results["parts"][part]["found"] if part in results["parts"] else None


def _grown(name: str, size: Mapping[str, Any]) -> Line:
    rows = size["rows"]
    label = f"{name}: power of {size['exponent']:.2f}"
    return label, [row["size"] for row in rows], [row["cost_ms"] for row in rows]


def _plot(
    file: str, caption: str, x: str, y: str, lines: Sequence[Line], *, logarithms: str = "xy"
) -> tuple[str, str, str]:
    from matplotlib.ticker import LogLocator, NullLocator

    with drawing(4.2, 2.9) as (axes, finish):
        for place, (label, xs, ys) in enumerate(lines):
            axes.plot(xs, ys, MARKERS[place % len(MARKERS)], ls="-", ms=4, color=series_color(place), label=label)
        scales = {"x": (axes.set_xscale, axes.xaxis), "y": (axes.set_yscale, axes.yaxis)}
        for set_scale, axis in (scales[name] for name in logarithms):
            set_scale("log")
            low, high = axis.get_view_interval()
            wide, long = high > 6 * low, high > 1000 * low
            subs = (1,) if long else (1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
            axis.set_major_locator(LogLocator(subs=subs))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_locator(NullLocator())
        if "y" not in logarithms:
            axes.set_ylim(0, max(0.1, 1.2 * max(max(ys) for _, _, ys in lines)))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(caption, fontsize=9.5, loc="left")
        axes.legend(frameon=False, fontsize=8)
        svg = str(finish(caption))
    begin = svg.index(">", svg.index("<svg")) + 1
    return f"{file}.svg", caption, svg[:begin] + THEMES + svg[begin:]
