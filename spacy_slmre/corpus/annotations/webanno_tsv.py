"""The format "webanno_tsv": WebAnno TSV 3, an export format of WebAnno and INCEpTION.

    #FORMAT=WebAnno TSV 3.3
    #T_SP=custom.Span|label
    #T_RL=custom.Relation|label|BT_custom.Span

    #Text=Ann Lee of Oslo
    1-1  0-3    Ann   PER[1]  _         _
    1-2  4-7    Lee   PER[1]  _         _
    1-3  8-10   of    _       _         _
    1-4  11-15  Oslo  LOC     lives in  1-1[1_0]

Columns are separated by tabs. Offsets count UTF-16 code units. A number in brackets identifies an annotation of several
tokens, or one of several in a cell, which are separated by "|". A relation is in the row of its target; the last column
names the row of its source and, in brackets, the numbers of source and target (0 if they need none).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from spacy_slmre.corpus.annotations.builder import RecordBuilder, Utf16Offsets
from spacy_slmre.corpus.annotations.layers import (
    ANY,
    TOKEN,
    entity_layers,
    label_feature,
    label_of,
    reject_slots,
    relation_layers,
)
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Malformed, Record, Reject
from spacy_slmre.corpus.sources import CorpusError, read_lines, source_files

_HEADER = re.compile(r"#T_(SP|CH|RL)=([^|]+)((?:\|[^|]*)*)")
_BASE = "BT_"
_STACK = re.compile(r"(?<!\\)\|")
_NUMBER = re.compile(r"(.*?)(?<!\\)\[(\d+)\]", re.DOTALL)
_SOURCE = re.compile(r"(\d+-\d+(?:\.\d+)?)(?:\[(\d+)_(\d+)\])?")
_LINK = re.compile(r".*->(\d+)-(\d+)", re.DOTALL)
_CHAIN = "referenceRelation"
_SLOT = "ROLE_"
_NEXT_SLOT = ";"
_ESCAPED = re.compile(r"\\(->|.)", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "b": "\b"}

Key = tuple[str, str]
"""Layer and number of an annotation, or layer, row and position in the cell."""


@dataclass(frozen=True)
class _Layer:
    kind: str  # SP, CH or RL
    name: str
    features: tuple[str, ...]
    base: str  # of relations: the layer that they connect
    first: int  # its first column
    width: int  # its number of columns

    @cached_property
    def slots(self) -> list[int]:
        """The features that refer to other annotations; the feature before each has their roles."""
        return [place + 1 for place, feature in enumerate(self.features[:-1]) if feature.startswith(_SLOT)]

    @cached_property
    def label(self) -> int | None:
        """The feature with the label."""
        of_slots = {column for place in self.slots for column in (place - 1, place)}
        places = {feature: place for place, feature in enumerate(self.features) if place not in of_slots}
        feature = label_feature(list(places))
        return None if feature is None else places[feature]


@dataclass
class _Row:
    line: int
    id: str
    start: int
    end: int
    token: str
    cells: list[str]


@dataclass
class _Annotation:
    values: list[str | None]
    rows: list[_Row] = field(default_factory=list)


def read_webanno_tsv(source: str | Path, split: str, *, relations: str = "") -> Iterator[Record | Reject]:
    """Read one file, or all files of a folder.

    Args:
        source: A .tsv file, or a folder.
        split: Unused: the names of the files identify the texts.
        relations: Layers to read relations from, separated by commas; by default, all except syntax.
    """
    source = Path(source)
    for file in source_files(source, ".tsv"):
        name = str(file.relative_to(source).with_suffix("")) if source.is_dir() else file.stem
        try:
            yield from _Document(file, name, relations).build()
        except Malformed as error:
            yield Reject(1, name, "malformed record", str(error), str(file))


class _Document:
    """A parsed file."""

    def __init__(self, file: Path, name: str, relations: str) -> None:
        self.file, self.name = file, name
        self.layers: list[_Layer] = []
        self.rows: dict[str, _Row] = {}
        self.sentences: list[tuple[str, list[_Row]]] = []
        self.keys_in: dict[str, list[Key]] = {}  # of the entities in each row
        self._parse()
        bases = {layer.name: layer.base for layer in self.layers if layer.kind == "RL"}
        self.chosen = relation_layers(bases, relations, str(file))
        self.spans = {layer.name: self._annotations(layer) for layer in self.layers if layer.kind == "SP"}
        names = entity_layers(set(self.chosen.values()), self.spans)
        self.entities = {name: spans for name, spans in self.spans.items() if name in names}
        for spans in self.entities.values():
            for key, annotation in spans.items():
                for row in annotation.rows:
                    self.keys_in.setdefault(row.id, []).append(key)

    def build(self) -> Iterator[Record | Reject]:
        text, bounds = self._text()
        builder = RecordBuilder(text, line=1, id=self.name, file=str(self.file), sentences=bounds)
        self._offsets = Utf16Offsets(text)
        for row in self.rows.values():
            if text[slice(*self._span([row]))] != row.token:
                raise self._error(row.line, f"the token {row.token!r} is not at {row.start}-{row.end} of the text")
        for layer in self.layers:
            if layer.name in self.entities:
                for key, annotation in self.entities[layer.name].items():
                    builder.line = annotation.rows[0].line
                    builder.add_entity(key, *self._span(annotation.rows), _label(layer, annotation.values))
        for layer in self.layers:
            if layer.name in self.chosen:
                for row in self.rows.values():
                    builder.line = row.line
                    self._add_relations(builder, layer, row)
            elif layer.kind == "CH":
                self._add_chains(builder, layer)
            elif layer.kind == "SP":
                for annotation in self.spans[layer.name].values():
                    builder.line = annotation.rows[0].line
                    fillers = [annotation.values[place] for place in layer.slots]
                    number = sum(filler.count(_NEXT_SLOT) + 1 for filler in fillers if filler)
                    reject_slots(builder, layer.name, self._span(annotation.rows), number)
        builder.line = 1
        yield from builder.build()

    def _parse(self) -> None:
        texts: list[str] = []
        rows: list[_Row] = []
        column = 0
        for number, line in read_lines(self.file):
            if number == 1 and not line.startswith("#FORMAT=WebAnno TSV 3"):
                raise self._error(number, "the file does not begin with #FORMAT=WebAnno TSV 3.x")
            if line.startswith("#T_"):
                self.layers.append(self._layer(line, column, number))
                column += self.layers[-1].width
            elif line.startswith("#Text="):
                if rows:
                    self.sentences.append(("\n".join(texts), rows))
                    texts, rows = [], []
                texts.append(_unescape(line.removeprefix("#Text=")))
            elif line and not line.startswith("#"):
                rows.append(self._row(line, column, number))
                self.rows[rows[-1].id] = rows[-1]
        if rows:
            self.sentences.append(("\n".join(texts), rows))

    def _layer(self, line: str, column: int, number: int) -> _Layer:
        if (match := _HEADER.fullmatch(line)) is None:
            raise self._error(number, f"{line!r} is not the definition of a layer")
        kind, name, features = match[1], match[2], match[3].split("|")[1:]
        base = ""
        if kind == "RL":
            if not features or not features[-1].startswith(_BASE):
                raise self._error(number, f"the relation layer {name} does not name the layer that it connects")
            base = features.pop().removeprefix(_BASE)
        width = len(features) + 1 if kind == "RL" else max(len(features), 1)
        return _Layer(kind, name, tuple(features), base, column, width)

    def _row(self, line: str, columns: int, number: int) -> _Row:
        # Some versions end rows with a tab; only zero-width tokens are empty.
        fields = line.split("\t")[: 3 + columns]
        match = re.fullmatch(r"(\d+)-(\d+)", fields[1]) if len(fields) == 3 + columns else None
        if match is None or not all(fields[3:]):
            raise self._error(number, f"expected number, offsets, token and {columns} columns of annotation")
        return _Row(number, fields[0], int(match[1]), int(match[2]), _unescape(fields[2]), fields[3:])

    def _text(self) -> tuple[str, list[tuple[int, int]]]:
        """Return the text and its sentences; only offsets tell how they are separated."""
        text, length, bounds = "", 0, []
        for sentence, rows in self.sentences:
            gap = rows[0].start - length
            if gap < 0:
                raise self._error(rows[0].line, "the sentence begins inside of the one before it")
            text += " " * gap
            bounds.append((len(text), len(text) + len(sentence)))
            text += sentence
            length = rows[0].start + len(sentence.encode("utf-16-le")) // 2
        return text, bounds

    def _span(self, rows: list[_Row]) -> tuple[int, int]:
        start, end = min(row.start for row in rows), max(row.end for row in rows)
        return self._offsets(start), self._offsets(end)

    def _annotations(self, layer: _Layer) -> dict[Key, _Annotation]:
        found: dict[Key, _Annotation] = {}
        for row in self.rows.values():
            for key, values in _cell(layer, row):
                found.setdefault(key, _Annotation(values)).rows.append(row)
        return found

    def _add_relations(self, builder: RecordBuilder, layer: _Layer, row: _Row) -> None:
        *values, sources = row.cells[layer.first : layer.first + layer.width]
        if sources == "_":
            return
        stacks = [_STACK.split(value) for value in values]
        split_sources = _STACK.split(sources)
        if any(len(stack) != len(split_sources) for stack in stacks):
            raise self._error(row.line, f"{sources!r} and {'|'.join(values)!r} differ in their number of relations")
        for position, source in enumerate(split_sources):
            match = _SOURCE.fullmatch(source)
            if match is None or match[1] not in self.rows:
                raise self._error(row.line, f"{source!r} is not the row of another annotation")
            label = _label(layer, [_value(stack[position]) for stack in stacks])
            head = self._argument(builder, layer, self.rows[match[1]], match[2])
            builder.add_relation(head, self._argument(builder, layer, row, match[3]), label)

    def _argument(self, builder: RecordBuilder, layer: _Layer, row: _Row, number: str | None) -> Hashable:
        """Return the key of an argument by its row and number."""
        if layer.base == TOKEN:
            return builder.key_at(*self._span([row]))
        here = [
            key
            for key in self.keys_in.get(row.id, ())
            if (layer.base == ANY or key[0] == layer.base) and number in (None, "0", key[1])
        ]
        return here[0] if len(here) == 1 else (layer.base, row.id)

    def _add_chains(self, builder: RecordBuilder, layer: _Layer) -> None:
        links: dict[tuple[int, int], list[_Row]] = {}
        # The link is in this column, which comes first in some files and last in others.
        place = layer.features.index(_CHAIN) if _CHAIN in layer.features else layer.width - 1
        for row in self.rows.values():
            for cell in _STACK.split(row.cells[layer.first + place]):
                if match := _LINK.fullmatch(cell):
                    links.setdefault((int(match[1]), int(match[2])), []).append(row)
        for _, chain in groupby(sorted(links), key=lambda link: link[0]):
            builder.add_spans_as_cluster(self._span(links[link]) for link in chain)

    def _error(self, line: int, message: str) -> CorpusError:
        return CorpusError(f"{self.file}:{line}: {message}.")


def _cell(layer: _Layer, row: _Row) -> Iterator[tuple[Key, list[str | None]]]:
    """Yield the annotations of a layer in a row: their keys, and the values of their features."""
    stacks = [_STACK.split(cell) for cell in row.cells[layer.first : layer.first + layer.width]]
    for position in range(len(stacks[0])):
        cells = [stack[position] if position < len(stack) else "_" for stack in stacks]
        if all(cell == "_" for cell in cells):
            continue
        # The numbers of slots are those of other annotations.
        own = [cell for place, cell in enumerate(cells) if place not in layer.slots]
        numbers = [match[2] for cell in own if (match := _NUMBER.fullmatch(cell))]
        yield (layer.name, numbers[0] if numbers else f"{row.id}/{position}"), [_value(cell) for cell in cells]


def _value(cell: str) -> str | None:
    """Return the value of a feature; None if it is not set."""
    match = _NUMBER.fullmatch(cell)
    value = match[1] if match else cell
    return None if value in ("*", "_") else _unescape(value)


def _label(layer: _Layer, values: list[str | None]) -> str | None:
    return label_of(layer.name, None if layer.label is None else values[layer.label])


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _CONTROL.get(match[1], match[1]), text)


WEBANNO_TSV = CorpusFormat(
    name="webanno_tsv",
    title="WebAnno TSV 3 (INCEpTION)",
    read=read_webanno_tsv,
    recognize=lambda sample: sample.starts_with(".tsv", "#FORMAT=WebAnno TSV"),
)
