"""Benchmark cards: corpus formats with what the study needs to know about them.

The data of all cards is in `cards.toml`, and the labels are in `labels/`. A reader's module makes its cards with
`load_card`.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat, all_formats
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.schema import LabelSchema, RelationLabel, wording_of

_FOLDER = files("spacy_slmre.study.benchmarks")
_NEGATIVE_DEFINITION = "none of the other relations holds between head and tail"


@dataclass(frozen=True, kw_only=True)
class Benchmark(CorpusFormat):
    """A benchmark: its corpus format, its files and how it is annotated.

    Attributes:
        domain: "general" or "literary".
        task: What is annotated, and how.
        direction: How the order of head and tail relates to the label.
        obtain: How to get the data.
        folder: Folder of its files in a folder of raw data; the benchmark's name by default.
        urls: URLs of the files by split, if they are public.
        notes: Differences from the official counts and other things to know.
        substitute_for: The benchmark of the study that it replaces if that one is not available.

    Raises:
        ValueError: The domain is unknown, or an alias does not lead to a label.
    """

    domain: str
    task: str
    direction: str
    obtain: str
    folder: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    substitute_for: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domain not in ("general", "literary"):
            raise ValueError(f'The domain of {self.name} must be "general" or "literary", not "{self.domain}".')

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


def load_card(name: str, read: Callable[..., Iterator[Record | Reject]]) -> Benchmark:
    """Make the card with this name from `cards.toml` and its reader."""
    data = dict(_cards()[name])
    data = {**_cards()[data.pop("extends")], **data} if "extends" in data else data
    schema = data.pop("schema", None)
    for key in ("columns", "notes"):
        data[key] = tuple(data.get(key, ()))
    return Benchmark(name=name, read=read, schema=_load_schema(**schema) if schema else None, **data)


def load_labels(table: str, only: str | None = None) -> tuple[RelationLabel, ...]:
    """Load labels from a table in `labels/` that maps names to wordings and definitions.

    Args:
        table: File name without extension.
        only: Another file in `labels/`: a list of the names to use, in order; by default, all are used.
    """
    entries = read_label_file(table)
    return tuple(
        RelationLabel(name, entries[name][0] or wording_of(name), entries[name][1])
        for name in (read_label_file(only) if only else entries)
    )


def read_label_file(name: str) -> Any:
    """Read a JSON file in `labels/`."""
    return json.loads((_FOLDER / "labels" / f"{name}.json").read_text("utf-8"))


@cache
def _cards() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_FOLDER / "cards.toml").read_text("utf-8"))


def _load_schema(
    labels: str,
    only: str | None = None,
    without: Collection[str] = (),
    directed: bool = False,
    negative: str | None = None,
) -> LabelSchema:
    table = tuple(label for label in load_labels(labels, only) if label.name not in without)
    if directed:
        table = _both_directions(table)
    if negative is not None and negative not in {label.name for label in table}:
        table += (RelationLabel(negative, wording_of(negative), _NEGATIVE_DEFINITION),)
    return LabelSchema(table, negative)


def _both_directions(labels: tuple[RelationLabel, ...]) -> tuple[RelationLabel, ...]:
    """Return each label twice, for datasets whose labels say which of two marked entities comes first.

    `name(e1,e2)` holds from head to tail, `name(e2,e1)` from tail to head. A definition refers to the arguments as
    {first} and {second}.
    """
    directed = []
    for label in labels:
        for order, first, second in (("(e1,e2)", "head", "tail"), ("(e2,e1)", "tail", "head")):
            definition = label.definition.format(first=f"the {first}", second=f"the {second}")
            wording = f"{label.wording} ({first} to {second})"
            directed.append(RelationLabel(label.name + order, wording, definition))
    return tuple(directed)


def get_benchmark(name: str) -> Benchmark:
    """Return the card with this name.

    Raises:
        CorpusError: There is no such benchmark.
    """
    card = all_formats().get(name)
    if not isinstance(card, Benchmark):
        raise CorpusError(f'There is no benchmark "{name}". Available benchmarks: {", ".join(all_benchmarks())}.')
    return card


def all_benchmarks() -> dict[str, Benchmark]:
    """Return all cards by name."""
    return {name: card for name, card in all_formats().items() if isinstance(card, Benchmark)}


def find_sources(raw: str | Path, names: Collection[str] = ()) -> list[tuple[Benchmark, str, Path]]:
    """Return the files in a folder of raw data that belong to benchmarks: `<folder>/<file>` of their cards.

    Args:
        raw: The folder.
        names: Only look for these benchmarks; by default, look for all.

    Returns:
        Benchmark, split and path of each file found.
    """
    cards = [get_benchmark(name) for name in names] or list(all_benchmarks().values())
    found = [
        (card, split, Path(raw) / (card.folder or card.name) / file)
        for card in cards
        for split, file in card.files.items()
    ]
    return [(card, split, path) for card, split, path in found if path.is_file()]
