"""Entity types as labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spacy_slmre.entity_types import GENERAL_TYPES, EntityTypes
from spacy_slmre.schema import NEGATIVE, LabelSchema


def test_default_types_are_worded_as_in_training() -> None:
    types = EntityTypes.from_any(None)
    worded = {label.name: (label.wording, label.definition) for label in types.schema.labels}
    assert worded["PERSON"] == GENERAL_TYPES["PER"] and worded["GPE"] == GENERAL_TYPES["LOC"]
    assert worded["WORK_OF_ART"] == GENERAL_TYPES["WORK"]
    assert types.schema.labels[-1] == NEGATIVE
    assert [types.find(name) for name in ("FAC", "LOC", "LAW", "DATE", "SKILL")] == [
        "GPE",
        "GPE",
        "WORK_OF_ART",
        None,
        None,
    ]


def test_only_entities_of_known_types_may_change_unless_types_are_given() -> None:
    assert [EntityTypes.from_any(None).may_change(name) for name in ("LAW", "DATE", "SKILL")] == [True, False, False]
    assert [EntityTypes.from_any(["Peop"]).may_change(name) for name in ("LAW", "DATE", "SKILL")] == [True, False, True]
    assert EntityTypes.from_any(["date"]).may_change("TIME")


def test_names_of_general_types_have_their_wording_and_definition() -> None:
    person, place, firm, _ = EntityTypes.from_any({"Peop": "a human", "Loc": "", "trade_firm": ""}).schema.labels
    assert (person.wording, person.definition) == ("person", "a human")
    assert (place.wording, place.definition) == GENERAL_TYPES["LOC"]
    assert (firm.wording, firm.definition) == ("trade firm", "")
    # Two types of the same meaning need different wordings.
    assert [label.wording for label in EntityTypes.from_any(["GPE", "LOC"]).schema.labels[:-1]] == ["gpe", "loc"]
    assert EntityTypes.from_any(["GPE", "LOC"]).find("FAC") == "GPE"


def test_types_can_be_a_schema_or_its_file(tmp_path: Path) -> None:
    data = {"labels": [{"name": "SHIP", "wording": "ship", "definition": "a vessel"}]}
    (tmp_path / "types.json").write_text(json.dumps(data))
    expected = EntityTypes.from_any(data)
    assert (
        EntityTypes.from_any(tmp_path / "types.json") == expected == EntityTypes.from_any(LabelSchema.from_dict(data))
    )
    assert expected.schema.names == ("SHIP", NEGATIVE.name) and expected.schema.labels[-1] == NEGATIVE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "empty"),
        ({}, "empty"),
        (["PERSON", "PERSON"], "PERSON occurs more than once"),
        (["person", "per"], None),
        ([3], "must be names with definitions"),
        ({"PERSON": None}, "must be names with definitions, both texts, not 'PERSON': None"),
        (3, "names, definitions by name, or a schema, not 3"),
        ("missing.json", "cannot be read"),
        ({"labels": [{"name": "X", "size": 3}]}, "Unknown keys"),
        (["PERSON", "no_relation"], "more than once"),
    ],
)
def test_invalid_types_raise_an_error(value: Any, message: str | None) -> None:
    if message is None:
        assert len(EntityTypes.from_any(value).schema.positive_names) == len(value)
        return
    with pytest.raises(ValueError, match=message):
        EntityTypes.from_any(value)
