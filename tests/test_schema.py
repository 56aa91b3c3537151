from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.schema import LabelSchema, RelationLabel, wording_of


@pytest.mark.parametrize(
    ("name", "wording"),
    [
        ("place of birth", "place of birth"),
        ("/people/person/place_lived", "place lived"),
        ("per:title", "title"),
        ("placeOfBirth", "place of birth"),
        ("Cause-Effect", "cause effect"),
        ("P19", "p19"),
        ("_", "_"),
        (":", ":"),
    ],
)
def test_names_become_readable_phrases(name: str, wording: str) -> None:
    assert wording_of(name) == wording


def test_from_labels_adds_the_negative_label_and_keeps_wordings_apart() -> None:
    schema = LabelSchema.from_labels(["per:parents", "org:parents", "per:title"])
    assert schema.names == ("per:parents", "org:parents", "per:title", "no_relation")
    assert [label.wording for label in schema.labels] == ["per parents", "org parents", "title", "no relation"]
    assert schema.positive_names == ("per:parents", "org:parents", "per:title")
    assert LabelSchema.from_labels(["a", "none"], "none").names == ("a", "none")
    assert LabelSchema.from_labels(["a"], None).names == ("a",)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LabelSchema.from_labels([]), ValueError, "label set is empty"),
        (lambda: LabelSchema.from_labels(["no_relation"]), ValueError, "label set is empty"),
        (lambda: LabelSchema.from_labels(["a", "a"]), ValueError, "more than once: a"),
        (lambda: LabelSchema.from_labels(["a b", "a_b", "A_B"]), ValueError, "wording occurs more than once"),
        (lambda: LabelSchema.from_labels("abc"), TypeError, "list of names"),
        (lambda: LabelSchema.from_labels([1]), TypeError, "list of names"),
        (lambda: LabelSchema.from_labels(["a", " "]), ValueError, "empty name"),
        (lambda: LabelSchema((RelationLabel("a", "a"),), "none"), ValueError, "is not one of the labels"),
        (lambda: LabelSchema.from_dict({"labels": "a"}), ValueError, 'list "labels"'),
        (lambda: LabelSchema.from_dict({"labels": [{"wording": "x"}]}), ValueError, '"name"'),
        (lambda: LabelSchema.from_dict({"labels": [{"name": "a", "wording": 5}]}), ValueError, "must be text"),
        (lambda: LabelSchema.from_dict({"labels": ["a"], "type_map": None}), ValueError, "type_map"),
        (lambda: LabelSchema.from_dict({"labels": ["a"], "extra": 1}), ValueError, "Unknown keys in the schema: extra"),
        (
            lambda: LabelSchema.from_dict({"labels": [{"name": "a", "word": 1}]}),
            ValueError,
            'Unknown keys in the label "a"',
        ),
        (lambda: LabelSchema.from_dict({"labels": [{"name": "a", "types": [["PER"]]}]}), ValueError, "types"),
    ],
)
def test_bad_schemas_raise_an_error(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_schema_is_read_from_json_and_yaml(tmp_path: Path) -> None:
    schema = LabelSchema.general()
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema.to_dict()), encoding="utf-8")
    assert LabelSchema.from_any(file) == LabelSchema.from_any(str(file)) == schema
    (tmp_path / "schema.yaml").write_text("labels: [knows, {name: born, wording: place of birth}]\n")
    assert LabelSchema.from_file(tmp_path / "schema.yaml").labels[1].wording == "place of birth"
    file.write_text('{"labels": [\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"schema\.json:2: the schema file is not JSON"):
        LabelSchema.from_file(file)
    with pytest.raises(ValueError, match="cannot be read"):
        LabelSchema.from_file(tmp_path / "absent.json")


def test_types_constrain_labels() -> None:
    schema = LabelSchema.general()
    assert schema.map_type("PERSON") == "PER" and schema.map_type("FAC") == "LOC" and schema.map_type("XY") == "XY"
    allowed = schema.allowed("PER", "LOC")
    assert allowed[schema.index["place of birth"]] and allowed[schema.index["no_relation"]]
    assert not allowed[schema.index["spouse"]]
    assert schema.allows_any("PER", "PER") and not schema.allows_any("DATE", "DATE")
    own_names = LabelSchema.from_dict({"labels": [{"name": "born", "types": [["PERSON", "GPE"]]}]})
    assert own_names.allows_any("PER", "LOC") and not own_names.allows_any("LOC", "PER")
    anything = LabelSchema((RelationLabel("a", "a", types=(("*", "LOC"),)),), None)
    assert anything.allows_any("XY", "LOC") and not anything.allows_any("LOC", "XY")


def test_with_name_keeps_the_negative_label_last() -> None:
    schema = LabelSchema.from_labels(["a"]).with_name("b")
    assert schema.names == ("a", "b", "no_relation")


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=10, unique=True))
def test_schema_survives_json(names: list[str]) -> None:
    try:
        schema = LabelSchema.from_labels(names)
    except ValueError:
        return  # names whose wordings coincide
    again = LabelSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema and again.fingerprint == schema.fingerprint
