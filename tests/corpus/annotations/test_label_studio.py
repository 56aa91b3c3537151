from __future__ import annotations

import json

import pytest

from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.gold import annotates_pairs
from tests.corpus.annotations.conftest import entities

TEXT = "Ann met Bo. Then Ann left Oslo."


def region(id, start, end, *labels, text=TEXT, **more):
    value = {"start": start, "end": end, "text": text[start:end], "labels": list(labels)}
    return {"id": id, "from_name": "label", "to_name": "text", "type": "labels", "value": value | more}


def arrow(head, tail, *labels, direction="right"):
    return {"from_id": head, "to_id": tail, "type": "relation", "direction": direction, "labels": list(labels)}


ENTITIES = [region("a", 0, 3, "PER"), region("b", 8, 10, "PER"), region("c", 17, 20, "PER"), region("d", 26, 30, "LOC")]


def task(*results, text=TEXT, **more):
    return {"id": 7, "data": {"text": text}, "annotations": [{"id": 1, "result": list(results)}]} | more


@pytest.fixture
def export(write, converted):
    return lambda *tasks, **settings: converted(write("export.json", json.dumps(tasks, indent=1)), **settings)


def test_regions_and_arrows_become_entities_and_relations(export):
    found = export(task(*ENTITIES, arrow("c", "d", "left")))
    (doc,) = found.docs
    assert found.format == "label_studio" and not found.rejects
    assert entities(doc) == [("Ann", "PER"), ("Bo", "PER"), ("Ann", "PER"), ("Oslo", "LOC")]
    assert doc.user_data["slmre.id"] == "7" and not annotates_pairs(doc.user_data)
    # The string "Ann" occurs twice: the relation belongs to the second one.
    (relation,) = doc._.relations
    assert (relation.head.start_char, relation.label, relation.tail.text) == (17, "left", "Oslo")


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("right", [("Ann", "met", "Bo")]),
        ("left", [("Bo", "met", "Ann")]),
        ("bi", [("Ann", "met", "Bo"), ("Bo", "met", "Ann")]),
        (None, [("Ann", "met", "Bo")]),
    ],
)
def test_arrows_have_a_direction(export, direction, expected):
    assert export(task(*ENTITIES, arrow("a", "b", "met", direction=direction))).relations() == expected


def test_an_arrow_may_have_several_labels(export):
    found = export(task(*ENTITIES, arrow("a", "b", "met", "knows")))
    assert found.relations() == [("Ann", "met", "Bo"), ("Ann", "knows", "Bo")]


def test_arrows_without_a_label_are_rejected_or_get_one(export):
    unlabeled = arrow("a", "d")
    del unlabeled["labels"]
    source = task(*ENTITIES, arrow("a", "b", "met"), unlabeled, arrow("b", "d"))
    found = export(source)
    assert found.relations() == [("Ann", "met", "Bo")] and found.rejects == {"relation without a label": 2}
    found = export(source, unlabeled="related")
    assert found.relations()[1:] == [("Ann", "related", "Oslo"), ("Bo", "related", "Oslo")] and not found.rejects


@pytest.mark.parametrize("utf16", [False, True])
def test_offsets_are_in_characters_or_utf16_units(export, utf16):
    # Versions of Label Studio differ in what they count.
    text = "😀😀 Ann of Oslo"
    shift = 2 if utf16 else 0
    regions = []
    for id, start, end, label in (("a", 3, 6, "PER"), ("b", 10, 14, "LOC")):
        one = region(id, start, end, label, text=text)
        one["value"] |= {"start": start + shift, "end": end + shift}
        regions.append(one)
    found = export(task(*regions, arrow("a", "b", "lives in"), text=text))
    assert found.relations() == [("Ann", "lives in", "Oslo")] and not found.rejects
    last = region("c", 15, 17, "X", text="Party with Ann 🎉🎉")
    last["value"] |= {"end": 17 + shift}
    assert entities(export(task(last, text="Party with Ann 🎉🎉")).docs[0]) == [("🎉🎉", "X")]


def test_one_entity_in_utf16_units_decides_for_the_text(export):
    text = "🎉🎉🎉🎉no, no met Bo"
    regions = []
    for id, start in (("a", 4), ("b", 15)):
        one = region(id, start, start + 2, "X", text=text)
        one["value"] |= {"start": start + 4, "end": start + 6}
        regions.append(one)
    # In characters, [8:10] is the second "no".
    (relation,) = export(task(*regions, arrow("a", "b", "met"), text=text)).docs[0]._.relations
    assert (relation.head.text, relation.head.start_char, relation.tail.text) == ("no", 4, "Bo")


def test_a_string_is_one_label(export):
    regions = [one | {"value": one["value"] | {"labels": "PER"}} for one in ENTITIES]
    found = export(task(*regions, arrow("a", "b") | {"labels": "met"}))
    assert entities(found.docs[0])[0] == ("Ann", "PER") and found.relations() == [("Ann", "met", "Bo")]
    assert not found.rejects
    found = export(task(*ENTITIES), task(*ENTITIES, arrow("a", "b") | {"labels": 3}))
    assert found.rejects == {"malformed record": 1}


def test_a_text_whose_only_arrow_has_no_known_direction_is_skipped(export):
    found = export(task(*ENTITIES), task(*ENTITIES, arrow("a", "b", "met", direction="up")))
    assert len(found.docs) == 1 and found.rejects == {"unknown direction": 1, "no relation left": 1}


def test_whatever_is_dropped_is_counted_by_reason(export):
    choice = {"id": "x", "type": "choices", "value": {"choices": ["good"]}}
    found = export(
        task(
            *ENTITIES,
            region("wrong", 4, 7, "PER") | {"value": {"start": 4, "end": 7, "text": "Bo", "labels": ["PER"]}},
            region("far", 4, 99, "PER", text=TEXT + "x" * 99),
            region("typed", 21, 25, "VERB", "ACT"),
            choice,
            arrow("a", "b", "met"),
            arrow("a", "wrong", "met"),
            arrow("a", "gone", "met"),
            arrow("a", "d", "met", direction="up"),
        ),
        {"id": 8, "data": {"text": "Nobody."}, "annotations": []},
        {"id": 9, "data": {"text": "Skipped."}, "annotations": [{"was_cancelled": True, "result": []}]},
        task(text=["a", "dialogue"]),
        task({"type": "relation", "to_id": "a"}),
    )
    assert found.relations() == [("Ann", "met", "Bo")] and len(found.docs) == 1
    assert found.rejects == {
        "invalid entity": 2,
        "further type of an entity": 1,
        "neither entity nor relation": 1,
        "relation of a rejected entity": 1,
        "relation of a missing entity": 1,
        "unknown direction": 1,
        "task without annotation": 2,
        "malformed record": 2,
    }


def test_a_text_without_any_valid_relation_is_skipped_unless_it_has_none(export):
    found = export(task(*ENTITIES, arrow("a", "gone", "met")), task(*ENTITIES))
    assert found.rejects == {"relation of a missing entity": 1, "no relation left": 1}
    (doc,) = found.docs
    assert len(doc.ents) == 4 and doc._.relations == () and not annotates_pairs(doc.user_data)


def test_the_ground_truth_is_preferred(export):
    first, second = ({"id": id, "result": [*ENTITIES, arrow("a", "b", f"met {id}")]} for id in (1, 2))
    data = {"id": 7, "data": {"text": TEXT}}
    found = export({**data, "annotations": [first, second]})
    assert found.relations() == [("Ann", "met 1", "Bo")] and found.rejects == {"another annotation of the task": 1}
    found = export({**data, "annotations": [first, {**second, "ground_truth": True}]})
    assert found.relations() == [("Ann", "met 2", "Bo")]


def test_the_text_may_have_another_name(export):
    results = [*ENTITIES, arrow("a", "b", "met")]
    one = {"id": 1, "data": {"body": TEXT}, "annotations": [{"result": results}]}
    assert export(one).relations() == [("Ann", "met", "Bo")]
    two = {**one, "data": {"title": "A title", "body": TEXT}}
    with pytest.raises(CorpusError, match=r"export\.json:2: malformed record: several data could be the text"):
        export(two)
    assert export(two, text="body").relations() == [("Ann", "met", "Bo")]


def test_regions_of_other_texts_are_rejected(export):
    other = region("t", 0, 3, "PER") | {"to_name": "title"}
    one = task(*ENTITIES, other, arrow("a", "b", "met"), arrow("t", "b", "met"))
    found = export(one | {"data": {"text": TEXT, "title": "Ann"}})
    assert found.rejects == {"region of another text": 1, "relation of a rejected entity": 1}
    assert found.relations() == [("Ann", "met", "Bo")]
    # Ratings and the like are no regions, and the text may have another name.
    rating = {"id": "r", "type": "rating", "to_name": "quality", "value": {"rating": 3}}
    named = [one | {"to_name": "doc"} for one in ENTITIES]
    found = export(task(*named, rating, arrow("a", "b", "met")))
    assert found.rejects == {"neither entity nor relation": 1} and found.relations() == [("Ann", "met", "Bo")]


def test_a_truncated_file_is_an_error_with_its_line(write, converted):
    source = write("export.json", json.dumps([task(*ENTITIES)], indent=1)[:-30])
    with pytest.raises(CorpusError, match=r"export\.json:2: incomplete or invalid JSON object"):
        converted(source, "label_studio")
