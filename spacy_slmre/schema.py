"""Label schemas: which relations there are, how they are worded, and between which entity types they hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

NEGATIVE_LABEL = "no_relation"
ANY_TYPE = "*"

# Annotation schemes name the same kinds of entity differently. Constraints are written in the names on the
# right; a type that is not listed stands for itself.
DEFAULT_TYPE_MAP: Mapping[str, str] = {
    "PERSON": "PER",
    "Peop": "PER",
    "GPE": "LOC",
    "LOCATION": "LOC",
    "FAC": "LOC",
    "Loc": "LOC",
    "ORGANIZATION": "ORG",
    "Org": "ORG",
    "TIME": "DATE",
    "WORK_OF_ART": "WORK",
}


@dataclass(frozen=True)
class RelationLabel:
    """One label of a schema.

    Attributes:
        name: What records and scores call it, for instance "per:city_of_birth".
        wording: What the model reads and answers, for instance "city of birth".
        definition: One line for the instruction; may be empty.
        types: Allowed (head type, tail type) pairs, as annotated or as mapped, "*" standing for any type;
            empty allows all.
    """

    name: str
    wording: str
    definition: str = ""
    types: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LabelSchema:
    """The labels that a model chooses from; the order is that of the columns of its log-probabilities.

    Attributes:
        labels: The labels, the negative one included.
        negative_label: Name of the label that says "no relation"; None where every pair has a relation.
        type_map: Entity types as annotated → as the constraints name them.

    Raises:
        ValueError: No labels, duplicate names or wordings, or an unknown negative label.
    """

    labels: tuple[RelationLabel, ...]
    negative_label: str | None = NEGATIVE_LABEL
    type_map: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_TYPE_MAP))

    def __post_init__(self) -> None:
        if not [label for label in self.labels if label.name != self.negative_label]:
            raise ValueError(
                "The label set is empty: name at least one relation in `labels`, or give a `schema` file."
            )
        for what in ("name", "wording"):
            values = [getattr(label, what) for label in self.labels]
            if empty := [label for label in self.labels if not getattr(label, what).strip()]:
                raise ValueError(f"The label {empty[0]!r} has an empty {what}.")
            if doubles := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(
                    f"Labels must differ, but a {what} occurs more than once: {', '.join(doubles)}."
                )
        if self.negative_label is not None and self.negative_label not in self.index:
            raise ValueError(
                f'The negative label "{self.negative_label}" is none of the labels: {", ".join(self.names)}.'
            )

    @classmethod
    def from_labels(cls, labels: Iterable[str], negative_label: str | None = NEGATIVE_LABEL) -> LabelSchema:
        """A schema from plain names; each is worded by `wording_of`, the negative label is added if absent.

        Raises:
            TypeError: `labels` is one string instead of a list.
        """
        if isinstance(labels, str):
            raise TypeError(f'`labels` must be a list of names, not the text "{labels}".')
        names = list(labels)
        if bad := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"`labels` must be a list of names, but {bad[0]!r} is none.")
        if negative_label is not None and names and negative_label not in names:
            names.append(negative_label)
        wordings = [wording_of(name) for name in names]
        # Where shortening makes two labels alike (per:parents, org:parents), both keep their beginning.
        return cls(
            tuple(
                RelationLabel(name, wording if wordings.count(wording) == 1 else wording_of(name, whole=True))
                for name, wording in zip(names, wordings, strict=True)
            ),
            negative_label,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSchema:
        """A schema from what `to_dict` gives.

        In a file written by hand only the labels' names are needed; the negative label is added if absent.

        Raises:
            ValueError: A key is missing or unknown, or a value has the wrong form.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("labels"), (list, tuple)):
            raise ValueError('A schema is an object with a list "labels" of objects with a "name".')
        if unknown := set(data) - {"labels", "negative_label", "type_map"}:
            raise ValueError(f"Unknown keys in the schema: {', '.join(sorted(unknown))}.")
        labels = []
        for entry in data["labels"]:
            entry = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                raise ValueError(f'A label is a name or an object with a "name", not {entry!r}.')
            if unknown := set(entry) - {"name", "wording", "definition", "types"}:
                raise ValueError(
                    f'Unknown keys in the label "{entry["name"]}": {", ".join(sorted(unknown))}.'
                )
            texts = {key: entry.get(key) or "" for key in ("wording", "definition")}
            if bad := [key for key, value in texts.items() if not isinstance(value, str)]:
                raise ValueError(
                    f'"{bad[0]}" of the label "{entry["name"]}" must be text, not {entry[bad[0]]!r}.'
                )
            types = entry.get("types") or ()
            if not isinstance(types, (list, tuple)) or not all(_is_pair(pair) for pair in types):
                raise ValueError(
                    f'"types" of the label "{entry["name"]}" must list [head type, tail type] pairs.'
                )
            wording = texts["wording"] or wording_of(entry["name"])
            pairs = tuple((head, tail) for head, tail in types)
            labels.append(RelationLabel(entry["name"], wording, texts["definition"], pairs))
        negative_label = data.get("negative_label", NEGATIVE_LABEL)
        type_map = data.get("type_map", DEFAULT_TYPE_MAP)
        if not isinstance(negative_label, str | None) or not isinstance(type_map, Mapping):
            raise ValueError('"negative_label" is a name or null, and "type_map" an object of names.')
        if labels and negative_label is not None and negative_label not in [label.name for label in labels]:
            labels.append(RelationLabel(negative_label, wording_of(negative_label)))
        return cls(
            tuple(labels),
            negative_label,
            dict(type_map),
        )

    @classmethod
    def from_file(cls, path: str | Path) -> LabelSchema:
        """Read a schema from JSON.

        Raises:
            ValueError: The file is absent, is no JSON, or describes no valid schema.
        """
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"The schema file {path} cannot be read: {error.strerror}.") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: the schema file is no JSON ({error.msg}).") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def general(cls) -> LabelSchema:
        """The schema for everyday relations that is used where none is given."""
        return cls.from_dict(
            json.loads((files("spacy_slmre") / "schemas" / "general.json").read_text("utf-8"))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives an equal schema."""
        return {
            "labels": [
                {
                    "name": label.name,
                    "wording": label.wording,
                    "definition": label.definition,
                    "types": [list(pair) for pair in label.types],
                }
                for label in self.labels
            ],
            "negative_label": self.negative_label,
            "type_map": dict(self.type_map),
        }

    def with_label(self, label: RelationLabel) -> LabelSchema:
        """This schema and one label more, before the negative one if that stands last."""
        last = self.labels[-1].name == self.negative_label
        position = len(self.labels) - 1 if last else len(self.labels)
        labels = (*self.labels[:position], label, *self.labels[position:])
        return LabelSchema(labels, self.negative_label, self.type_map)

    def with_name(self, name: str, definition: str = "") -> LabelSchema:
        """This schema and one label more, worded after its name."""
        wording = wording_of(name)
        if wording in {label.wording for label in self.labels}:
            wording = wording_of(name, whole=True)
        return self.with_label(RelationLabel(name, wording, definition))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all labels."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def positive_names(self) -> tuple[str, ...]:
        """The names of all labels but the negative one."""
        return tuple(name for name in self.names if name != self.negative_label)

    @cached_property
    def index(self) -> dict[str, int]:
        """Name → column."""
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def fingerprint(self) -> str:
        """A key that is the same for equal schemas."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @cached_property
    def answers_key(self) -> str:
        """A short key of what a model may answer: the same for schemas with equal names and wordings."""
        answers = [[label.name, label.wording] for label in self.labels]
        return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]

    def map_type(self, entity_type: str) -> str:
        """An entity type in the words of the constraints."""
        return self.type_map.get(entity_type, entity_type)

    def allowed(self, head_type: str, tail_type: str) -> np.ndarray:
        """Which labels may hold between these mapped types: bool (n_labels,); the negative one always may."""
        key = (head_type, tail_type)
        if key not in self._allowed:
            self._allowed[key] = np.array([self._allows(label, *key) for label in self.labels])
        return self._allowed[key]

    def _allows(self, label: RelationLabel, head_type: str, tail_type: str) -> bool:
        if label.name == self.negative_label or not label.types:
            return True
        return any(
            self.map_type(head) in (ANY_TYPE, head_type) and self.map_type(tail) in (ANY_TYPE, tail_type)
            for head, tail in label.types
        )

    def allows_any(self, head_type: str, tail_type: str) -> bool:
        """Whether any positive label may hold between these mapped types."""
        return int(self.allowed(head_type, tail_type).sum()) > (self.negative_label is not None)

    @cached_property
    def _allowed(self) -> dict[tuple[str, str], np.ndarray]:
        return {}


def wording_of(name: str, *, whole: bool = False) -> str:
    """Words for a label's name.

    `/people/person/place_lived`, `per:place_lived` and `placeLived` all become "place lived".

    Args:
        name: The label's name.
        whole: Keep what stands before the last "/" or ":".
    """
    stem = name.strip()
    if not whole:
        stem = re.split(r"[/:]", stem.rstrip("/:"))[-1]
    stem = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", stem)
    words = re.sub(r"[_/:\s-]+", " ", stem).strip().lower()
    return words or name


def general_schema() -> LabelSchema:
    """Registered as `@misc = "spacy-slmre.GeneralSchema.v1"`: the schema for everyday relations."""
    return LabelSchema.general()


@dataclass(frozen=True)
class UnreadSchema:
    """A schema whose file is absent.

    A saved pipeline brings its labels along, while its config still names the file that they came from: that
    it is gone is an error only where the labels are wanted without them.
    """

    error: ValueError


def schema_file(path: Path) -> LabelSchema | UnreadSchema:
    """Registered as `@misc = "spacy-slmre.SchemaFile.v1"`: a schema from a JSON file."""
    try:
        return LabelSchema.from_file(path)
    except ValueError as error:
        if Path(path).exists():
            raise
        return UnreadSchema(error)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(part, str) for part in value)
    )
