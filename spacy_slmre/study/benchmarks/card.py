"""The benchmark card, and the registry of all cards."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import catalogue

from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, RelationLabel, wording_of

benchmarks = catalogue.create("slmre", "benchmarks", entry_points=True)
"""Cards by name. Another package adds one by the entry point group `slmre_benchmarks`."""

NO_RELATION = RelationLabel(
    NEGATIVE_LABEL, "no relation", "none of the other relations holds between head and tail"
)

Reader = Callable[..., Iterator[Record | Reject]]

# How sets without a schema of ours spell "no relation".
_NEGATIVE_NAMES = frozenset({"none", "other", "no_relation", "na", "nan", "null"})


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What there is to know of a benchmark, and how to read it.

    Attributes:
        name: Its name in commands, folders and records.
        title: Its name in print.
        domain: "general" or "literary".
        task: What is annotated, and how.
        citation: The publication to cite.
        licence: The licence as its publishers state it.
        redistributable: Whether the licence lets the data be passed on.
        obtain: How to get the data.
        files: Names of the files, by split, as their publishers call them.
        folder: Folder of these files among raw data; if not given, the benchmark's name.
        urls: Addresses of the files, by split, where anyone may fetch them.
        schema: The labels; None where rows bring labels of their own.
        direction: How the order of head and tail relates to the label.
        splits: Official number of annotated instances by split.
        notes: What differs from the official counts, and why.
        aliases: Other spellings of labels → their name here.
        substitute_for: The benchmark of the study that it stands in for, where that one cannot be had.
        read: Yields the records of a file: `read(source, split, **settings)`.

    Raises:
        ValueError: The domain is unknown, or an alias leads to no label.
    """

    name: str
    title: str
    domain: str
    task: str
    citation: str
    licence: str
    redistributable: bool
    obtain: str
    schema: LabelSchema | None
    direction: str
    read: Reader = field(repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    substitute_for: str | None = None

    def __post_init__(self) -> None:
        if self.domain not in ("general", "literary"):
            raise ValueError(f'The domain of {self.name} is "general" or "literary", not "{self.domain}".')
        if self.schema is not None and (lost := set(self.aliases.values()) - set(self.schema.names)):
            raise ValueError(f"Aliases of {self.name} lead to no label: {', '.join(sorted(lost))}.")

    def is_negative(self, label: str) -> bool:
        """Whether a label says "no relation"."""
        if self.schema is None:
            return label.casefold() in _NEGATIVE_NAMES
        return label == self.schema.negative_label

    def resolve(self, label: str) -> str | None:
        """The name of a label given by name, wording, last part of its name, or alias; None if unknown."""
        if self.schema is None:
            return label.strip() or None
        return label if label in self.schema.index else self._spellings.get(_fold(label))

    @cached_property
    def _spellings(self) -> dict[str, str]:
        assert self.schema is not None
        # The weaker spellings first: what comes later overrides them.
        short = [_fold(wording_of(name)) for name in self.schema.names]
        spellings = {
            word: name for word, name in zip(short, self.schema.names, strict=True) if short.count(word) == 1
        }
        spellings |= {_fold(label.wording): label.name for label in self.schema.labels}
        spellings |= {_fold(alias): name for alias, name in self.aliases.items()}
        return spellings | {_fold(name): name for name in self.schema.names}

    @cached_property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The settings of the converter: the keyword-only arguments of `read`."""
        parameters = inspect.signature(self.read).parameters
        return {name: par for name, par in parameters.items() if par.kind is par.KEYWORD_ONLY}

    def parse_settings(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Settings as typed values, from the texts of a command line.

        Raises:
            CorpusError: A setting is unknown, or its value has the wrong type.
        """
        hints = typing.get_type_hints(self.read)
        values = {}
        for name, text in given.items():
            if name not in self.settings:
                known = ", ".join(self.settings) or "none"
                raise CorpusError(f'{self.name} has no setting "{name}"; it has: {known}.')
            kinds = [
                kind for kind in typing.get_args(hints[name]) or (hints[name],) if kind is not type(None)
            ]
            try:
                values[name] = kinds[0](text)
            except ValueError as error:
                raise CorpusError(
                    f"The setting {name}={text} must be of type {kinds[0].__name__}."
                ) from error
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "domain": self.domain,
            "task": self.task,
            "citation": self.citation,
            "licence": self.licence,
            "redistributable": self.redistributable,
            "obtain": self.obtain,
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


@lru_cache
def get_benchmark(name: str) -> Benchmark:
    """The card of this name.

    Raises:
        CorpusError: There is no such card.
    """
    try:
        return benchmarks.get(name)
    except catalogue.RegistryError as error:
        raise CorpusError(
            f'There is no benchmark "{name}". Known are: {", ".join(sorted(all_benchmarks()))}.'
        ) from error


def all_benchmarks() -> dict[str, Benchmark]:
    """All cards by name."""
    return dict(sorted(benchmarks.get_all().items()))


def load_labels(table: str, only: str | None = None) -> tuple[RelationLabel, ...]:
    """Labels of a table in `labels/`, which maps a name to its wording and definition.

    Args:
        table: File name without ending.
        only: Another file beside it, a list of the names to take, in their order; without it all are taken.
    """
    entries = _load_json(table)
    return tuple(
        RelationLabel(name, entries[name][0] or wording_of(name), entries[name][1])
        for name in (_load_json(only) if only else entries)
    )


def _load_json(name: str) -> Any:
    return json.loads((files("spacy_slmre.study.benchmarks") / "labels" / f"{name}.json").read_text("utf-8"))


def both_directions(labels: tuple[RelationLabel, ...]) -> tuple[RelationLabel, ...]:
    """Each label twice, for sets whose labels say which of two marked entities is the first argument.

    `name(e1,e2)` holds from head to tail, `name(e2,e1)` from tail to head. A definition names the
    arguments {first} and {second}.
    """
    directed = []
    for label in labels:
        for order, first, second in (("(e1,e2)", "head", "tail"), ("(e2,e1)", "tail", "head")):
            definition = label.definition.format(first=f"the {first}", second=f"the {second}")
            wording = f"{label.wording} ({first} to {second})"
            directed.append(RelationLabel(label.name + order, wording, definition))
    return tuple(directed)


def _fold(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").split())
