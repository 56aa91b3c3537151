"""Corpus formats: what `slmre convert` can read, registered by name.

A format is an entry point of the group `slmre_formats`, so other packages (and `spacy_slmre.study`, with the
benchmarks of the study) add their own without being imported here.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import catalogue

from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError, first_columns
from spacy_slmre.schema import LabelSchema, wording_of

formats = catalogue.create("slmre", "formats", entry_points=True)
"""All formats by name."""

# How data without a schema spell "no relation".
_NEGATIVE_NAMES = frozenset({"none", "other", "no_relation", "na", "nan", "null"})


@dataclass(frozen=True, kw_only=True)
class CorpusFormat:
    """A format that `slmre convert` reads.

    Attributes:
        name: Name in commands and in `doc.user_data["slmre.format"]`.
        title: Name in print.
        read: Yields the records of a file: `read(source, split, **settings)`.
        schema: The labels; None if the data bring their own.
        aliases: Other spellings of labels → their name in the schema.
        columns: Columns or JSON keys of the first record that identify a file of this format.
        files: Names of the published files by split.
        citation: The publication to cite.
        license: The license as its publishers state it.
        redistributable: Whether the license permits passing the data on.
        splits: Official number of annotated instances by split.

    Raises:
        ValueError: An alias leads to no label.
    """

    name: str
    title: str
    read: Callable[..., Iterator[Record | Reject]] = field(repr=False)
    schema: LabelSchema | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    license: str = "see its source"
    redistributable: bool = False
    splits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema is not None and (lost := set(self.aliases.values()) - set(self.schema.names)):
            raise ValueError(f"Aliases of {self.name} lead to no label: {', '.join(sorted(lost))}.")

    def is_negative(self, label: str) -> bool:
        """Return whether a label means "no relation"."""
        if self.schema is None:
            return label.casefold() in _NEGATIVE_NAMES
        return label == self.schema.negative_label

    def resolve(self, label: str) -> str | None:
        """Return the name of a label given by name, wording, last part of its name or alias, or None."""
        if self.schema is None:
            return label.strip() or None
        return label if label in self.schema.index else self._spellings.get(_fold(label))

    @cached_property
    def _spellings(self) -> dict[str, str]:
        assert self.schema is not None
        # Weaker spellings first: later ones override them.
        short = [_fold(wording_of(name)) for name in self.schema.names]
        spellings = {word: name for word, name in zip(short, self.schema.names, strict=True) if short.count(word) == 1}
        spellings |= {_fold(label.wording): label.name for label in self.schema.labels}
        spellings |= {_fold(alias): name for alias, name in self.aliases.items()}
        return spellings | {_fold(name): name for name in self.schema.names}

    @cached_property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The settings of the reader: the keyword-only arguments of `read`."""
        parameters = inspect.signature(self.read).parameters
        return {name: par for name, par in parameters.items() if par.kind is par.KEYWORD_ONLY}

    def parse_settings(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Convert settings from the command line to typed values.

        Raises:
            CorpusError: A setting is unknown or its value has the wrong type.
        """
        hints = typing.get_type_hints(self.read)
        values = {}
        for name, text in given.items():
            if name not in self.settings:
                known = ", ".join(self.settings) or "none"
                raise CorpusError(f'{self.name} has no setting "{name}"; it has: {known}.')
            kinds = [kind for kind in typing.get_args(hints[name]) or (hints[name],) if kind is not type(None)]
            try:
                values[name] = kinds[0](text)
            except ValueError as error:
                raise CorpusError(f"The setting {name}={text} must be of type {kinds[0].__name__}.") from error
        return values


@lru_cache
def get_format(name: str) -> CorpusFormat:
    """Return the format of this name.

    Raises:
        CorpusError: There is no such format.
    """
    try:
        return formats.get(name)
    except catalogue.RegistryError as error:
        raise CorpusError(f'Unknown format "{name}". Known are: {", ".join(all_formats())}.') from error


def all_formats() -> dict[str, CorpusFormat]:
    """Return all formats by name."""
    return dict(sorted(formats.get_all().items()))


def guess_format(source: str | Path) -> CorpusFormat:
    """Return the only format whose columns, or else file names, match a source.

    Raises:
        CorpusError: No format matches, or several do.
    """
    if not Path(source).exists():
        raise CorpusError(f"There is no file {source}. For a dataset on the hub, set the format.")
    known, columns = all_formats(), first_columns(source)
    matching = {name: one for name, one in known.items() if one.columns and set(one.columns) <= set(columns)} or {
        name: one for name, one in known.items() if Path(source).name in one.files.values()
    }
    if len(matching) == 1:
        return next(iter(matching.values()))
    found = f"could be {' or '.join(matching)}" if matching else "matches no known format"
    raise CorpusError(f"{source} {found}. Set the format to one of: {', '.join(matching or known)}.")


def _fold(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").split())
