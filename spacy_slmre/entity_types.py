"""Entity types as labels that a model chooses from: their wordings and definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spacy_slmre.schema import (
    DEFAULT_TYPE_MAP,
    NEGATIVE,
    NEGATIVE_LABEL,
    LabelSchema,
    RelationLabel,
    is_name_type,
    wording_of,
)

GENERAL_TYPES: dict[str, tuple[str, str]] = {
    "PER": ("person", "a human being or a character, by name or description"),
    "LOC": ("place", "a country, city, region, building, river or other location"),
    "ORG": ("organization", "a company, institution, party, team, club, authority or other group with a name"),
    "DATE": ("date", "a date, year, period or time"),
    "WORK": ("work", "a book, song, film, painting, paper or law"),
    "EVENT": ("event", "a battle, match, conference, disaster or other happening"),
    "PRODUCT": ("product", "a thing made or sold, a vehicle, ship, software or drug"),
    "AWARD": ("award", "a prize, medal or honor"),
    "TITLE": ("occupation", "a profession, office or title"),
    "NORP": ("nationality or group", "a nationality, religion or political group"),
    "AMOUNT": ("amount", "a sum of money or a quantity"),
    "MISC": ("other thing", "any other thing that has a name: a disease, species, substance or part of a body"),
}
"""Wording and definition of the general types that the shipped adapter was tuned with, by mapped name."""
ONTONOTES = ("PERSON", "NORP", "ORG", "GPE", "PRODUCT", "EVENT", "WORK_OF_ART")
"""The default types, as spaCy's pipelines name them. GPE stands for LOC and FAC, too, and WORK_OF_ART for LAW."""


@dataclass(frozen=True)
class EntityTypes:
    """The types that entities are given.

    Attributes:
        schema: A label for each type, and the negative label for "no entity".
        is_default: Whether these are the default types. Entities of other types are then left alone.
    """

    schema: LabelSchema
    is_default: bool = False

    @classmethod
    def from_any(cls, value: Any) -> EntityTypes:
        """Make types from a config value.

        Args:
            value: Names, a dict of names and definitions, or a schema (a dict with "labels", the path of a file, or a
                `LabelSchema`); None for the default types. Names that mean a general type ("PERSON", "Peop") have its
                wording and, unless they are given one, its definition.

        Raises:
            ValueError: The value is not a valid set of types, or its file cannot be read.
        """
        if value is None:
            return cls(_make_schema(dict.fromkeys(ONTONOTES, ""), {"LAW": "WORK"}), is_default=True)
        if isinstance(value, Mapping) and not isinstance(value.get("labels"), list | tuple):
            return cls(_make_schema(value))
        if isinstance(value, list | tuple):
            return cls(_make_schema(_without_definitions(value)))
        try:
            schema = LabelSchema.from_any(value)
        except TypeError as error:
            raise ValueError(f"Entity types must be names, definitions by name, or a schema, not {value!r}.") from error
        return cls(LabelSchema((*schema.positive_labels, NEGATIVE), NEGATIVE_LABEL, schema.type_map))

    def find(self, name: str) -> str | None:
        """Return the type that an annotated type means: itself, or one that the built-in type map maps to the same."""
        return name if name in self.schema.positive_names else self._by_meaning.get(self._meaning(name))

    def may_change(self, name: str) -> bool:
        """Return whether an entity of this type may get another one."""
        return self.find(name) is not None or (not self.is_default and is_name_type(name))

    def _meaning(self, name: str) -> str:
        return self.schema.map_type(name).upper()

    @cached_property
    def _by_meaning(self) -> dict[str, str]:
        # Of several types with the same meaning, the first.
        return {self._meaning(name): name for name in reversed(self.schema.positive_names)}


def _without_definitions(names: Iterable[Any]) -> dict[str, str]:
    names = list(names)
    if repeated := [str(name) for name, number in Counter(map(str, names)).items() if number > 1]:
        raise ValueError(f"Entity types must be unique, but {', '.join(repeated)} occurs more than once.")
    return dict.fromkeys(names, "")


def _make_schema(definitions: Mapping[str, str], type_map: Mapping[str, str] | None = None) -> LabelSchema:
    if not definitions:
        raise ValueError("The entity types are empty: name at least one, or use null for the default types.")
    if bad := [item for item in definitions.items() if not all(isinstance(part, str) for part in item)]:
        raise ValueError(f"Entity types must be names with definitions, both texts, not {bad[0][0]!r}: {bad[0][1]!r}.")
    mapped = {name: DEFAULT_TYPE_MAP.get(name.upper(), name.upper()) for name in definitions}
    counts = Counter(mapped.values())
    labels = []
    for name, definition in definitions.items():
        general = GENERAL_TYPES.get(mapped[name]) if counts[mapped[name]] == 1 else None
        wording, default = general or (wording_of(name), "")
        labels.append(RelationLabel(name, wording, definition or default))
    return LabelSchema((*labels, NEGATIVE), NEGATIVE_LABEL, type_map or {})
