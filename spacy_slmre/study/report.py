"""The section of evaluation reports that compares runs with the study's published results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spacy_slmre.evaluation.plots import GROUND, SOFT, Plot, drawing, log_axis, series_color, series_marker
from spacy_slmre.evaluation.report import environment, marker_signs
from spacy_slmre.evaluation.results import (
    ASPECTS,
    Reference,
    Result,
    SectionContent,
    corpus_title,
    find_runs,
    make_results,
    system_key,
)
from spacy_slmre.evaluation.tables import NONE, Cell, Table, model_size, results_table, score_cell, system_cell
from spacy_slmre.study.benchmarks.card import all_benchmarks
from spacy_slmre.study.published import (
    DAPT_GAIN,
    GROUPS,
    SOURCE,
    TEST_PAIRS,
    PublishedResult,
    closest_results,
    published_results,
)
from spacy_slmre.visual.colors import relation_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REGIME_MARKERS = {"GenTune": "o", "LitTune": "^", "MixTune": "s"}
_ASPECT_NAMES = {"regime": "regime", "style": "style", "dapt": "continued pretraining (DAPT)"}


class StudySection:
    """Published results, averages and contrasts of the study, next to runs on its benchmarks."""

    title = "Comparison with the study"
    source = SOURCE

    def references(self, info: Mapping[str, Any]) -> list[Reference]:
        """Return the published results closest to a run."""
        return closest_results(info)

    def caveats(self, info: Mapping[str, Any]) -> list[str]:
        """Return the reasons why a score must not be included in the study's averages."""
        caveats = []
        benchmark = all_benchmarks().get(info["corpus"])
        if benchmark is not None and benchmark.substitute_for:
            caveats.append(f"substitute for {benchmark.substitute_for}")
        if info["corpus"] in TEST_PAIRS and info["split"] != "test":
            caveats.append(f'split "{info["split"] or "unknown"}"')
        return caveats

    def content(self, results: Sequence[Result]) -> SectionContent | None:
        """Return the section, or None if no run is on a benchmark of the study."""
        if not any(one.info["corpus"] in TEST_PAIRS for one in results):
            return None
        means = group_means(results)
        contrasts = [table for aspect in _ASPECT_NAMES if (table := contrast_table(results, aspect))]
        sizes, partial, study = sizes_table(results), means_table(means), study_table(results, means)
        html = (
            environment("spacy_slmre.study")
            .get_template("report_section.jinja")
            .render(
                styles=relation_styles({one.series: one.name for one in results}.values(), {}),
                signs=marker_signs(results),
                sizes=sizes,
                means=partial,
                scales=scale_plots(results, means),
                contrasts=contrasts,
                published=[published_table(aspect) for aspect in ("regime", "style")],
                dapt_gain=DAPT_GAIN,
                study=study,
            )
        )
        tables = [table for table in (sizes, partial, *contrasts, study) if table]
        markdown = "\n\n".join(f"## {table.caption}\n\n{table.markdown()}" for table in tables)
        return SectionContent(Markup(html), markdown, list(_csv_rows()))


STUDY_SECTION = StudySection()


def results_markdown(paths: Sequence[Path]) -> str:
    """Return the table of results of run folders for a README, the study's benchmarks first.

    Raises:
        EvaluationError: There is no complete run.
    """
    results = make_results(find_runs(paths)[0], [STUDY_SECTION])
    order = [*TEST_PAIRS]
    last = len(order)
    results.sort(key=lambda one: order.index(one.info["corpus"]) if one.info["corpus"] in order else last)
    return results_table(results).markdown()


@dataclass(frozen=True)
class GroupMean:
    """A system's mean micro-F1 over those benchmarks of a group that it was evaluated on."""

    name: str
    group: str
    value: float
    benchmarks: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether it can be compared with the study's averages."""
        return len(self.benchmarks) == len(GROUPS[self.group])


def group_means(results: Iterable[Result]) -> list[GroupMean]:
    """Return the means of each system, excluding substitutes, partial test sets and other splits."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for one in results:
        if one.info["corpus"] in TEST_PAIRS and not one.caveats:
            scores[one.name][one.info["corpus"]] = one.f
    means = []
    for name, found in scores.items():
        for group, benchmarks in GROUPS.items():
            if evaluated := tuple(benchmark for benchmark in benchmarks if benchmark in found):
                mean = sum(found[benchmark] for benchmark in evaluated) / len(evaluated)
                means.append(GroupMean(name, group, mean, evaluated))
    return means


def sizes_table(results: Sequence[Result]) -> Table:
    """Return the number of test pairs of complete runs and of the study."""
    sizes = {
        one.info["corpus"]: one.info["pairs"] for one in results if one.info["corpus"] in TEST_PAIRS and not one.caveats
    }
    rows = [
        [Cell(corpus_title(name)), Cell.of(size, ",d"), Cell.of(TEST_PAIRS[name], ",d")] for name, size in sizes.items()
    ]
    return Table("Size of the test sets", ("Benchmark", "Pairs here", "Instances in the study"), {"": rows})


def means_table(means: Sequence[GroupMean]) -> Table:
    """Return the means that cover only part of a group."""
    rows = [
        [
            Cell(one.name),
            Cell(f"mean of {len(one.benchmarks)} of {len(GROUPS[one.group])} {one.group}"),
            Cell(", ".join(map(corpus_title, one.benchmarks))),
            Cell.of(one.value),
        ]
        for one in means
        if not one.is_complete
    ]
    caption = "Means over fewer benchmarks than in the study; not comparable with its averages"
    return Table(caption, ("System", "Mean", "Benchmarks", "Micro-F1"), {"": rows})


def study_table(results: Sequence[Result], means: Sequence[GroupMean]) -> Table:
    """Return all published configurations, and ours on the same benchmarks."""
    complete = {(one.name, one.group): one.value for one in means if one.is_complete}
    scores: dict[str, dict[str, Result]] = defaultdict(dict)
    for one in results:
        name = one.info["corpus"]
        if name in TEST_PAIRS and (name not in scores[one.name] or not one.caveats):
            scores[one.name][name] = one
    ours = []
    for name, found in scores.items():
        row = [system_cell(next(iter(found.values())))]
        for benchmark in TEST_PAIRS:
            mine = found.get(benchmark)
            row.append(Cell.of(mine.f, caveat="; ".join(mine.caveats)) if mine else Cell(NONE))
        ours.append([*row, *(Cell.of(complete.get((name, group))) for group in GROUPS)])
    published = [
        [
            Cell(row.name, row.flag),
            *(Cell.of(row.scores.get(benchmark)) for benchmark in TEST_PAIRS),
            *(Cell.of(row.averages.get(group)) for group in GROUPS),
        ]
        for row in published_results()
    ]
    header = ["System", *map(corpus_title, TEST_PAIRS), *(f"{group.capitalize()} average" for group in GROUPS)]
    caption = "Positive-class micro-F1 of every published configuration, and of ours on the same benchmarks"
    return Table(caption, header, {"This report": ours, "Published": published})


def published_table(aspect: str) -> Table:
    """Return the study's averages with all values of "regime" or "style" side by side."""
    other = "style" if aspect == "regime" else "regime"
    slms = [one for one in published_results() if one.kind == "slm"]
    values = list(dict.fromkeys(getattr(one, aspect) for one in slms))
    rows = []
    for group in GROUPS:
        found: dict[str, dict[str, PublishedResult]] = defaultdict(dict)
        for one in slms:
            if group in one.averages:
                found[f"{one.system} {getattr(one, other)}"][getattr(one, aspect)] = one
        for name, row in found.items():
            cells = [
                Cell.of(row[value].averages[group], note="failed" * bool(row[value].flag))
                if value in row
                else Cell(NONE)
                for value in values
            ]
            rows.append([Cell(name), Cell(group), *cells])
    header = ("Configuration", "Benchmarks", *values)
    return Table(f"The study's averages by {aspect} of tuning", header, {"": rows})


def contrast_table(results: Iterable[Result], aspect: str) -> Table:
    """Return pairs of runs on one corpus, with models of the same size, that differ in one aspect only."""
    groups: dict[tuple, list[Result]] = defaultdict(list)
    for one in results:
        if one.info["params"]:  # without a size, two systems may be different models
            info = one.info
            rest = [value for name, value in zip(ASPECTS, system_key(info)[1:], strict=True) if name != aspect]
            groups[(info["corpus"], info["split"], info["kind"], info["params"], *rest)].append(one)
    rows = []
    for group in groups.values():
        for first, second in combinations(sorted(group, key=lambda one: str(one.info.get(aspect))), 2):
            if first.info.get(aspect) != second.info.get(aspect):
                names = [Cell(one.name, _aspect_value(aspect, one)) for one in (first, second)]
                difference = Cell.of(second.f - first.f, "+.3f")
                rows.append([Cell(first.title), *names, score_cell(first), score_cell(second), difference])
    caption = f"Runs that differ in {_ASPECT_NAMES[aspect]} only"
    header = ("Benchmark", "First", "Second", "F1, first", "F1, second", "Difference")
    return Table(caption, header, {"": rows})


def _aspect_value(aspect: str, one: Result) -> str:
    if aspect == "dapt":
        return "with DAPT" if one.info.get("dapt") else "without DAPT"
    return one.info.get(aspect) or f"no {aspect}"


def scale_plots(results: Sequence[Result], means: Sequence[GroupMean]) -> list[Plot]:
    """Draw F1 by number of parameters, published and ours: the averages, then each benchmark."""
    sized = {one.name: one for one in results if one.info["params"]}
    plots = []
    for group in GROUPS:
        ours = [
            (sized[mean.name], mean.value)
            for mean in means
            if mean.group == group and mean.is_complete and mean.name in sized
        ]
        published = [(one, one.averages[group]) for one in published_results() if group in one.averages]
        plots.append(_scale_plot(f"{group.capitalize()} average", published, ours))
    for benchmark in dict.fromkeys(one.info["corpus"] for one in results if one.info["corpus"] in TEST_PAIRS):
        ours = [
            (one, one.f)
            for one in results
            if one.info["corpus"] == benchmark and one.info["params"] and not one.caveats
        ]
        if ours:
            published = [(one, one.scores[benchmark]) for one in published_results() if benchmark in one.scores]
            plots.append(_scale_plot(corpus_title(benchmark), published, ours))
    return plots


def _scale_plot(
    title: str, published: Sequence[tuple[PublishedResult, float]], ours: Sequence[tuple[Result, float]]
) -> Plot:
    with drawing(3.7, 2.9) as (axes, finish):
        for row, score in published:
            if row.params is None:
                axes.axhline(score, color=SOFT, lw=0.7, ls=(0, (1, 2)))
                continue
            fill = SOFT if row.style == "2-shot" else GROUND
            marker = "x" if row.flag else _REGIME_MARKERS[row.regime]
            axes.plot(row.params, score, marker, color=SOFT, mfc=fill, ms=4.5, ls="", clip_on=False)
        _label_lines(axes, {row.system: score for row, score in published if row.params is None})
        for one, score in ours:
            style: dict[str, Any] = {"ms": 7.5, "zorder": 5, "clip_on": False}
            style["color"] = series_color(one.series)
            axes.plot(one.info["params"], score, series_marker(one.series), **style)
        sizes = [*(row.params for row, _ in published if row.params), *(one.info["params"] for one, _ in ours)]
        log_axis(axes, sizes, model_size)
        axes.set(ylim=(0, 1), xlabel="Parameters", ylabel="Micro-F1")
        svg = finish(f"{title}: micro-F1 by number of parameters, published and in this report")
    rows = [
        [Cell(name), Cell(model_size(params) or NONE, number=params), Cell.of(score)]
        for name, params, score in (
            *((f"{one.name} (this report)", one.info["params"], score) for one, score in ours),
            *((row.name, row.params, score) for row, score in published),
        )
    ]
    return Plot(svg, title, Table(title, ("System", "Parameters", "Micro-F1"), {"": rows}))


def _label_lines(axes: Axes, scores: Mapping[str, float]) -> None:
    """Label horizontal lines at the right edge, moving labels apart if they would overlap."""
    gap = 0.065
    place, lowest = 2.0, gap * len(scores)
    for name, score in sorted(scores.items(), key=lambda item: -item[1]):
        lowest -= gap
        place = max(min(score, place - gap), lowest)
        transform = axes.get_yaxis_transform()
        axes.text(1.02, place, name, va="center", transform=transform, color=SOFT, fontsize=7.5)


def _csv_rows() -> Iterator[dict[str, Any]]:
    for row in published_results():
        for benchmark, score in row.scores.items():
            yield {
                "source": "arXiv 2606.22606",
                "name": row.name,
                "system": row.system,
                "kind": row.kind,
                "params": row.params,
                "regime": row.regime,
                "style": row.style,
                "corpus": benchmark,
                "split": "test",
                "f": score,
                "caveats": row.flag,
            }
