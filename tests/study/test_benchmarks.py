from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest

from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import all_benchmarks, get_benchmark

CARDS = all_benchmarks()
NINE = {
    "tacred": 42,
    "semeval2010_task8": 19,
    "conll04": 5,
    "nyt": 24,
    "gids": 5,
    "re_docred": 97,
    "rebel": 255,
    "biographical": 10,
    "pg_fiction": 47,
}


def test_entry_points_have_the_names_of_their_formats():
    points = entry_points(group="slmre_formats")
    assert all(point.load().name == point.name for point in points)
    assert set(NINE) <= set(CARDS) < {point.name for point in points}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_complete(name):
    card = CARDS[name]
    for fact in ("title", "task", "citation", "license", "obtain", "direction"):
        assert getattr(card, fact).strip(), fact
    assert json.loads(json.dumps(card.to_dict()))["name"] == name
    assert all(url.startswith("https://") for url in card.urls.values())


@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.schema], ids=lambda card: card.name)
def test_every_label_has_a_wording_and_a_definition(card):
    for label in card.schema.labels:
        assert label.wording and not any(character in label.wording for character in "_:{}")
        assert len(label.definition.split()) > 2 and "{" not in label.definition
    assert LabelSchema.from_dict(card.schema.to_dict()) == card.schema


@pytest.mark.parametrize(("name", "count"), NINE.items())
def test_the_studys_benchmarks_have_its_number_of_labels(name, count):
    assert len(CARDS[name].schema.names) == count


@pytest.mark.parametrize(
    ("name", "label", "resolved"),
    [
        ("nyt", "/people/person/place_lived", "/people/person/place_lived"),
        ("nyt", "Place Lived", "/people/person/place_lived"),
        ("nyt", "place_lived", "/people/person/place_lived"),
        (
            "gids",
            "/people/person/education./education/education/degrees",
            "/people/person/education./education/education/degree",
        ),
        ("gids", "na", "NA"),
        ("re_docred", "P17", "P17"),
        ("re_docred", "country", "P17"),
        ("re_docred", "Na", None),
        ("tacred", "per:title", "per:title"),
        ("tacred", "no relation", "no_relation"),
        ("tacred", "per:identity", None),
        ("retacred", "per:identity", "per:identity"),
        ("semeval2010_task8", "Cause-Effect(e2,e1)", "Cause-Effect(e2,e1)"),
        ("semeval2010_task8", "Cause-Effect", None),
        ("hub_rows", " anything ", "anything"),
        ("hub_rows", "", None),
    ],
)
def test_labels_are_resolved(name, label, resolved):
    assert CARDS[name].resolve(label) == resolved


def test_directed_labels_say_which_argument_is_which():
    labels = {label.name: label for label in CARDS["semeval2010_task8"].schema.labels}
    assert labels["Cause-Effect(e1,e2)"].definition == "the head brings about the tail"
    assert labels["Cause-Effect(e2,e1)"].definition == "the tail brings about the head"
    assert labels["Cause-Effect(e2,e1)"].wording == "cause and effect (tail to head)"


def test_negative_labels_depend_on_the_card():
    assert CARDS["semeval2010_task8"].is_negative("Other")
    assert not CARDS["conll04"].is_negative("no_relation")
    assert CARDS["hub_rows"].is_negative("NA") and not CARDS["hub_rows"].is_negative("spouse")


def test_an_unknown_benchmark_names_the_known_ones():
    with pytest.raises(CorpusError, match=r'no benchmark "acred".*tacred'):
        get_benchmark("acred")


def test_settings_are_converted_to_their_types():
    card = CARDS["re_docred"]
    assert set(card.settings) == {"negatives", "seed", "unit"}
    assert card.parse_settings({"negatives": "2", "seed": "7"}) == {"negatives": 2.0, "seed": 7}
    assert str(CARDS["tacred"].parse_settings({"patch": "a.json"})["patch"]) == "a.json"
    with pytest.raises(CorpusError, match=r'has no setting "ratio"\. Available settings: unit, negatives, seed'):
        card.parse_settings({"ratio": "2"})
    with pytest.raises(CorpusError, match="seed=x is wrong: Input should be a valid integer"):
        card.parse_settings({"seed": "x"})
