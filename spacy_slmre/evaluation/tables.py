"""The tables of a report, as plain cells that HTML and Markdown render alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spacy_slmre.evaluation.results import Result, by_corpus, corpus_title, describe
from spacy_slmre.evaluation.significance import Comparison

NONE = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell, a note next to it, the number to sort it by, and a caveat."""

    text: str
    note: str = ""
    number: float | None = None
    caveat: str = ""

    @classmethod
    def of(cls, value: float | None, form: str = ".3f", note: str = "", caveat: str = "") -> Cell:
        """Return a number in a format; a dash if there is none."""
        if value is None:
            return cls(NONE, note)
        return cls(format(value, form).replace("-", "−"), note, value, caveat)


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
        """Whether each column holds numbers."""
        rows = [row for body in self.bodies.values() for row in body]
        return [any(row[place].number is not None for row in rows) for place in range(len(self.header))]

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        alignment = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [[_escape(name) for name in self.header], alignment]
        for title, rows in self.bodies.items():
            if title and rows:
                lines.append([f"*{_escape(title)}*", *[""] * (len(self.header) - 1)])
            lines += [[_escape(f"{cell.text} {cell.note} {cell.caveat}") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overview_table(results: Sequence[Result]) -> Table:
    """Return micro-F1 by system and corpus."""
    columns = list(by_corpus(results))
    rows: dict[str, list[Cell]] = {}
    for one in results:
        row = rows.setdefault(one.name, [system_cell(one), *[Cell(NONE)] * len(columns)])
        row[1 + columns.index((one.info["corpus"], one.info["split"]))] = score_cell(one)
    header = ["System", *(corpus_title(*column) for column in columns)]
    caption = "Positive-class micro-F1 with 95 % interval, by system and corpus"
    return Table(caption, header, {"": list(rows.values())})


def results_table(results: Sequence[Result]) -> Table:
    """Return one row per run for Markdown, with the closest published results."""
    rows = [[Cell(one.title), Cell(one.name), score_cell(one), _reference_cell(one)] for one in results]
    header = ("Corpus", "System", "Micro-F1 [95 % interval]", "Published, closest")
    size = len(header) if any(one.references for one in results) else 3
    return Table("Results", header[:size], {"": [row[:size] for row in rows]})


def corpus_table(results: Sequence[Result]) -> Table:
    """Return all scores on one corpus."""
    official = any(one.metrics.get("official_macro_f") is not None for one in results)
    published = any(one.references for one in results)
    rows = []
    for one in results:
        metrics, micro = one.metrics, one.metrics["micro"]
        rows.append(
            [
                Cell(one.name, describe(one.info)),
                score_cell(one),
                *map(Cell.of, (micro["p"], micro["r"], metrics["macro_f"])),
                *([Cell.of(metrics.get("official_macro_f"))] if official else []),
                Cell.of(metrics["accuracy"]),
                Cell.of(metrics["out_of_schema"] + metrics["unanswered"], ",d"),
                Cell.of(one.info["pairs"], ",d"),
                *([_reference_cell(one), _difference_cell(one)] if published else []),
            ]
        )
    header = ["System", "Micro-F1", "P", "R", "Macro-F1", *(["Official macro-F1"] if official else [])]
    header += ["Accuracy", "Invalid", "Pairs", *(["Published, closest", "Difference"] if published else [])]
    return Table(f"Scores on {results[0].title}", header, {"": rows})


def speed_table(results: Sequence[Result]) -> Table:
    """Return speed, memory and cost of the runs."""
    rows = []
    for one in results:
        info = one.info
        formats = ("peak_memory_gb", ".2f"), ("load_seconds", ".1f"), ("tokens", ",d"), ("cost", ".2f")
        rows.append(
            [
                Cell(one.name, model_size(info["params"])),
                Cell(one.title),
                Cell(info.get("environment", {}).get("machine", "")),
                Cell.of(one.f),
                Cell.of(one.pairs_per_second, ",.1f"),
                *(Cell.of(info.get(name), form) for name, form in formats),
            ]
        )
    header = ("System", "Corpus", "Machine", "Micro-F1", "Pairs/s", "Peak memory, GB", "Load, s", "Tokens")
    return Table("Speed, memory and cost of each run", (*header, "Cost, $"), {"": rows})


def comparison_table(comparisons: Iterable[Comparison]) -> Table:
    """Return the comparisons of systems by corpus."""
    bodies: dict[str, list[list[Cell]]] = defaultdict(list)
    for one in comparisons:
        gap = one.difference
        interval = f"[{gap.low:+.3f}, {gap.high:+.3f}]".replace("-", "−")
        row = [Cell(f"{one.first} – {one.second}"), Cell.of(gap.value, "+.3f"), Cell(interval, "", gap.low)]
        p_values = (gap.p_value, one.p_mcnemar, one.p_holm)
        row += [Cell("< 0.001", "", value) if value < 0.001 else Cell.of(value) for value in p_values]
        bodies[corpus_title(one.corpus, one.split)].append(row)
    header = ("Systems", "Difference in F1", "95 % interval", "p, bootstrap", "p, McNemar", "p, Holm")
    return Table("Differences between systems on the same pairs", header, dict(bodies))


def system_cell(one: Result) -> Cell:
    """Return the name of a system, with its size and configuration."""
    return Cell(one.name, ", ".join(filter(None, [model_size(one.info["params"]), describe(one.info)])))


def score_cell(one: Result) -> Cell:
    """Return micro-F1 with its interval and caveats."""
    low, high = one.interval
    return Cell.of(one.f, note=f"[{low:.3f}, {high:.3f}]", caveat="; ".join(one.caveats))


def model_size(params: float | None) -> str:
    """Return a number of parameters as in names of models: 135M, 3.2B."""
    if not params:
        return ""
    return f"{params / 1e6:.0f}M" if params < 999.5e6 else f"{params / 1e9:.1f}B".replace(".0B", "B")


def _reference_cell(one: Result) -> Cell:
    names = [f"{ref.name} {ref.score:.3f}" + (f" ({ref.flag})" if ref.flag else "") for ref in one.references]
    return Cell("; ".join(names) or NONE, f"({one.references[0].reason})" if names else "")


def _difference_cell(one: Result) -> Cell:
    """Return the difference from the closest published result if the two can be compared."""
    if not one.references or one.caveats or one.references[0].flag:
        return Cell(NONE)
    return Cell.of(one.f - one.references[0].score, "+.3f")


def _escape(text: str) -> str:
    """Escape everything that is special in Markdown."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#" else sign for sign in " ".join(text.split()))
