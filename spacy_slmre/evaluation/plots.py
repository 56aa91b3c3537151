"""The plots of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spacy_slmre.evaluation.results import Mean, Result, title_of
from spacy_slmre.evaluation.selection import parameters
from spacy_slmre.evaluation.svg import GROUND, SOFT, drawing, series_color
from spacy_slmre.evaluation.tables import NONE, Cell, Table
from spacy_slmre.study.published import GROUPS, PublishedResult, card_name, column_of, published_results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^DvP*Xdph"
SIGNS = "●■▲◆▼✚★✖♦⬟⬢"
"""The markers in print."""
REGIME_MARKERS = {"GenTune": "o", "LitTune": "^", "MixTune": "s"}
MOST_LABELS = 24
FEWEST = 20
"""Pairs below which an accuracy is not drawn."""


@dataclass(frozen=True)
class Plot:
    """A plot, what it shows in words, and its data."""

    svg: Markup
    caption: str
    table: Table


@dataclass(frozen=True)
class Series:
    """How a system is drawn everywhere on the page: a stand-in colour and a marker."""

    color: str
    marker: str


def make_series(names: Sequence[str]) -> dict[str, Series]:
    """A colour and a marker for each system."""
    return {
        name: Series(series_color(place), MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)
    }


def forest(results: Sequence[Result], series: Mapping[str, Series]) -> Plot:
    """F1 with intervals on one benchmark, and the nearest published results."""
    near = {one.result.name: one for row in results for one in row.neighbours}
    title = title_of(results[0].info["benchmark"], results[0].info["split"])
    rows = len(results) + len(near)
    with drawing(4.9, 0.62 + 0.27 * rows) as (axes, finish):
        for place, one in enumerate(results):
            style = series[one.name]
            axes.errorbar(
                one.f, place, xerr=_reach(one), color=style.color, marker=style.marker, capsize=3, lw=1.6
            )
        for place, published in enumerate(near.values(), len(results)):
            axes.plot(published.score, place, marker="D", color=SOFT, mfc="none", ls="")
        names = [*(one.name for one in results), *(f"{name} (published)" for name in near)]
        axes.set_yticks(range(rows), [_short(name, 44) for name in names])
        axes.set_ylim(rows - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        _at_least(axes, 0.3)
        axes.set_xlabel("Positive-class micro-F1")
        caption = f"{title}: micro-F1 with 95 % intervals" + (
            ", and the nearest published results" if near else ""
        )
        svg = finish(caption)
    cells = [[Cell(one.name), *map(_cell, (one.f, *one.interval))] for one in results]
    cells += [
        [Cell(f"{name} (published)"), _cell(one.score), Cell(NONE), Cell(NONE)] for name, one in near.items()
    ]
    return Plot(svg, caption, Table(caption, ("System", "Micro-F1", "Low", "High"), {"": cells}))


def per_label(results: Sequence[Result], series: Mapping[str, Series]) -> Plot | None:
    """F1 by label on one benchmark, the commonest in gold first."""
    sizes: dict[str, int] = {}
    for one in results:
        for label, scores in one.run.metrics["per_label"].items():
            sizes[label] = max(sizes.get(label, 0), scores["gold"])
    labels = sorted((label for label in sizes if sizes[label]), key=lambda label: (-sizes[label], label))
    if not labels:
        return None
    shown = labels[:MOST_LABELS]
    title = title_of(results[0].info["benchmark"], results[0].info["split"])
    with drawing(4.9, 0.7 + 0.2 * len(shown)) as (axes, finish):
        for one in results:
            style = series[one.name]
            scores = [_label_f(one, label) for label in shown]
            axes.plot(
                scores, range(len(shown)), style.marker, color=style.color, ms=5, alpha=0.85, clip_on=False
            )
        axes.set_yticks(range(len(shown)), [f"{_short(label, 34)} ({sizes[label]:,})" for label in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("F1")
        caption = f"{title}: F1 of each label, with its number of gold relations"
        if len(labels) > len(shown):
            caption += f"; the commonest {len(shown)} of {len(labels)}, all in the table"
        svg = finish(caption)
    cells = [
        [
            Cell(label),
            Cell(f"{sizes[label]:,}", number=sizes[label]),
            *(_cell(_label_f(one, label)) for one in results),
        ]
        for label in labels
    ]
    header = ("Label", "Gold", *(one.name for one in results))
    return Plot(svg, caption, Table(caption, header, {"": cells}))


def reliability(results: Sequence[Result], series: Mapping[str, Series]) -> Plot | None:
    """Accuracy beside confidence."""
    told = [one for one in results if one.run.metrics.get("calibration")]
    if not told:
        return None
    cells = []
    with drawing(3.3, 2.9) as (axes, finish):
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (4, 3)))
        for one in told:
            style = series[one.name]
            bins = [part for part in one.run.metrics["calibration"]["bins"] if part["count"]]
            total = sum(part["count"] for part in bins)
            points = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
            axes.plot(*points, color=style.color, lw=1, alpha=0.4)
            areas = [6 + 140 * part["count"] / total for part in bins]
            axes.scatter(
                *points, s=areas, color=style.color, marker=style.marker, alpha=0.8, clip_on=False, lw=0
            )
            cells += [
                [
                    Cell(one.name),
                    Cell(f"{part['low']:.2f}–{part['high']:.2f}", number=part["low"]),
                    Cell(f"{part['count']:,}", number=part["count"]),
                    *map(_cell, (part["confidence"], part["accuracy"])),
                ]
                for part in bins
            ]
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Confidence", ylabel="Accuracy")
        errors = ", ".join(f"{one.name} {one.run.metrics['calibration']['ece']:.3f}" for one in told)
        caption = (
            "Reliability: on the dashed line confidence is accuracy; marks are as large as their share of "
            f"the pairs. Expected calibration error: {errors}"
        )
        svg = finish(caption)
    header = ("System", "Bin", "Pairs", "Confidence", "Accuracy")
    return Plot(svg, caption, Table("Reliability by bin of confidence", header, {"": cells}))


def coverage(results: Sequence[Result], series: Mapping[str, Series]) -> Plot | None:
    """What is kept at a least confidence, and how accurate that is."""
    told = [one for one in results if one.run.metrics.get("coverage")]
    if not told:
        return None
    cells = []
    with drawing(3.3, 2.9) as (axes, finish):
        for one in told:
            style = series[one.name]
            least = FEWEST / one.info["pairs"]
            points = [part for part in one.run.metrics["coverage"] if part["coverage"] >= least]
            axes.plot(
                [part["coverage"] for part in points],
                [part["accuracy"] for part in points],
                color=style.color,
                marker=style.marker,
                ms=4.5,
                lw=1.2,
                clip_on=False,
            )
            cells += [
                [
                    Cell(one.name),
                    Cell(f"{part['confidence']:.2f}", number=part["confidence"]),
                    *map(_cell, (part["coverage"], part["accuracy"], part["f"])),
                ]
                for part in one.run.metrics["coverage"]
            ]
        axes.set(xlim=(0, 1), xlabel="Share of pairs that is kept", ylabel="Accuracy of these")
        axes.set_ylim(top=1)
        steps = ", ".join(f"{part['confidence']:g}" for part in told[0].run.metrics["coverage"])
        caption = f"Coverage: from right to left, pairs with a confidence of at least {steps}"
        svg = finish(caption)
    header = ("System", "Least confidence", "Coverage", "Accuracy", "Micro-F1")
    return Plot(svg, caption, Table("Coverage and quality at a least confidence", header, {"": cells}))


def speed(results: Sequence[Result], series: Mapping[str, Series]) -> Plot | None:
    """Quality beside speed on one benchmark."""
    timed = [(one, rate) for one in results if (rate := one.pairs_per_second)]
    if not timed:
        return None
    title = title_of(timed[0][0].info["benchmark"], timed[0][0].info["split"])
    with drawing(3.3, 2.6) as (axes, finish):
        for one, rate in timed:
            style = series[one.name]
            axes.errorbar(
                rate, one.f, yerr=_reach(one), color=style.color, marker=style.marker, capsize=2.5, lw=1.2
            )
        axes.set_xscale("log")
        _plain_ticks(axes, [rate for _, rate in timed])
        axes.set(xlabel="Pairs a second", ylabel="Micro-F1")
        machines = {one.info.get("environment", {}).get("machine", "") for one, _ in timed}
        caption = title + (". Measured on different machines: see the table" if len(machines) > 1 else "")
        svg = finish(f"Speed beside micro-F1, {caption}")
    cells = [
        [
            Cell(one.name),
            Cell(f"{rate:,.1f}", number=rate),
            *map(_cell, (one.f, *one.interval)),
        ]
        for one, rate in timed
    ]
    header = ("System", "Pairs/s", "Micro-F1", "Low", "High")
    return Plot(svg, caption, Table(f"Speed and micro-F1 on {title}", header, {"": cells}))


def scale_plots(results: Sequence[Result], found: Sequence[Mean], series: Mapping[str, Series]) -> list[Plot]:
    """F1 beside the number of parameters, published and ours: the averages, then each benchmark we have."""
    sizes = {one.name: one.info["params"] for one in results if one.info["params"]}
    plots = []
    for group in GROUPS:
        ours = [
            (mean.name, sizes[mean.name], mean.value)
            for mean in found
            if mean.group == group and mean.complete and mean.name in sizes
        ]
        published = [(one, one.averages[group]) for one in published_results() if group in one.averages]
        plots.append(_scale(f"{group.capitalize()} average", published, ours, series))
    columns = dict.fromkeys(column for one in results if (column := column_of(one.info)))
    for column in columns:
        there = [
            one for one in results if column_of(one.info) == column and not one.caveats and one.name in sizes
        ]
        if there:
            published = [(one, one.scores[column]) for one in published_results() if column in one.scores]
            ours = [(one.name, sizes[one.name], one.f) for one in there]
            plots.append(_scale(title_of(card_name(column)), published, ours, series))
    return plots


def _scale(
    title: str,
    published: Sequence[tuple[PublishedResult, float]],
    ours: Sequence[tuple[str, float, float]],
    series: Mapping[str, Series],
) -> Plot:
    cells = []
    with drawing(3.7, 2.9) as (axes, finish):
        for one, score in published:
            cells.append(
                [Cell(one.name), Cell(parameters(one.params) or NONE, number=one.params), _cell(score)]
            )
            if one.params is None:
                axes.axhline(score, color=SOFT, lw=0.7, ls=(0, (1, 2)))
            else:
                axes.plot(
                    one.params,
                    score,
                    marker="x" if one.flag else REGIME_MARKERS[one.regime],
                    color=SOFT,
                    mfc=SOFT if one.style == "2-shot" else GROUND,
                    ms=4.5,
                    ls="",
                    clip_on=False,
                )
        _name_lines(axes, {one.system: score for one, score in published if one.params is None})
        for name, params, score in ours:
            style = series[name]
            axes.plot(
                params, score, marker=style.marker, color=style.color, ms=7.5, ls="", zorder=5, clip_on=False
            )
            cells.insert(
                0, [Cell(f"{name} (this report)"), Cell(parameters(params), number=params), _cell(score)]
            )
        axes.set_xscale("log")
        _plain_ticks(
            axes,
            [*(one.params for one, _ in published if one.params), *(size for _, size, _ in ours)],
            parameters,
        )
        axes.set(ylim=(0, 1), xlabel="Parameters", ylabel="Micro-F1")
        svg = finish(f"{title}: micro-F1 by number of parameters, published and of this report")
    return Plot(svg, title, Table(title, ("System", "Parameters", "Micro-F1"), {"": cells}))


def _plain_ticks(
    axes: Axes,
    values: Sequence[float],
    say: Any = lambda value: f"{value:,.0f}" if value >= 1 else f"{value:g}",
) -> None:
    """Ticks of a logarithmic axis at round places, in plain numbers, and a little room at its ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    room = 1.5 if high / low > 3 else 2.2
    axes.set_xlim(low / room, high * room)
    subs = (1.0,) if high / low > 1000 else (1.0, 3.0) if high / low > 8 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say(value)))


def _name_lines(axes: Axes, scores: Mapping[str, float]) -> None:
    """Names of horizontal lines at the right of the axes, moved apart where they would touch."""
    place = 2.0
    lowest = 0.065 * len(scores)
    for name, score in sorted(scores.items(), key=lambda item: -item[1]):
        place = min(score, place - 0.065)
        lowest -= 0.065
        place = max(place, lowest)
        axes.text(
            1.02, place, name, va="center", transform=axes.get_yaxis_transform(), color=SOFT, fontsize=7.5
        )


def _at_least(axes: Axes, span: float) -> None:
    """Widen the axis of scores, so that small differences do not look large."""
    low, high = axes.get_xlim()
    if high - low < span:
        middle = min(max((low + high) / 2, span / 2), 1 - span / 2)
        axes.set_xlim(middle - span / 2, middle + span / 2)


def _reach(one: Result) -> list[list[float]]:
    """From the score to the ends of its interval, which need not hold it."""
    low, high = one.interval
    return [[max(one.f - low, 0.0)], [max(high - one.f, 0.0)]]


def _label_f(one: Result, label: str) -> float:
    return one.run.metrics["per_label"].get(label, {"f": 0.0})["f"]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cell(value: float | None) -> Cell:
    return Cell(NONE) if value is None else Cell(f"{value:.3f}", number=value)
