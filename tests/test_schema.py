from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_slmre.schema import LabelSchema, RelationLabel, is_name_type, wording_of

ROOT = Path(__file__).parent.parent


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
    allowed = schema.allowed("PER", "DATE")
    assert allowed[schema.index["date of birth"]] and allowed[schema.index["no_relation"]]
    assert not allowed[schema.index["spouse"]]
    assert schema.allows_any("PER", "PER") and not schema.allows_any("DATE", "DATE")
    own_names = LabelSchema.from_dict({"labels": [{"name": "born", "types": [["PERSON", "GPE"]]}]})
    assert own_names.allows_any("PER", "LOC") and not own_names.allows_any("LOC", "PER")
    anything = LabelSchema((RelationLabel("a", "a", types=(("*", "LOC"),)),), None)
    assert anything.allows_any("XY", "LOC") and not anything.allows_any("LOC", "XY")


@pytest.mark.parametrize(
    ("name", "type"),
    [
        *[("persName", "PER"), ("placeName", "LOC"), ("geogName", "LOC"), ("orgName", "ORG")],  # Polish
        *[("PRS", "PER"), ("TME", "DATE"), ("WRK", "WORK"), ("EVN", "EVENT")],  # Swedish
        *[("GPE_LOC", "LOC"), ("GPE_ORG", "ORG"), ("PROD", "PRODUCT"), ("EVT", "EVENT")],  # Norwegian
        *[("PS", "PER"), ("LC", "LOC"), ("OG", "ORG"), ("DT", "DATE"), ("TI", "DATE")],  # Korean
        *[("FACILITY", "LOC"), ("ORGANIZATION", "ORG"), ("DATETIME", "DATE"), ("NAT_REL_POL", "NORP")],  # Romanian
        *[("PERSON", "PER"), ("person", "PER"), ("Organisation", "ORG"), ("Gene", "Gene")],
    ],
)
def test_types_of_spacy_pipelines_are_mapped_whatever_their_case(name: str, type: str) -> None:
    assert LabelSchema.general().map_type(name) == type


def test_types_are_compared_whatever_their_case() -> None:
    schema = LabelSchema.from_dict({"labels": [{"name": "encodes", "types": [["Gene", "protein"]]}]})
    assert schema.allows_any("GENE", "Protein") and not schema.allows_any("Protein", "GENE")
    assert schema.allowed_types == {"GENE", "PROTEIN"}
    assert LabelSchema.from_labels(["knows"]).allowed_types is None


def test_name_means_any_type_but_dates_and_numbers() -> None:
    general = LabelSchema.general()
    names = ["PER", "LOC", "ORG", "WORK", "MISC", "NORP", "Gene", ""]
    assert all(general.allows_any(head, tail) for head in names for tail in names)
    assert all(general.allows_any(head, "DATE") and not general.allows_any("DATE", head) for head in names)
    assert not any(general.allows_any(name, "MONEY") or general.allows_any("CARDINAL", name) for name in names)
    dates = [name for name in general.names if general.allowed("PER", "DATE")[general.index[name]]]
    assert dates == ["date of birth", "date of death", "inception", "event date", "no_relation"]


@pytest.mark.parametrize("name", ["TIME", "Date", "QT", "MONEY", "NUMERIC_VALUE", "MSR"])
def test_dates_and_numbers_of_all_pipelines_are_no_names(name: str) -> None:
    assert not is_name_type(name) and is_name_type("PERSON") and is_name_type("Gene") and is_name_type("")


def test_misc_may_be_any_name_but_a_person_place_or_organization() -> None:
    types = [["WORK", "PER"], ["EVENT", "LOC"], ["ORG", "DATE"]]
    schema = LabelSchema.from_dict({"labels": [{"name": "a", "types": types}]})
    assert schema.allows_any("MISC", "PER") and schema.allows_any("MISC", "LOC")
    assert not schema.allows_any("MISC", "DATE") and not schema.allows_any("ORG", "MISC")
    assert schema.allows_type("MISC") and not schema.allows_type("PRODUCT")


def test_a_type_map_extends_the_default() -> None:
    schema = LabelSchema.from_dict({"labels": ["a"], "type_map": {"Firm": "organization", "PERSON": "PERSON"}})
    assert [schema.map_type(name) for name in ("FIRM", "PERSON", "GPE")] == ["ORG", "PERSON", "LOC"]
    more = schema.extend_types({"Town": "GPE"})
    assert [more.map_type(name) for name in ("firm", "town")] == ["ORG", "LOC"]
    assert LabelSchema.from_dict(more.to_dict()) == more


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


def test_the_general_schema_is_documented() -> None:
    page = (ROOT / "docs" / "guides" / "labels.md").read_text(encoding="utf-8")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    schema = LabelSchema.general()
    for label in schema.labels[:-1]:
        assert f"\n| {label.name} | {label.definition}" in page and label.name in readme, label.name
    assert f"{len(schema.positive_names)} everyday relations" in page
    assert f"{len(schema.positive_names)} everyday relations" in readme


def test_a_misspelled_inverse_is_reported_and_a_missing_one_is_not() -> None:
    with pytest.warns(UserWarning, match='The inverse "chlid" of the label "parent" .* Did you mean "child"'):
        schema = LabelSchema.from_dict({"labels": [{"name": "parent", "inverse": "chlid"}, "child"]})
    assert schema.inverse_of == {}
    LabelSchema.from_dict({"labels": [{"name": "parent", "inverse": "child"}, "spouse"]})


@pytest.mark.parametrize("label", [{"name": "kin", "symmetric": "yes"}, {"name": "kin", "inverse": 1}])
def test_symmetry_and_inverse_are_checked(label: dict) -> None:
    with pytest.raises(ValueError, match='"symmetric" of the label "kin" must be true or false'):
        LabelSchema.from_dict({"labels": [label]})


def test_a_label_is_not_its_own_inverse() -> None:
    for label in ({"name": "kin", "inverse": "kin"}, {"name": "kin", "symmetric": True, "inverse": "other"}):
        with pytest.raises(ValueError, match=r'"kin" is its own inverse, or symmetric with an inverse'):
            LabelSchema.from_dict({"labels": [label, "other"]})


def test_the_negative_label_is_no_inverse() -> None:
    with pytest.raises(ValueError, match='The inverse of the label "kin" is the negative label'):
        LabelSchema.from_dict({"labels": [{"name": "kin", "inverse": "no_relation"}]})


def test_limits_are_those_of_labels_and_directions() -> None:
    labels = [{"name": "born in", "max_per_head": 1}, {"name": "parent", "inverse": "child"}, "child", "rival"]
    assert LabelSchema.from_dict({"labels": labels}).limits == {
        "born in": {"max_per_head": 1},
        "parent": {"directions": 1},
        "child": {"directions": 1},
    }


def test_symmetry_and_inverse_are_saved() -> None:
    schema = LabelSchema.general()
    by_name = {label.name: label for label in LabelSchema.from_dict(schema.to_dict()).labels}
    assert by_name["spouse"].symmetric and by_name["parent"].inverse == "child"
    assert not by_name["author"].symmetric and by_name["author"].inverse is None


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1"])
def test_limits_are_checked(limit: object) -> None:
    with pytest.raises(ValueError, match='"max_per_head" of the label "born" must be a positive number or null'):
        LabelSchema.from_dict({"labels": [{"name": "born", "max_per_head": limit}]})


def test_items_of_a_list_are_names_or_objects() -> None:
    schema = LabelSchema.from_any([{"name": "rival", "types": [["PER", "PER"]]}, "friend"], "none")
    assert schema.names == ("rival", "friend", "none") and schema.labels[0].types == (("PER", "PER"),)
    assert LabelSchema.from_any([{"name": "rival"}], None).names == ("rival",)
