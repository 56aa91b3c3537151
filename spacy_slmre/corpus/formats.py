"""The registry of corpus formats that `slmre convert` can read.

Formats are entry points of the group `slmre_formats`, so other packages (and `spacy_slmre.study`, with the study's
benchmarks) can add their own.
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
from pydantic import TypeAdapter, ValidationError

from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError, Sample
from spacy_slmre.metrics import means_no_relation
from spacy_slmre.schema import LabelSchema, wording_of

# Share of records that must have a format for it to be recognized.
_MIN_SHARE = 0.5

formats = catalogue.create("slmre", "formats", entry_points=True)
"""All formats by name."""


@dataclass(frozen=True, kw_only=True)
class CorpusFormat:
    """A format that `slmre convert` reads.

    Attributes:
        name: Name in commands and, if it has a schema, in `doc.user_data["slmre.format"]`.
        title: Display name.
        read: Yields the records of a file: `read(source, split, **settings)`.
        schema: The labels; None accepts any.
        aliases: Other spellings of labels → their name in the schema.
        recognize: Tells from the beginning of a source whether it certainly has this format, or which share of its
            first records has.
        columns: Columns or JSON keys by which a file of this format is otherwise recognized.
        files: Names of the published files by split.
        citation: The publication to cite.
        license: The license as stated by the publishers.
        redistributable: Whether the license permits redistribution.
        splits: Official number of annotated instances by split.

    Raises:
        ValueError: An alias refers to an unknown label.
    """

    name: str
    title: str
    read: Callable[..., Iterator[Record | Reject]] = field(repr=False)
    schema: LabelSchema | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    recognize: Callable[[Sample], float] | None = field(default=None, repr=False)
    columns: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    license: str = "see its source"
    redistributable: bool = False
    splits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema is not None and (unknown := set(self.aliases.values()) - set(self.schema.names)):
            raise ValueError(f"Aliases of {self.name} refer to unknown labels: {', '.join(sorted(unknown))}.")

    def is_negative(self, label: str) -> bool:
        """Return whether a label means "no relation"."""
        if self.schema is None:
            return means_no_relation(label)
        return label == self.schema.negative_label

    def resolve(self, label: str) -> str | None:
        """Return the label with this name, wording, alias or last part of its name; None if there is none."""
        if self.schema is None:
            return label.strip() or None
        return label if label in self.schema.index else self._spellings.get(_fold(label))

    @cached_property
    def _spellings(self) -> dict[str, str]:
        assert self.schema is not None
        # Least specific first, since later spellings override earlier ones.
        short = [_fold(wording_of(name)) for name in self.schema.names]
        spellings = {word: name for word, name in zip(short, self.schema.names, strict=True) if short.count(word) == 1}
        spellings |= {_fold(label.wording): label.name for label in self.schema.labels}
        spellings |= {_fold(alias): name for alias, name in self.aliases.items()}
        return spellings | {_fold(name): name for name in self.schema.names}

    @cached_property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The settings of the reader: the keyword-only arguments of `read`."""
        parameters = inspect.signature(self.read).parameters
        return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}

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
                raise CorpusError(f'The format {self.name} has no setting "{name}". Available settings: {known}.')
            try:
                values[name] = TypeAdapter(hints[name]).validate_strings(text)
            except ValidationError as error:
                raise CorpusError(f"The setting {name}={text} is wrong: {error.errors()[0]['msg']}.") from error
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
        raise CorpusError(f'Unknown format "{name}". Available formats: {", ".join(all_formats())}.') from error


def all_formats() -> dict[str, CorpusFormat]:
    """Return all formats by name."""
    return dict(sorted(formats.get_all().items()))


def guess_format(source: str | Path) -> CorpusFormat:
    """Return the only format that recognizes a source, or otherwise whose columns or file names match.

    If formats recognize records of a source, it is the one that recognizes most, and at least half: the other records
    are malformed, which its reader then reports.

    Raises:
        CorpusError: No format matches, several do, or the source cannot be read.
    """
    if not Path(source).exists():
        raise CorpusError(f"There is no file {source}. For a dataset on the hub, set the format.")
    known, sample = all_formats(), Sample(source)
    shares = [float(format.recognize(sample)) if format.recognize else 0.0 for format in known.values()]
    best = max(shares)
    matching = [format for format, share in zip(known.values(), shares, strict=True) if share == best >= _MIN_SHARE]
    columns = set(sample.columns)
    matching = matching or [
        format for format in known.values() if format.columns and columns.issuperset(format.columns)
    ]
    matching = matching or [format for format in known.values() if Path(source).name in format.files.values()]
    if len(matching) == 1:
        return matching[0]
    if sample.error is not None:
        raise sample.error
    if not matching and sample.is_empty:
        raise CorpusError(f"{source} is empty.")
    names = [format.name for format in matching]
    result = f"could be {' or '.join(names)}" if names else "matches no known format"
    hint = ""
    if not matching and len(columns) == 1 and (mark := next((one for one in ";|\t" if one in min(columns)), None)):
        hint = f" Its columns seem to be separated by {mark!r}: use commas, or tabs in a .tsv file."
    raise CorpusError(f"{source} {result}.{hint} Set the format to one of: {', '.join(names or known)}.")


def _fold(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").split())
