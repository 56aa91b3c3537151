from __future__ import annotations

import pytest

from spacy_slmre.label_parser import LabelParser
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_dict(
    {
        "labels": [
            {"name": "per:city_of_birth", "wording": "city of birth"},
            {"name": "P108", "wording": "employer"},
            {"name": "Entity", "wording": "entity"},
            {"name": "ENTITY", "wording": "p108"},
            {"name": "no_relation", "wording": "no relation"},
        ]
    }
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("city of birth", "per:city_of_birth"),
        ("PER:CITY_OF_BIRTH\nbecause", "per:city_of_birth"),
        ("'Employer'", "P108"),
        ("p108", "P108"),  # names come before wordings
        ("ENTITY", "ENTITY"),
        ("entity", "Entity"),
        ("no relation", None),
        ("NA", None),
        ("", None),
        ("city of birth.", "city of birth."),
        ("<think>\nLet me see", "<think>"),
    ],
)
def test_answers_match_labels_by_name_or_wording(answer: str, expected: str | None) -> None:
    assert LabelParser(SCHEMA).parse(answer) == expected


def test_label_can_have_the_name_of_a_usual_negative_answer() -> None:
    assert LabelParser(LabelSchema.from_labels(["other", "NA"], "NA")).parse("Other") == "other"
