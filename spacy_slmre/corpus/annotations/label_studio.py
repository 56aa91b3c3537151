"""The format "label_studio": Label Studio's JSON export of tasks with text regions and relations.

[{"id": 1, "data": {"text": "Ann of Oslo"}, "annotations": [{"result": [
    {"id": "a", "type": "labels", "value": {"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}, …},
    {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["lives in"]}]}]}]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.records import Malformed, Record, Reject, parse_rows
from spacy_slmre.corpus.sources import read_json

# Pairs of (reversed?) that each arrow direction stands for. Label Studio draws "right" by default.
_DIRECTIONS = {"right": (False,), "left": (True,), "bi": (False, True)}


def read_label_studio(
    source: str | Path, split: str, *, text: str = "", unlabeled: str = ""
) -> Iterator[Record | Reject]:
    """Read a JSON export.

    If a task has several annotations, the one marked as ground truth is read, otherwise the first one.

    Args:
        source: The .json file.
        split: The split, used in the identifiers of tasks without one.
        text: Key in `data` of the text; the default is "text", or the only string in `data`.
        unlabeled: Label of arrows without a label; by default, they are rejected.
    """
    return parse_rows(read_json(source), _parse, split, _ids, text=text, unlabeled=unlabeled)


def _ids(row: dict[str, Any]) -> list[Any]:
    data = row.get("data")
    return [data.get("id") if isinstance(data, Mapping) else None, row.get("id")]


def _parse(row: dict[str, Any], *, line: int, id: str, text: str, unlabeled: str) -> Iterator[Record | Reject]:
    data = row["data"]
    annotations = [one for one in row.get("annotations") or () if not one.get("was_cancelled")]
    if not annotations:
        yield Reject(line, id, "task without annotation", "nobody annotated the task, or it was skipped")
        return
    chosen = next((one for one in annotations if one.get("ground_truth")), annotations[0])
    builder = RecordBuilder(_text_of(data, text), line=line, id=id)
    for other in annotations:
        if other is not chosen:
            builder.reject("another annotation of the task", f"annotation {other.get('id')}")
    regions = [one for one in chosen["result"] if one.get("type") != "relation"]
    names = {one["to_name"] for one in regions if one.get("type") == "labels" and one.get("to_name")}
    name = _name_of_text(names, text or "text")
    values = [one.get("value") or {} for one in regions if name is None or one.get("to_name", name) == name]
    builder.choose_units((value.get("start"), value.get("end"), value.get("text")) for value in values)
    for region in regions:
        _add_region(builder, region, name)
    for relation in chosen["result"]:
        if relation.get("type") == "relation":
            _add_relation(builder, relation, unlabeled)
    yield from builder.build()


def _text_of(data: Mapping[str, Any], key: str) -> Any:
    if key:
        return data.get(key)
    strings = [value for name, value in data.items() if isinstance(value, str) and name != "id"]
    if "text" not in data and len(strings) > 1:
        raise Malformed(f"several data could be the text ({', '.join(data)}); name one with the setting text")
    return data.get("text", strings[0] if strings else None)


def _name_of_text(names: Collection[str], key: str) -> str | None:
    """Return the name by which regions refer to the text, given all such names of a task; None if it is not known.

    An export does not tell which name belongs to which key in `data`, but usually they are the same.
    """
    return key if len(names) > 1 and key in names else None


def _add_region(builder: RecordBuilder, region: Mapping[str, Any], name: str | None) -> None:
    """Add a region of the text with this name; None stands for any."""
    value, kind = region.get("value") or {}, region.get("type")
    if kind == "labels" and name is not None and (other := region.get("to_name", name)) != name:
        builder.reject_entity(region["id"], "region of another text", f"it is in {other!r}")
        return
    if kind != "labels" or "start" not in value:
        builder.reject("neither entity nor relation", f"a result of the type {kind!r}")
        return
    first, *others = _labels(value) or [None]
    builder.add_entity(region["id"], value["start"], value["end"], first, covered=value.get("text"))
    for other in others:
        builder.reject("further type of an entity", f"{region['id']!r}: {other!r} besides {first!r}")


def _add_relation(builder: RecordBuilder, relation: Mapping[str, Any], unlabeled: str) -> None:
    direction = relation.get("direction") or "right"
    if direction not in _DIRECTIONS:
        builder.reject_relation("unknown direction", f"{direction!r} is none of {', '.join(_DIRECTIONS)}")
        return
    ends = relation["from_id"], relation["to_id"]
    for label in _labels(relation) or [unlabeled]:
        for is_reversed in _DIRECTIONS[direction]:
            builder.add_relation(*(ends[::-1] if is_reversed else ends), label)


def _labels(result: Mapping[str, Any]) -> list[Any]:
    labels = result.get("labels") or []
    if not isinstance(labels, list | str):
        raise Malformed(f'"labels" is {labels!r}, but must be a list of labels')
    return [labels] if isinstance(labels, str) else labels


def _is_task(row: dict[str, Any]) -> bool:
    has_results = any(isinstance(row.get(key), list) for key in ("annotations", "predictions"))
    return isinstance(row.get("data"), dict) and has_results


LABEL_STUDIO = CorpusFormat(
    name="label_studio", title="Label Studio", read=read_label_studio, recognize=lambda sample: sample.share(_is_task)
)
