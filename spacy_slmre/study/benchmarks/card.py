"""Benchmark cards: corpus formats with what the study needs to know about them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat, all_formats, get_format
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.schema import NEGATIVE_LABEL, RelationLabel, wording_of

NO_RELATION = RelationLabel(
    NEGATIVE_LABEL, "no relation", "none of the other relations holds between head and tail"
)


@dataclass(frozen=True, kw_only=True)
class Benchmark(CorpusFormat):
    """A benchmark: its corpus format, its files and how it is annotated.

    Attributes:
        domain: "general" or "literary".
        task: What is annotated, and how.
        direction: How the order of head and tail relates to the label.
        obtain: How to get the data.
        files: Names of the files, by split, as their publishers call them.
        folder: Folder of these files among raw data; the benchmark's name by default.
        urls: Addresses of the files, by split, if anyone may fetch them.
        notes: What differs from the official counts, and why.
        substitute_for: The benchmark of the study that it replaces if that one is not available.

    Raises:
        ValueError: The domain is unknown, or an alias leads to no label.
    """

    domain: str
    task: str
    direction: str
    obtain: str
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    substitute_for: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domain not in ("general", "literary"):
            raise ValueError(f'The domain of {self.name} is "general" or "literary", not "{self.domain}".')

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = ("name", "title", "domain", "task", "citation", "license", "redistributable", "obtain")
        return {
            **{name: getattr(self, name) for name in plain},
            "folder": self.folder or self.name,
            "files": dict(self.files),
            "urls": dict(self.urls),
            "schema": self.schema.to_dict() if self.schema else None,
            "direction": self.direction,
            "splits": dict(self.splits),
            "settings": {name: par.default for name, par in self.settings.items()},
            "converter": inspect.getdoc(self.read),
            "notes": list(self.notes),
            "substitute_for": self.substitute_for,
        }


def get_benchmark(name: str) -> Benchmark:
    """Return the card of this name.

    Raises:
        CorpusError: There is no such benchmark.
    """
    card = get_format(name)
    if not isinstance(card, Benchmark):
        raise CorpusError(f'"{name}" is not a benchmark. Known are: {", ".join(all_benchmarks())}.')
    return card


def all_benchmarks() -> dict[str, Benchmark]:
    """Return all cards by name."""
    return {name: card for name, card in all_formats().items() if isinstance(card, Benchmark)}


def find_sources(raw: str | Path, names: Collection[str] = ()) -> list[tuple[Benchmark, str, Path]]:
    """The files of benchmarks that lie in a folder of raw data, as `<folder>/<file>` of their cards.

    Args:
        raw: The folder.
        names: Look for these benchmarks only; none looks for all.

    Returns:
        Benchmark, split and file of each that is there.
    """
    cards = [get_benchmark(name) for name in names] or list(all_benchmarks().values())
    found = [
        (card, split, Path(raw) / (card.folder or card.name) / file)
        for card in cards
        for split, file in card.files.items()
    ]
    return [(card, split, path) for card, split, path in found if path.is_file()]


def load_labels(table: str, only: str | None = None) -> tuple[RelationLabel, ...]:
    """Load labels from a table in `labels/` that maps names to wordings and definitions.

    Args:
        table: File name without ending.
        only: Another file beside it, a list of the names to take, in their order; all are taken by default.
    """
    entries = _load_json(table)
    return tuple(
        RelationLabel(name, entries[name][0] or wording_of(name), entries[name][1])
        for name in (_load_json(only) if only else entries)
    )


def _load_json(name: str) -> Any:
    return json.loads((files("spacy_slmre.study.benchmarks") / "labels" / f"{name}.json").read_text("utf-8"))


def both_directions(labels: tuple[RelationLabel, ...]) -> tuple[RelationLabel, ...]:
    """Return each label twice, for sets whose labels say which of two marked entities comes first.

    `name(e1,e2)` holds from head to tail, `name(e2,e1)` from tail to head. A definition names the arguments
    {first} and {second}.
    """
    directed = []
    for label in labels:
        for order, first, second in (("(e1,e2)", "head", "tail"), ("(e2,e1)", "tail", "head")):
            definition = label.definition.format(first=f"the {first}", second=f"the {second}")
            wording = f"{label.wording} ({first} to {second})"
            directed.append(RelationLabel(label.name + order, wording, definition))
    return tuple(directed)
