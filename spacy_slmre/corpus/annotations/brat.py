"""The format "brat": a folder of texts (.txt) with brat's standoff annotation (.ann), or one .ann file with its text.

    T1  PER 0 3 Ann                       an entity; several spans, separated by ";", are discontinuous
    R1  lives_in Arg1:T1 Arg2:T2          a relation
    *   Equiv T1 T3                       mentions of the same entity

The fields are separated by tabs, and offsets count characters. Relations go from Arg1 to Arg2; if they have other
roles, from the first argument to the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Malformed, Record, Reject
from spacy_slmre.corpus.sources import CorpusError, read_lines, source_files

_RELATION = re.compile(r"(\S+)\s+([^\s:]+):(\S+)\s+([^\s:]+):(\S+)\s*")
_OTHER = {"E": "event", "A": "attribute", "M": "attribute", "N": "normalization", "#": "note"}


def read_brat(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read a folder, with its subfolders, or one .ann file.

    Args:
        source: The folder or file.
        split: Unused: the names of the files identify the texts.
    """
    source = Path(source)
    files = source_files(source, ".ann")
    if not files:
        raise CorpusError(f"{source}: there are no .ann files. Specify the folder with brat's .txt and .ann files.")
    for file in files:
        name = str(file.relative_to(source).with_suffix("")) if source.is_dir() else file.stem
        yield from _read_document(file, name)


def _read_document(file: Path, name: str) -> Iterator[Record | Reject]:
    try:
        builder = RecordBuilder(_read_text(file.with_suffix(".txt"), file), line=1, id=name, file=str(file))
    except Malformed as error:
        yield Reject(1, name, "malformed record", str(error), str(file))
        return
    # Relations may be listed before their entities.
    lines = [(number, line.split("\t")) for number, line in read_lines(file) if line.strip()]
    for number, fields in sorted(lines, key=lambda item: not item[1][0].startswith("T")):
        builder.line = number
        kind = fields[0][:1]
        if kind in _OTHER:
            builder.reject(_OTHER[kind], "\t".join(fields))
        elif len(fields) < 2 or not fields[1].strip() or kind not in ("T", "R", "*"):
            raise CorpusError(f"{file}:{number}: {_tabs(fields)} is not a line of brat's standoff format.")
        elif kind == "T":
            _add_entity(builder, fields, f"{file}:{number}")
        elif kind == "R":
            _add_relation(builder, fields, f"{file}:{number}")
        else:
            relation, *members = fields[1].split()
            if relation == "Equiv":
                builder.add_cluster(members)
            else:
                builder.reject("unknown symmetric relation", fields[1])
    builder.line = 1
    yield from builder.build()


def _read_text(path: Path, annotations: Path) -> str:
    try:
        # Line endings and a byte order mark count as characters in brat's offsets.
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8. Convert the file to UTF-8 first.") from error
    except OSError as error:
        raise CorpusError(f"{annotations}: its text {path.name} cannot be read: {error.strerror}.") from error


def _add_entity(builder: RecordBuilder, fields: list[str], where: str) -> None:
    type, *offsets = fields[1].split(maxsplit=1)
    fragments = [fragment.split() for fragment in offsets[0].split(";")] if offsets else []
    if not fragments or not all(len(one) == 2 and all(map(str.isdecimal, one)) for one in fragments):
        raise CorpusError(f"{where}: {_tabs(fields)} has no offsets. Expected: T1, type and offsets, text.")
    numbers = sorted((int(start), int(end)) for start, end in fragments)
    start, end = numbers[0][0], numbers[-1][1]
    # brat splits an entity at line breaks; such fragments are adjacent.
    gaps = [builder.text[one[1] : other[0]] for one, other in pairwise(numbers)]
    if any(gap.strip() for gap in gaps):
        builder.reject_entity(fields[0], "discontinuous entity", fields[1])
        return
    builder.add_entity(fields[0], start, end, type, covered=fields[2] if len(fields) > 2 else None)


def _add_relation(builder: RecordBuilder, fields: list[str], where: str) -> None:
    if (match := _RELATION.fullmatch(fields[1])) is None:
        raise CorpusError(f"{where}: {_tabs(fields)} is not a relation. Expected: R1, label Arg1:T1 Arg2:T2.")
    label, role, head, other, tail = match.groups()
    if (role, other) == ("Arg2", "Arg1"):
        head, tail = tail, head
    builder.add_relation(head, tail, label)


def _tabs(fields: list[str]) -> str:
    return repr(" ".join(fields))


BRAT = CorpusFormat(name="brat", title="brat", read=read_brat, recognize=lambda sample: sample.file(".ann") is not None)
