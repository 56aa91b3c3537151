"""Label schemas: relations, their wordings, and the entity types that they allow."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import srsly

from spacy_slmre.ontology import ABSOLUTE_IRI, SUFFIXES, read_labels
from spacy_slmre.util.json_files import is_int, parse_json

NEGATIVE_LABEL = "no_relation"
ANY_TYPE = "*"
RULES = ("symmetric", "inverse", "max_per_head", "max_per_tail")
"""Keys of a label that say how its relations depend on each other."""
LABEL_KEYS = {"name", "wording", "definition", "types", "iri", *RULES}

# Annotation schemes, also those of spaCy's pipelines, name the same kinds of entities differently. Constraints use the
# names on the left. Case does not matter, and types that are not listed are not mapped.
_TYPE_NAMES = {
    "PER": "PERSON PEOP PERSNAME PRS PS",
    "LOC": "GPE LOCATION FAC FACILITY PLACE PLACENAME GEOGNAME GPE_LOC LC",
    "ORG": "ORGANIZATION ORGANISATION ORGNAME GPE_ORG OG",
    "DATE": "TIME DATETIME PERIOD TME DT TI",
    "WORK": "WORK_OF_ART WRK",
    "EVENT": "EVT EVN",
    "PRODUCT": "PROD",
    "NORP": "NAT_REL_POL",
}
NAME_TYPE = "NAME"
"""In type constraints: any type but dates and numbers. Recognizers often confuse the types of names."""
OTHER_TYPE = "MISC"
"""In many pipelines, the type of all names but persons, places and organizations: works, events, products, …."""
_COMMON_TYPES = frozenset({"PER", "LOC", "ORG"})
_NUMBERS = "CARDINAL ORDINAL MONEY PERCENT QUANTITY QT NUM NUMERIC_VALUE MSR"
_NO_NAMES = frozenset({"DATE", *_NUMBERS.split()})
DEFAULT_TYPE_MAP: Mapping[str, str] = {
    name: type for type, names in _TYPE_NAMES.items() for name in (type, *names.split())
}
"""Maps entity types in upper case to those in type constraints."""


@dataclass(frozen=True)
class RelationLabel:
    """One label of a schema.

    Attributes:
        name: Name in records and scores, for instance "per:city_of_birth".
        wording: Text that the model reads and answers with, for instance "city of birth".
        definition: One line for the instruction, or "".
        types: Allowed (head type, tail type) pairs, as annotated or mapped types in any case; "*" is any type, "NAME"
            any but dates and numbers. Empty allows all. An entity of the type MISC fits all types of names but PER, LOC
            and ORG.
        symmetric: Whether the relation holds in both directions ("spouse") or only in one ("author"); None if unknown.
        inverse: Name of the label that then holds from tail to head ("child" for "parent"), if there is one.
        max_per_head: Maximum number of tails of a mention, if limited: 1 for "place of birth".
        max_per_tail: Maximum number of heads of a mention, if limited.
        iri: The property in RDF, if there is one, for instance "https://schema.org/spouse".
    """

    name: str
    wording: str
    definition: str = ""
    types: tuple[tuple[str, str], ...] = ()
    symmetric: bool | None = None
    inverse: str | None = None
    max_per_head: int | None = None
    max_per_tail: int | None = None
    iri: str | None = None


NEGATIVE = RelationLabel(NEGATIVE_LABEL, "no relation", "none of these holds, or the text does not say")
"""The negative label that the shipped adapter was tuned with."""


@dataclass(frozen=True)
class LabelSchema:
    """The labels that a model chooses from, in the order of the columns of its log-probabilities.

    Attributes:
        labels: All labels, including the negative one.
        negative_label: Name of the label that means "no relation"; None if every pair has a relation.
        type_map: Maps annotated entity types to those in type constraints, in addition to `DEFAULT_TYPE_MAP`.

    Raises:
        ValueError: No labels, duplicate names or wordings, an unknown negative label, or a wrong inverse.
    """

    labels: tuple[RelationLabel, ...]
    negative_label: str | None = NEGATIVE_LABEL
    type_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.positive_labels:
            raise ValueError("The label set is empty: name at least one relation in `labels` or in a `schema`.")
        for attribute in ("name", "wording"):
            values = [getattr(label, attribute) for label in self.labels]
            if not all(map(str.strip, values)):
                raise ValueError(f"A label has an empty {attribute}; all labels: {', '.join(map(repr, self.names))}.")
            if repeated := sorted(value for value, number in Counter(values).items() if number > 1):
                raise ValueError(
                    f"Labels must be unique, but a {attribute} occurs more than once: {', '.join(repeated)}."
                )
        if self.negative_label is not None and self.negative_label not in self.index:
            raise ValueError(
                f'The negative label "{self.negative_label}" is not one of the labels: {", ".join(self.names)}.'
            )
        for label in self.labels:
            if label.inverse is not None and (label.symmetric or label.inverse == label.name):
                raise ValueError(
                    f'The label "{label.name}" is its own inverse, or symmetric with an inverse: set either '
                    '"symmetric", or "inverse" to another label.'
                )
            if label.inverse is not None and label.inverse == self.negative_label:
                raise ValueError(f'The inverse of the label "{label.name}" is the negative label: remove "inverse".')

    @classmethod
    def from_labels(cls, labels: Iterable[str], negative_label: str | None = NEGATIVE_LABEL) -> LabelSchema:
        """Make a schema from names, with wordings from `wording_of`; a missing negative label is added.

        Raises:
            TypeError: `labels` is one string instead of a list.
        """
        if isinstance(labels, str):
            raise TypeError(f'`labels` must be a list of names, not the text "{labels}".')
        names = list(labels)
        if bad := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"`labels` must be a list of names, but {bad[0]!r} is not a string.")
        if negative_label is not None and names and negative_label not in names:
            names.append(negative_label)
        wordings = [wording_of(name) for name in names]
        counts = Counter(wordings)
        # If shortening makes two labels equal (per:parents, org:parents), both keep their prefix.
        return cls(
            tuple(
                RelationLabel(name, wording if counts[wording] == 1 else wording_of(name, keep_prefix=True))
                for name, wording in zip(names, wordings, strict=True)
            ),
            negative_label,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSchema:
        """Read the result of `to_dict`.

        Only the names of the labels are required; a missing negative label is added. {"ontology": path} has the labels
        that `from_ontology` reads, with its arguments as optional keys.

        Raises:
            ValueError: A key is missing or unknown, or a value has the wrong form.
        """
        if isinstance(data, Mapping) and "ontology" in data:
            return cls._from_ontology_dict(data)
        if not isinstance(data, Mapping) or not isinstance(data.get("labels"), (list, tuple)):
            raise ValueError('A schema is an object with a list "labels" of names or of objects with a "name".')
        if unknown := set(data) - {"labels", "negative_label", "type_map"}:
            raise ValueError(f"Unknown keys in the schema: {', '.join(sorted(unknown))}.")
        labels = []
        for entry in data["labels"]:
            entry = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                raise ValueError(f'A label is a name or an object with a "name", not {entry!r}.')
            if unknown := set(entry) - LABEL_KEYS:
                raise ValueError(f'Unknown keys in the label "{entry["name"]}": {", ".join(sorted(unknown))}.')
            texts = {key: entry.get(key) or "" for key in ("wording", "definition")}
            if bad := [key for key, value in texts.items() if not isinstance(value, str)]:
                raise ValueError(f'"{bad[0]}" of the label "{entry["name"]}" must be text, not {entry[bad[0]]!r}.')
            types = entry.get("types") or ()
            if not isinstance(types, (list, tuple)) or not all(_is_pair(pair) for pair in types):
                raise ValueError(f'"types" of the label "{entry["name"]}" must list [head type, tail type] pairs.')
            wording = texts["wording"] or wording_of(entry["name"])
            pairs = tuple((head, tail) for head, tail in types)
            symmetric, inverse = entry.get("symmetric"), entry.get("inverse")
            if not isinstance(symmetric, bool | None) or not isinstance(inverse, str | None):
                raise ValueError(
                    f'"symmetric" of the label "{entry["name"]}" must be true or false, and "inverse" a name or null.'
                )
            limits = {key: entry.get(key) for key in ("max_per_head", "max_per_tail")}
            if bad := [key for key, value in limits.items() if not (value is None or (is_int(value) and value > 0))]:
                raise ValueError(f'"{bad[0]}" of the label "{entry["name"]}" must be a positive number or null.')
            iri = entry.get("iri")
            if iri is not None and not (isinstance(iri, str) and ABSOLUTE_IRI.fullmatch(iri)):
                raise ValueError(f'"iri" of the label "{entry["name"]}" must be an absolute IRI or null, not {iri!r}.')
            label = RelationLabel(
                entry["name"], wording, texts["definition"], pairs, symmetric, inverse, **limits, iri=iri
            )
            labels.append(label)
        negative_label = data.get("negative_label", NEGATIVE_LABEL)
        type_map = data.get("type_map", {})
        if not isinstance(negative_label, str | None) or not _is_map(type_map):
            raise ValueError('"negative_label" is a name or null, and "type_map" an object of names.')
        if labels and negative_label is not None and negative_label not in [label.name for label in labels]:
            labels.append(RelationLabel(negative_label, wording_of(negative_label)))
        # A part of a schema may lack the inverse of a label, but a similar name is probably a spelling mistake.
        names = [label.name for label in labels]
        for label in labels:
            if label.inverse and label.inverse not in names:
                for similar in get_close_matches(label.inverse, names, 1, cutoff=0.8):
                    warnings.warn(
                        f'The inverse "{label.inverse}" of the label "{label.name}" is not one of the labels. Did you '
                        f'mean "{similar}"?',
                        stacklevel=2,
                    )
        own = {name: type for name, type in type_map.items() if DEFAULT_TYPE_MAP.get(name.upper()) != type}
        return cls(tuple(labels), negative_label, own)

    @classmethod
    def from_file(cls, path: str | Path) -> LabelSchema:
        """Read a schema from a JSON or YAML file, or from an ontology.

        Raises:
            ValueError: The file is missing, malformed, or not a valid schema.
        """
        path = Path(path)
        if path.suffix.lower() in SUFFIXES:
            return cls.from_ontology(path)
        try:
            text = path.read_text(encoding="utf-8")
            is_yaml = path.suffix.lower() in (".yml", ".yaml")
            return cls.from_dict(srsly.yaml_loads(text) if is_yaml else parse_json(text))
        except OSError as error:
            raise ValueError(f"The schema file {path} cannot be read: {error.strerror}.") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: the schema file is not JSON ({error.msg}).") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_ontology(
        cls,
        path: str | Path,
        *,
        include: Sequence[str] | None = None,
        type_map: Mapping[str, str] | None = None,
        negative_label: str | None = NEGATIVE_LABEL,
    ) -> LabelSchema:
        """Read a schema from an ontology (OWL, RDFS or schema.org); requires the extra `ontology`.

        Labels are properties whose range is a class or a date; see the guide "Your own labels" for what is read.

        Args:
            path: File in Turtle (.ttl), RDF/XML (.rdf, .owl), JSON-LD (.jsonld), N-Triples (.nt) or N3 (.n3).
            include: Names or IRIs of the properties to read. By default, all that are not deprecated.
            type_map: Maps entity types, and names of classes, to those in type constraints, in addition to
                `DEFAULT_TYPE_MAP`. Subclasses inherit the type.
            negative_label: The negative label, which is added.

        Raises:
            ValueError: The file cannot be read, is not RDF, or lacks relations or a property in `include`; two
                properties have the same name; or rdflib is missing.
        """
        path, type_map = Path(path), type_map or {}
        types = {**DEFAULT_TYPE_MAP, **{name.upper(): type for name, type in type_map.items()}}
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: the suffix is not one of an ontology: {', '.join(SUFFIXES)}.")
        try:
            labels = read_labels(path, include, types)
            return cls.from_dict({"labels": labels, "negative_label": negative_label, "type_map": type_map})
        except OSError as error:
            raise ValueError(f"The ontology {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _from_ontology_dict(cls, data: Mapping[str, Any]) -> LabelSchema:
        options = {key: value for key, value in data.items() if key != "ontology"}
        if unknown := set(options) - {"include", "type_map", "negative_label"}:
            raise ValueError(f'Unknown keys next to "ontology": {", ".join(sorted(unknown))}.')
        include, type_map = options.get("include"), options.get("type_map") or {}
        if not isinstance(data["ontology"], str | Path) or not (include is None or _is_names(include)):
            raise ValueError('"ontology" is a path, and "include" a list of names or IRIs.')
        if not isinstance(options.get("negative_label"), str | None) or not _is_map(type_map):
            raise ValueError('"negative_label" is a name or null, and "type_map" an object of names.')
        return cls.from_ontology(data["ontology"], **options)

    @classmethod
    def from_any(cls, value: Any, negative_label: str | None = NEGATIVE_LABEL) -> LabelSchema:
        """Make a schema from a config value: a schema, a list, a dict as returned by `to_dict`, or a path.

        The items of a list are names, or objects as in `to_dict`.

        Args:
            value: The value.
            negative_label: The negative label if `value` is a list.

        Raises:
            ValueError: The value is not a valid schema.
            TypeError: The value has another type.
        """
        if isinstance(value, LabelSchema):
            return value
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        if isinstance(value, str | Path):
            return cls.from_file(value)
        if isinstance(value, list | tuple):
            if any(isinstance(label, Mapping) for label in value):
                return cls.from_dict({"labels": value, "negative_label": negative_label})
            return cls.from_labels(value, negative_label)
        raise TypeError(f"A schema must be a list, a dict, a path or a LabelSchema, not {value!r}.")

    @classmethod
    def general(cls) -> LabelSchema:
        """Return the default schema of everyday relations."""
        return cls.from_dict(json.loads((files("spacy_slmre") / "schemas" / "general.json").read_text("utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `from_dict` reads it back."""
        return {
            "labels": [
                {
                    "name": label.name,
                    "wording": label.wording,
                    "definition": label.definition,
                    "types": [list(pair) for pair in label.types],
                    **{key: value for key in (*RULES, "iri") if (value := getattr(label, key)) is not None},
                }
                for label in self.labels
            ],
            "negative_label": self.negative_label,
            "type_map": dict(self.type_map),
        }

    def with_name(self, name: str, definition: str = "") -> LabelSchema:
        """Return a copy with one more label, inserted before the negative label if that is last."""
        wording = wording_of(name)
        if wording in {label.wording for label in self.labels}:
            wording = wording_of(name, keep_prefix=True)
        last = self.labels[-1].name == self.negative_label
        position = len(self.labels) - 1 if last else len(self.labels)
        labels = (*self.labels[:position], RelationLabel(name, wording, definition), *self.labels[position:])
        return LabelSchema(labels, self.negative_label, self.type_map)

    def extend_types(self, type_map: Mapping[str, str]) -> LabelSchema:
        """Return a copy that also maps these entity types."""
        return replace(self, type_map={**self.type_map, **type_map}) if type_map else self

    def check_wordings(self, tuned: LabelSchema) -> None:
        """Raise ValueError if a label has another wording than in the schema that a model was tuned with."""
        for label in tuned.labels:
            column = self.index.get(label.name)
            if column is not None and self.labels[column].wording != label.wording:
                raise ValueError(
                    f'The label "{label.name}" is worded "{self.labels[column].wording}" in the schema, but the model '
                    f'was tuned with "{label.wording}". Use that wording, rename the label, or use an untuned model '
                    "(for a language model: model.adapter = null)."
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all labels."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def positive_labels(self) -> tuple[RelationLabel, ...]:
        """All labels except the negative one."""
        return tuple(label for label in self.labels if label.name != self.negative_label)

    @cached_property
    def positive_names(self) -> tuple[str, ...]:
        """The names of all labels except the negative one."""
        return tuple(label.name for label in self.positive_labels)

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each label, by name."""
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def inverse_of(self) -> dict[str, str]:
        """Labels that state another label's relation from its tail to its head, and that label.

        A symmetric label is its own inverse. Of two inverse labels, the later one is the key: `{"spouse": "spouse",
        "child": "parent"}` if the schema lists "parent" first. Labels that share an inverse, such as "father" and
        "mother" of "child", are left out, because "child" does not tell which of them holds. See
        `spacy_slmre.directions`.
        """
        inverses = {label.name: label.name for label in self.labels if label.symmetric}
        partners: dict[str, set[str]] = defaultdict(set)
        for label in self.labels:
            if label.inverse in self.index:
                partners[label.name].add(label.inverse)
                partners[label.inverse].add(label.name)
        for name, others in partners.items():
            (first, *more) = others
            is_pair = not more and partners[first] == {name} and not {name, first} & inverses.keys()
            if is_pair and self.index[first] < self.index[name]:
                inverses[name] = first
        return inverses

    @cached_property
    def mirrors(self) -> dict[str, str]:
        """The labels that then hold in the other direction, by name: symmetric ones themselves, others their inverse.

        "father" and "mother" may both have the mirror "child", which then has none.
        """
        declared = {label.name: label.inverse for label in self.labels if label.inverse in self.index}
        return declared | self.inverse_of | {first: second for second, first in self.inverse_of.items()}

    @cached_property
    def one_way(self) -> frozenset[str]:
        """The labels that hold in one direction only: those that are not symmetric, or that have or are an inverse."""
        inverses = {label.inverse for label in self.labels}
        return frozenset(
            label.name
            for label in self.labels
            if label.symmetric is False or label.inverse is not None or label.name in inverses
        )

    @cached_property
    def limits(self) -> dict[str, dict[str, int]]:
        """How often a label may hold: "max_per_head", "max_per_tail", and "directions" = 1 if it is `one_way`."""
        limits: dict[str, dict[str, int]] = {}
        for label in self.labels:
            rules = {name: getattr(label, name) for name in ("max_per_head", "max_per_tail")}
            rules["directions"] = 1 if label.name in self.one_way else None
            if found := {name: value for name, value in rules.items() if value is not None}:
                limits[label.name] = found
        return limits

    @cached_property
    def iris(self) -> dict[str, str]:
        """The IRIs of the labels that have one, by name."""
        return {label.name: label.iri for label in self.labels if label.iri}

    @cached_property
    def fingerprint(self) -> str:
        """A string that is equal for equal schemas."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @cached_property
    def answers_key(self) -> str:
        """A hash of names and wordings, which determine the possible answers."""
        answers = [[label.name, label.wording] for label in self.labels]
        return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]

    def map_type(self, entity_type: str) -> str:
        """Map an annotated entity type to the one used in type constraints, whatever its case."""
        return self._types.get(entity_type.upper(), entity_type)

    @cached_property
    def _types(self) -> dict[str, str]:
        types = dict(DEFAULT_TYPE_MAP)
        for name, type in self.type_map.items():
            # A type that is mapped to itself is not mapped any further.
            types[name.upper()] = type if type.upper() == name.upper() else DEFAULT_TYPE_MAP.get(type.upper(), type)
        return types

    @cached_property
    def allowed_types(self) -> frozenset[str] | None:
        """The mapped types, in upper case, that at least one label allows for its head or tail; None if all."""
        constraints = [label.types for label in self.positive_labels]
        types = {self.map_type(type).upper() for pairs in constraints for pair in pairs for type in pair}
        return frozenset(types) if all(constraints) and ANY_TYPE not in types else None

    def allows_type(self, entity_type: str) -> bool:
        """Return whether a mapped type is allowed for the head or the tail of any label."""
        allowed = self.allowed_types
        return allowed is None or any(self._fits(entity_type.upper(), one) for one in allowed)

    def allowed(self, head_type: str, tail_type: str) -> np.ndarray:
        """Return which labels two mapped types allow: bool (n_labels,); the negative label is always allowed."""
        key = (head_type.upper(), tail_type.upper())
        if key not in self._allowed:
            self._allowed[key] = np.array([self._allows(label, *key) for label in self.labels])
        return self._allowed[key]

    def _allows(self, label: RelationLabel, head_type: str, tail_type: str) -> bool:
        if label.name == self.negative_label or not label.types:
            return True
        return any(self._fits(head_type, head) and self._fits(tail_type, tail) for head, tail in label.types)

    def _fits(self, entity_type: str, allowed: str) -> bool:
        allowed = self.map_type(allowed).upper()
        if allowed == NAME_TYPE or (entity_type == OTHER_TYPE and allowed not in _COMMON_TYPES | _NO_NAMES):
            return entity_type not in _NO_NAMES
        return allowed in (ANY_TYPE, entity_type)

    def allows_any(self, head_type: str, tail_type: str) -> bool:
        """Return whether two mapped types allow any positive label."""
        return int(self.allowed(head_type, tail_type).sum()) > (self.negative_label is not None)

    @cached_property
    def _allowed(self) -> dict[tuple[str, str], np.ndarray]:
        return {}


def is_name_type(entity_type: str) -> bool:
    """Return whether entities of an annotated type are names, not dates or numbers."""
    return DEFAULT_TYPE_MAP.get(entity_type.upper(), entity_type.upper()) not in _NO_NAMES


def is_person_type(entity_type: str) -> bool | None:
    """Return whether entities of an annotated type are persons; None if the type is not a common one."""
    common = DEFAULT_TYPE_MAP.get(entity_type.upper())
    return None if common is None else common == "PER"


def wording_of(name: str, *, keep_prefix: bool = False) -> str:
    """Turn a label's name into a readable phrase.

    `/people/person/place_lived`, `per:place_lived` and `placeLived` all become "place lived"; with `keep_prefix`, the
    part before the last "/" or ":" is kept.
    """
    stem = name.strip()
    if not keep_prefix:
        stem = re.split(r"[/:]", stem.rstrip("/:"))[-1]
    stem = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", stem)
    words = re.sub(r"[_/:\s-]+", " ", stem).strip().lower()
    return words or name


def is_file_reference(value: Any) -> bool:
    """Return whether a config value names a file that `LabelSchema.from_any` would read."""
    return isinstance(value, str | Path) or (isinstance(value, Mapping) and "ontology" in value)


def general_schema() -> LabelSchema:
    """Return the default schema; registered as `@misc = "spacy-slmre.GeneralSchema.v1"`."""
    return LabelSchema.general()


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for item in value.items() for part in item)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(part, str) for part in value)
