"""Make the tables of a report, which can be rendered as HTML and Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spacy_slmre.evaluation.results import Result, by_corpus, describe
from spacy_slmre.evaluation.significance import Comparison

NONE = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """The text of a cell, a note and a caveat next to it, and the number to sort it by."""

    text: str
    note: str = ""
    number: float | None = None
    caveat: str = ""

    @classmethod
    def of(cls, value: float | None, form: str = ".3f", note: str = "", caveat: str = "") -> Cell:
        """Return a cell with a formatted number, or with a dash for None."""
        if value is None:
            return cls(NONE, note)
        return cls(format(value, form).replace("-", "−"), note, value, caveat)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    caption: str
    header: Sequence[str]
    bodies: dict[str, list[list[Cell]]]  # rows by the title of their group, which may be empty

    def __bool__(self) -> bool:
        return any(self.bodies.values())

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        rows = [row for body in self.bodies.values() for row in body]
        return [any(row[column].number is not None for row in rows) for column in range(len(self.header))]

    def markdown(self) -> str:
        """Return the table as GitHub-flavored Markdown."""
        alignment = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [[_escape(name) for name in self.header], alignment]
        for title, rows in self.bodies.items():
            if title and rows:
                lines.append([f"*{_escape(title)}*", *[""] * (len(self.header) - 1)])
            lines += [[_escape(f"{cell.text} {cell.note} {cell.caveat}") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overview_table(results: Sequence[Result]) -> Table:
    """Return micro-F1 by system and corpus."""
    groups = by_corpus(results)
    columns = list(groups)
    rows: dict[str, list[Cell]] = {}
    for result in results:
        row = rows.setdefault(result.name, [system_cell(result), *[Cell(NONE)] * len(columns)])
        row[1 + columns.index((result.info["corpus"], result.info["split"]))] = score_cell(result)
    header = ["System", *(group[0].title for group in groups.values())]
    caption = "Positive-class micro-F1 with 95 % interval, by system and corpus"
    return Table(caption, header, {"": list(rows.values())})


def results_table(results: Sequence[Result]) -> Table:
    """Return one row per run, with the closest published results."""
    rows = [[Cell(result.title), Cell(result.name), score_cell(result), _reference_cell(result)] for result in results]
    header = ("Corpus", "System", "Micro-F1 [95 % interval]", "Published, closest")
    size = len(header) if any(result.references for result in results) else 3
    return Table("Results", header[:size], {"": [row[:size] for row in rows]})


def corpus_table(results: Sequence[Result]) -> Table:
    """Return all scores on one corpus."""
    official = any(result.metrics.get("official_macro_f") is not None for result in results)
    published = any(result.references for result in results)
    rows = []
    for result in results:
        metrics, micro = result.metrics, result.metrics["micro"]
        rows.append(
            [
                Cell(result.name, describe(result.info)),
                score_cell(result),
                *map(Cell.of, (micro["p"], micro["r"], metrics["macro_f"])),
                *([Cell.of(metrics.get("official_macro_f"))] if official else []),
                Cell.of(metrics["accuracy"]),
                Cell.of(metrics["out_of_schema"] + metrics["unanswered"], ",d"),
                Cell.of(result.info["pairs"], ",d"),
                *([_reference_cell(result), _difference_cell(result)] if published else []),
            ]
        )
    header = ["System", "Micro-F1", "P", "R", "Macro-F1", *(["Official macro-F1"] if official else [])]
    header += ["Accuracy", "Invalid", "Pairs", *(["Published, closest", "Difference"] if published else [])]
    return Table(f"Scores on {results[0].title}", header, {"": rows})


def speed_table(results: Sequence[Result]) -> Table:
    """Return speed, memory and cost of the runs."""
    rows = []
    for result in results:
        info = result.info
        formats = ("peak_memory_gb", ".2f"), ("load_seconds", ".1f"), ("tokens", ",d"), ("cost", ".2f")
        rows.append(
            [
                Cell(result.name, model_size(info["params"])),
                Cell(result.title),
                Cell(info.get("environment", {}).get("machine", "")),
                Cell.of(result.f),
                Cell.of(result.pairs_per_second, ",.1f"),
                *(Cell.of(info.get(name), form) for name, form in formats),
            ]
        )
    header = ("System", "Corpus", "Machine", "Micro-F1", "Pairs/s", "Peak memory, GB", "Load, s", "Tokens")
    return Table("Speed, memory and cost of each run", (*header, "Cost, $"), {"": rows})


def comparison_table(comparisons: Iterable[Comparison]) -> Table:
    """Return comparisons of systems, grouped by corpus."""
    bodies: dict[str, list[list[Cell]]] = defaultdict(list)
    for comparison in comparisons:
        difference = comparison.difference
        interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]".replace("-", "−")
        row = [Cell(f"{comparison.first} – {comparison.second}"), Cell.of(difference.value, "+.3f")]
        row.append(Cell(interval, "", difference.low))
        p_values = (difference.p_value, comparison.p_mcnemar, comparison.p_holm)
        row += [Cell("< 0.001", "", value) if value < 0.001 else Cell.of(value) for value in p_values]
        bodies[comparison.corpus].append(row)
    header = ("Systems", "Difference in F1", "95 % interval", "p, bootstrap", "p, McNemar", "p, Holm")
    return Table("Differences between systems on the same pairs", header, dict(bodies))


def system_cell(result: Result) -> Cell:
    """Return the name of a system, with its size and configuration."""
    return Cell(result.name, ", ".join(filter(None, [model_size(result.info["params"]), describe(result.info)])))


def score_cell(result: Result) -> Cell:
    """Return micro-F1 with its interval and caveats."""
    low, high = result.interval
    return Cell.of(result.f, note=f"[{low:.3f}, {high:.3f}]", caveat="; ".join(result.caveats))


def model_size(params: float | None) -> str:
    """Format a number of parameters as in model names: 135M, 3.2B."""
    if not params:
        return ""
    return f"{params / 1e6:.0f}M" if params < 999.5e6 else f"{params / 1e9:.1f}B".replace(".0B", "B")


def _reference_cell(result: Result) -> Cell:
    names = [f"{ref.name} {ref.score:.3f}" + (f" ({ref.flag})" if ref.flag else "") for ref in result.references]
    return Cell("; ".join(names) or NONE, f"({result.references[0].reason})" if names else "")


def _difference_cell(result: Result) -> Cell:
    """Return the difference from the closest published result if they are comparable."""
    if not result.references or result.caveats or result.references[0].flag:
        return Cell(NONE)
    return Cell.of(result.f - result.references[0].score, "+.3f")


def _escape(text: str) -> str:
    """Escape special characters of Markdown."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#" else sign for sign in " ".join(text.split()))
