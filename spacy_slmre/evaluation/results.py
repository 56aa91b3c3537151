"""Runs as a report shows them: named, ordered, averaged, and beside what was published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from spacy_slmre.corpus.formats import all_formats
from spacy_slmre.evaluation.runs import EvaluationRun
from spacy_slmre.evaluation.selection import caveats, system_names, system_of
from spacy_slmre.study.published import (
    FLAGS,
    GENERAL,
    GROUPS,
    LITERARY,
    Neighbour,
    card_name,
    column_of,
    neighbours,
    published_results,
)


@dataclass(frozen=True)
class Result:
    """A run as a report shows it.

    Attributes:
        run: The run.
        name: What its system is called.
        caveats: Why its score must not enter the study's averages.
        neighbours: Published results to stand beside.
    """

    run: EvaluationRun
    name: str
    caveats: list[str]
    neighbours: list[Neighbour]

    @property
    def info(self) -> dict[str, Any]:
        """What was evaluated."""
        return self.run.info

    @property
    def f(self) -> float:
        """Positive-class micro-F1."""
        return self.run.metrics["micro"]["f"]

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        interval = self.run.metrics["interval"]
        return interval["low"], interval["high"]

    @property
    def pairs_per_second(self) -> float | None:
        """Speed; None where it was not measured."""
        seconds = self.info.get("seconds")
        return self.info["pairs"] / seconds if seconds else None


def make_results(runs: Iterable[EvaluationRun]) -> list[Result]:
    """Runs with the names of their systems, by benchmark, best first."""
    runs = list(runs)
    names = system_names(runs)
    results = [
        Result(run, names[system_of(run.info)], caveats(run.info), neighbours(run.info)) for run in runs
    ]
    return sorted(results, key=lambda one: (_place(one.info), -one.f, one.name))


def by_benchmark(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Results by benchmark and split."""
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for one in results:
        found[one.info["benchmark"], one.info["split"]].append(one)
    return dict(found)


def title_of(benchmark: str, split: str = "test") -> str:
    """A benchmark's name in print, with the split where it is not the test set."""
    card = all_formats().get(benchmark)
    return (card.title if card else benchmark) + (f", {split}" if split not in ("test", "") else "")


@dataclass(frozen=True)
class Mean:
    """A system's plain mean over benchmarks of a group; complete where it has all of the study's."""

    name: str
    group: str
    value: float
    columns: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether it can stand beside the study's averages."""
        return len(self.columns) == len(GROUPS[self.group])


def means(results: Iterable[Result]) -> list[Mean]:
    """Of each system and group what there is, without stand-ins, parts of test sets and other splits."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for one in results:
        column = column_of(one.info)
        if column is not None and not one.caveats:
            scores[one.name][column] = one.f
    found = []
    for name, of_system in scores.items():
        for group, wanted in GROUPS.items():
            there = tuple(column for column in wanted if column in of_system)
            if there:
                found.append(
                    Mean(name, group, sum(of_system[column] for column in there) / len(there), there)
                )
    return found


def tidy_rows(results: Iterable[Result]) -> Iterator[dict[str, Any]]:
    """A row for each run, then one for each published score, all with the same columns."""
    for one in results:
        info, metrics = one.info, one.run.metrics
        interval = metrics["interval"]
        row: dict[str, Any] = {"source": "run", "name": one.name}
        row |= {name: info.get(name) for name in _INFO_COLUMNS}
        row |= metrics["micro"] | {"low": interval["low"], "high": interval["high"]}
        row |= {name: metrics.get(name) for name in _METRIC_COLUMNS}
        row["ece"] = (metrics.get("calibration") or {}).get("ece")
        row |= {"pairs_per_second": one.pairs_per_second, "caveats": "; ".join(one.caveats)}
        yield row | {"folder": one.run.folder.name}
    for published in published_results():
        for column, score in published.scores.items():
            yield {
                "source": "arXiv 2606.22606",
                "name": published.name,
                "system": published.system,
                "kind": published.kind,
                "params": published.params,
                "regime": published.regime,
                "style": published.style,
                "benchmark": card_name(column),
                "split": "test",
                "f": score,
                "caveats": FLAGS.get(published.flag, published.flag),
            }


_INFO_COLUMNS = (
    "system", "kind", "params", "regime", "style", "prompt", "decoding", "dapt", "benchmark", "split",
    "substitute_for", "limit", "pairs", "seconds", "tokens", "peak_memory_gb", "load_seconds", "cost",
    "data_sha256",
)  # fmt: skip
_METRIC_COLUMNS = ("macro_f", "official_macro_f", "accuracy", "out_of_schema", "unanswered", "truncated")
TIDY_COLUMNS = (
    "source", "name", *_INFO_COLUMNS[:12], "p", "r", "f", "low", "high", "tp", "fp", "fn", *_METRIC_COLUMNS,
    "ece", *_INFO_COLUMNS[12:18], "pairs_per_second", "caveats", "data_sha256", "folder",
)  # fmt: skip
"""Columns of `tidy_rows`."""


def _place(info: dict[str, Any]) -> tuple:
    """Order of benchmarks: the study's first, in its order."""
    column = column_of(info)
    places = (*GENERAL, *LITERARY)
    return (places.index(column) if column else len(places), info["benchmark"], info["split"])
