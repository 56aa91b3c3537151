"""The format "uima_cas": UIMA CAS as JSON, the default export format of INCEpTION."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.annotations.layers import (
    SENTENCE,
    entity_layers,
    label_feature,
    label_of,
    reject_slots,
    relation_layers,
)
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Malformed, Record, Reject
from spacy_slmre.corpus.sources import CorpusError, open_text, source_files
from spacy_slmre.util.extras import require_extra

# The document before anybody has annotated it.
_INITIAL = "INITIAL_CAS.json"
_HEAD, _TAIL = "Governor", "Dependent"
_CHAIN_FIRST, _CHAIN_NEXT = "first", "next"
_SLOT = "target"


def read_uima_cas(source: str | Path, split: str, *, relations: str = "") -> Iterator[Record | Reject]:
    """Read one file, or all files of a folder, for instance the folder `curation` of an exported project.

    Args:
        source: A .json file, or a folder.
        split: Unused: the names of the files identify the texts.
        relations: Layers to read relations from, separated by commas; by default, all except syntax.
    """
    source = Path(source)
    for file in source_files(source, ".json"):
        name = str(file.relative_to(source).with_suffix("")) if source.is_dir() else file.stem
        if file.name == _INITIAL:
            yield Reject(1, name, "document without annotation", "the document as it was imported", str(file))
            continue
        try:
            builder = _build(file, name, relations)
        except Malformed as error:
            yield Reject(1, name, "malformed record", str(error), str(file))
            continue
        yield from builder.build()


def _build(file: Path, name: str, relations: str) -> RecordBuilder:
    cas = _load(file)
    types = {one.name: one for one in cas.typesystem.get_types()}
    bases = {
        layer: type.get_feature(_HEAD).rangeType.name
        for layer, type in types.items()
        if type.get_feature(_HEAD) and type.get_feature(_TAIL)
    }
    chosen = relation_layers(bases, relations, str(file))
    annotations = cas.select_all_annotations()
    sentences = [(one.begin, one.end) for one in annotations if one.type.name == SENTENCE]
    builder = RecordBuilder(cas.sofa_string, line=1, id=name, file=str(file), sentences=sentences or None)
    layers = entity_layers(set(chosen.values()), types.keys() - bases.keys())
    for one in annotations:
        if one.type.name in layers:
            builder.add_entity(one.xmiID, one.begin, one.end, _label(one))
    for one in annotations:
        if one.type.name in chosen:
            head, tail = (_argument(builder, getattr(one, side), layers) for side in (_HEAD, _TAIL))
            builder.add_relation(head, tail, _label(one))
    for one in annotations:
        reject_slots(builder, one.type.name, (one.begin, one.end), _n_slots(one))
    for chain in _chains(cas):
        builder.add_spans_as_cluster(chain)
    return builder


def _argument(builder: RecordBuilder, annotation: Any, layers: Collection[str]) -> Hashable:
    """Return the key of an argument; None if it is not set, or is no annotation of the text."""
    if annotation is None or not hasattr(annotation, "begin"):
        return None
    if annotation.type.name in layers:
        return annotation.xmiID
    return builder.key_at(annotation.begin, annotation.end)


def _load(file: Path) -> Any:
    with require_extra("inception", f"Reading {file}"):
        import cassis
    with open_text(file) as stream:
        text = stream.read()
    try:
        return cassis.load_cas_from_json(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{file}:{error.lineno}: invalid JSON ({error.msg}). Is the file complete?") from error
    except Exception as error:  # cassis does not check the form of the file
        raise CorpusError(f"{file}: not a UIMA CAS in JSON ({type(error).__name__}: {error}).") from error


def _label(annotation: Any) -> str | None:
    layer = annotation.type
    features = [feature.name for feature in layer.all_features if feature.rangeType.name == "uima.cas.String"]
    feature = label_feature(features)
    return label_of(layer.name, getattr(annotation, feature) if feature else None)


def _n_slots(annotation: Any) -> int:
    """Return the number of other annotations that fill the slots of an annotation."""
    values = [getattr(annotation, feature.name) for feature in annotation.type.all_features]
    links = [link for value in values for link in getattr(value, "elements", None) or ()]
    return sum(getattr(link, _SLOT, None) is not None for link in links)


def _chains(cas: Any) -> Iterator[list[tuple[int, int]]]:
    for one in cas.select_all_fs():
        if not hasattr(one, _CHAIN_FIRST):
            continue
        link, spans, seen = getattr(one, _CHAIN_FIRST), [], set()
        while link is not None and link.xmiID not in seen:
            seen.add(link.xmiID)
            spans.append((link.begin, link.end))
            link = getattr(link, _CHAIN_NEXT, None)
        yield spans


UIMA_CAS = CorpusFormat(
    name="uima_cas",
    title="UIMA CAS (INCEpTION)",
    read=read_uima_cas,
    recognize=lambda sample: sample.starts_with(".json", r'\s*\{\s*"%(TYPES|FEATURE_STRUCTURES|VIEWS)"'),
)
