from __future__ import annotations

import pytest

from spacy_slmre.label_parser import answer_parser
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
    ("answer", "meant"),
    [
        ("city of birth", "per:city_of_birth"),
        ("PER:CITY_OF_BIRTH\nbecause", "per:city_of_birth"),
        ("'Employer'", "P108"),
        ("p108", "P108"),  # a name, before the wording of another label
        ("ENTITY", "ENTITY"),
        ("entity", "Entity"),
        ("no relation", None),
        ("NA", None),
        ("", None),
        ("city of birth.", "city of birth."),
        ("<think>\nLet me see", "<think>"),
    ],
)
def test_answers_name_labels_by_name_or_wording(answer: str, meant: str | None) -> None:
    assert answer_parser(SCHEMA)(answer) == meant


def test_a_relation_may_be_called_like_a_negative_answer() -> None:
    assert answer_parser(LabelSchema.from_labels(["other", "NA"], "NA"))("Other") == "other"
