"""The tables of a report, as plain cells that HTML and Markdown show alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from spacy_slmre.evaluation.comparisons import ComparisonRow
from spacy_slmre.evaluation.results import Mean, Result, by_benchmark, title_of
from spacy_slmre.evaluation.selection import ASPECTS, describe, parameters, system_of
from spacy_slmre.study.published import (
    FLAGS,
    GENERAL,
    GROUPS,
    LITERARY,
    TEST_PAIRS,
    card_name,
    column_of,
    published_results,
)

NONE = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell, what is noted beside it, the number to sort it by, and what to beware of."""

    text: str
    note: str = ""
    number: float | None = None
    caveat: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: What it shows.
        header: Names of the columns.
        bodies: Rows by the title of their group, which may be empty.
    """

    caption: str
    header: Sequence[str]
    bodies: dict[str, list[list[Cell]]]

    def __bool__(self) -> bool:
        return any(self.bodies.values())

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers."""
        rows = [row for body in self.bodies.values() for row in body]
        return [any(row[place].number is not None for row in rows) for place in range(len(self.header))]

    def markdown(self) -> str:
        """As GitHub reads tables."""
        marks = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [[_plain(name) for name in self.header], marks]
        for title, rows in self.bodies.items():
            if title and rows:
                lines.append([f"*{_plain(title)}*", *[""] * (len(self.header) - 1)])
            lines += [[_plain(f"{cell.text} {cell.note} {cell.caveat}") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overview(results: Sequence[Result]) -> Table:
    """F1 by system and benchmark."""
    columns = list(by_benchmark(results))
    found = {(one.name, one.info["benchmark"], one.info["split"]): one for one in results}
    rows = [
        [
            Cell(name, _told(results, name)),
            *(_score(found[name, *column]) if (name, *column) in found else Cell(NONE) for column in columns),
        ]
        for name in dict.fromkeys(one.name for one in results)
    ]
    header = ["System", *(title_of(*column) for column in columns)]
    return Table("Positive-class micro-F1 with 95 % interval, by system and benchmark", header, {"": rows})


def results_table(results: Sequence[Result]) -> Table:
    """A row for each run, with the nearest published results; for Markdown."""
    rows = [
        [Cell(title_of(one.info["benchmark"], one.info["split"])), Cell(one.name), _score(one), _beside(one)]
        for one in results
    ]
    header = ("Benchmark", "System", "Micro-F1 [95 % interval]", "Published, nearest")
    return Table("Results", header, {"": rows})


def benchmark_table(results: Sequence[Result]) -> Table:
    """The scores of one benchmark in full."""
    official = any(one.run.metrics.get("official_macro_f") is not None for one in results)
    column = column_of(results[0].info)
    rows = []
    for one in results:
        metrics = one.run.metrics
        micro = metrics["micro"]
        invalid = metrics["out_of_schema"] + metrics["unanswered"]
        cells = [
            Cell(one.name, describe(one.info)),
            _score(one),
            *(_number(value) for value in (micro["p"], micro["r"], metrics["macro_f"])),
            *([_number(metrics.get("official_macro_f"))] if official else []),
            _number(metrics["accuracy"]),
            Cell(f"{invalid:,}", number=invalid),
            Cell(f"{one.info['pairs']:,}", number=one.info["pairs"]),
            *([_beside(one), _difference(one)] if column else []),
        ]
        rows.append(cells)
    header = ["System", "Micro-F1", "P", "R", "Macro-F1", *(["Official macro-F1"] if official else [])]
    header += ["Accuracy", "Invalid", "Pairs", *(["Published, nearest", "Difference"] if column else [])]
    caption = f"Scores on {title_of(results[0].info['benchmark'], results[0].info['split'])}"
    if column:
        caption += f"; the study's test set has {TEST_PAIRS[column]:,} instances"
    return Table(caption, header, {"": rows})


def means_table(found: Sequence[Mean]) -> Table:
    """Means over fewer benchmarks than the study's, which say of what they are."""
    rows = [
        [
            Cell(one.name),
            Cell(f"mean of {len(one.columns)} of {len(GROUPS[one.group])} {one.group}"),
            Cell(", ".join(title_of(card_name(column)) for column in one.columns)),
            _number(one.value),
        ]
        for one in found
        if not one.complete
    ]
    caption = "Means of fewer benchmarks than the study's; they cannot stand beside its averages"
    return Table(caption, ("System", "What", "Benchmarks", "Micro-F1"), {"": rows})


def study_table(results: Sequence[Result], found: Sequence[Mean]) -> Table:
    """All published configurations, and ours on the same benchmarks."""
    columns = (*GENERAL, *LITERARY)
    whole = {(one.name, one.group): one.value for one in found if one.complete}
    scores: dict[str, dict[str, Result]] = defaultdict(dict)
    for one in results:
        column = column_of(one.info)
        if column is not None and (column not in scores[one.name] or not one.caveats):
            scores[one.name][column] = one
    ours = [
        [
            Cell(name, _told(results, name)),
            *(
                Cell(f"{row[column].f:.3f}", number=row[column].f, caveat="; ".join(row[column].caveats))
                if column in row
                else Cell(NONE)
                for column in columns
            ),
            *(_number(whole.get((name, group))) for group in GROUPS),
        ]
        for name, row in scores.items()
        if row
    ]
    published = [
        [
            Cell(one.name, FLAGS.get(one.flag, one.flag)),
            *(_number(one.scores.get(column)) for column in columns),
            *(_number(one.averages.get(group)) for group in GROUPS),
        ]
        for one in published_results()
    ]
    header = ["System", *(title_of(card_name(column)) for column in columns)]
    header += [f"{group.capitalize()} average" for group in GROUPS]
    caption = "Positive-class micro-F1 of every published configuration, and of ours on the same benchmarks"
    return Table(caption, header, {"This report": ours, "Published": published})


def published_by(aspect: str) -> Table:
    """The study's averages with the values of "regime" or "style" side by side."""
    kept = "style" if aspect == "regime" else "regime"
    slms = [one for one in published_results() if one.kind == "slm"]
    values = list(dict.fromkeys(getattr(one, aspect) for one in slms))
    rows = []
    for group in GROUPS:
        by_key: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for one in slms:
            if group in one.averages:
                by_key[one.system, getattr(one, kept)][getattr(one, aspect)] = one
        for (system, other), there in by_key.items():
            row = [Cell(f"{system} {other}"), Cell(group)]
            row += [
                Cell(
                    f"{there[value].averages[group]:.3f}",
                    "failed" * bool(there[value].flag),
                    there[value].averages[group],
                )
                if value in there
                else Cell(NONE)
                for value in values
            ]
            rows.append(row)
    caption = f"The study's averages by {aspect} of tuning"
    return Table(caption, ("Configuration", "Benchmarks", *values), {"": rows})


def side_by_side(results: Iterable[Result], aspect: str) -> Table:
    """Pairs of our runs on one benchmark, with models of one size, that differ in one aspect only."""
    alike: dict[tuple, list[Result]] = defaultdict(list)
    for one in results:
        if not one.info["params"]:
            # Nothing says that two of these are one model.
            continue
        _, *told = system_of(one.info)
        others = [value for name, value in zip(ASPECTS, told, strict=True) if name != aspect]
        key = (one.info["benchmark"], one.info["split"], one.info["kind"], one.info["params"], *others)
        alike[key].append(one)
    rows = []
    for same in alike.values():
        for first, second in combinations(sorted(same, key=lambda one: str(one.info.get(aspect))), 2):
            if first.info.get(aspect) == second.info.get(aspect):
                continue
            rows.append(
                [
                    Cell(title_of(first.info["benchmark"], first.info["split"])),
                    *(Cell(one.name, _value(aspect, one)) for one in (first, second)),
                    _score(first),
                    _score(second),
                    _signed(second.f - first.f),
                ]
            )
    caption = f"Our runs that differ in {_ASPECT_NAMES[aspect]} only"
    header = ("Benchmark", "First", "Second", "F1, first", "F1, second", "Difference")
    return Table(caption, header, {"": rows})


def speed_table(results: Sequence[Result]) -> Table:
    """What the runs cost."""
    rows = []
    for one in results:
        info = one.info
        speed, memory, cost = one.pairs_per_second, info.get("peak_memory_gb"), info.get("cost")
        rows.append(
            [
                Cell(one.name, parameters(info["params"])),
                Cell(title_of(info["benchmark"], info["split"])),
                Cell(info.get("environment", {}).get("machine", "")),
                _number(one.f),
                Cell(f"{speed:,.1f}" if speed else NONE, number=speed),
                Cell(f"{memory:.2f}" if memory else NONE, number=memory),
                Cell(
                    f"{info['load_seconds']:.1f}" if info.get("load_seconds") else NONE,
                    number=info.get("load_seconds"),
                ),
                Cell(f"{info['tokens']:,}" if info.get("tokens") else NONE, number=info.get("tokens")),
                Cell(f"{cost:.2f}" if cost is not None else NONE, number=cost),
            ]
        )
    header = (
        "System",
        "Benchmark",
        "Machine",
        "Micro-F1",
        "Pairs/s",
        "Peak memory, GB",
        "Load, s",
        "Tokens",
        "Cost, $",
    )
    return Table("Speed, memory and cost of each run", header, {"": rows})


def comparison_table(rows: Iterable[ComparisonRow]) -> Table:
    """Pairs of systems by benchmark."""
    bodies: dict[str, list[list[Cell]]] = defaultdict(list)
    for row in rows:
        bodies[title_of(row.benchmark, row.split)].append(
            [
                Cell(f"{row.first} – {row.second}"),
                _signed(row.difference),
                Cell(f"[{row.low:+.3f}, {row.high:+.3f}]".replace("-", "−"), number=row.low),
                *(_p_value(value) for value in (row.p_bootstrap, row.p_mcnemar, row.p_holm)),
            ]
        )
    header = ("Systems", "Difference in F1", "95 % interval", "p, bootstrap", "p, McNemar", "p, Holm")
    return Table("Differences between systems on the same pairs", header, dict(bodies))


_ASPECT_NAMES = {"regime": "regime", "style": "style", "dapt": "pretraining on text of the domain (DAPT)"}


def _value(aspect: str, one: Result) -> str:
    if aspect == "dapt":
        return "with DAPT" if one.info.get("dapt") else "without DAPT"
    return one.info.get(aspect) or f"no {aspect}"


def _score(one: Result) -> Cell:
    """F1 with its interval and its caveats."""
    low, high = one.interval
    return Cell(f"{one.f:.3f}", f"[{low:.3f}, {high:.3f}]", one.f, "; ".join(one.caveats))


def _told(results: Iterable[Result], name: str) -> str:
    info = next(one.info for one in results if one.name == name)
    return ", ".join(filter(None, [parameters(info["params"]), describe(info)]))


def _beside(one: Result) -> Cell:
    told = [
        f"{near.result.name} {near.score:.3f}"
        + (f" ({FLAGS.get(near.result.flag, near.result.flag)})" if near.result.flag else "")
        for near in one.neighbours
    ]
    why = one.neighbours[0].why if one.neighbours else ""
    return Cell("; ".join(told) or NONE, f"({why})" if why else "")


def _difference(one: Result) -> Cell:
    """From the first of the nearest rows, where the two can be compared at all."""
    if not one.neighbours or one.caveats or one.neighbours[0].result.flag:
        return Cell(NONE)
    return _signed(one.f - one.neighbours[0].score)


def _number(value: float | None) -> Cell:
    return Cell(NONE) if value is None else Cell(f"{value:.3f}", number=value)


def _signed(value: float) -> Cell:
    return Cell(f"{value:+.3f}".replace("-", "−"), number=value)


def _p_value(value: float) -> Cell:
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", number=value)


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#" else sign for sign in " ".join(text.split()))
