from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc

from spacy_slmre.extraction.inputs import InputDocument
from spacy_slmre.extraction.outputs import ExtractionResult
from spacy_slmre.pipeline.components import get_relation_extractor
from spacy_slmre.review.items import ReviewItem, proposed_documents, read_items, write_items
from spacy_slmre.review.ranking import rank_items
from tests.conftest import TEXTS


def described(items: list[ReviewItem]) -> list[tuple[str, str, str, bool, float]]:
    return [(i.head.text, i.labels[0][0], i.tail.text, i.is_predicted, round(i.margin, 2)) for i in items]


def test_predicted_relations_and_near_misses_are_proposed(make_items: Callable) -> None:
    items = make_items(
        {
            ("Ann", "Acme"): {"employer": 0.9, "no_relation": 0.1},
            ("Bo", "Acme"): {"no_relation": 0.6, "employer": 0.4},
            ("Cy", "img"): {"no_relation": 0.76, "employer": 0.24},  # less than half of the threshold
            ("Ann", "Bo"): {"no_relation": 1.0},
        }
    )
    assert described(items) == [
        ("Ann", "employer", "Acme & Sons", True, 0.4),
        ("Bo", "employer", "Acme & Sons", False, 0.1),
    ]


def test_near_miss_of_0_proposes_all_pairs(make_items: Callable) -> None:
    probabilities = {("Cy", "img"): {"no_relation": 0.99, "employer": 0.01}}
    assert not make_items(probabilities)
    assert described(make_items(probabilities, near_miss=0.0))[0][3:] == (False, 0.49)


def test_without_a_threshold_the_margin_is_that_to_the_best_other_label(make_items: Callable) -> None:
    items = make_items(
        {
            ("Ann", "Acme"): {"employer": 0.5, "spouse": 0.3, "no_relation": 0.2},
            ("Bo", "Acme"): {"no_relation": 0.6, "employer": 0.4},
            ("Cy", "img"): {"no_relation": 0.7, "employer": 0.3},
        },
        threshold=None,
    )
    assert [(one[3], one[4]) for one in described(items)] == [(True, 0.2), (False, 0.2)]


@pytest.mark.parametrize(
    ("forward", "backward", "number"), [("spouse", "spouse", 1), ("parent", "child", 1), ("parent", "parent", 2)]
)
def test_both_directions_of_a_mirrored_label_are_one_question(
    make_items: Callable, forward: str, backward: str, number: int
) -> None:
    items = make_items({("Ann", "Bo"): {forward: 0.7}, ("Bo", "Ann"): {backward: 0.7}})
    assert len(items) == number and items[0].head.text == "Ann"


def test_choices_begin_with_probable_labels_and_those_that_the_types_allow(make_items: Callable) -> None:
    (item,) = make_items({("Ann", "Bo"): {"<b>bold</b>": 0.6, "no_relation": 0.3, "parent": 0.1}})
    assert item.choices() == ["<b>bold</b>", "parent", "spouse", "child", "employer"]


def test_items_survive_their_file(make_items: Callable, tmp_path: Path) -> None:
    items = make_items({("Ann", "Acme"): {"employer": 0.9}, ("Cy", "img"): {"no_relation": 0.6, "employer": 0.4}})
    write_items(tmp_path / "items.json", items)
    again = read_items(tmp_path / "items.json")
    assert described(again) == described(items)
    assert again[0].source is again[1].source and again[0].source.schema == items[0].source.schema
    assert [one.pair for one in again] == [one.pair for one in items]
    assert [one.probabilities for one in again] == [one.probabilities for one in items]
    assert again[0].source.document == items[0].source.document


def test_pipeline_ranks_the_pairs_of_all_documents(pipeline: str) -> None:
    nlp = spacy.load(pipeline)
    results: list[ExtractionResult] = []

    def rank(limit: int) -> list[ReviewItem]:
        documents = [InputDocument(str(number), text) for number, text in enumerate(TEXTS)]
        documents.insert(1, InputDocument("unreadable", error="not UTF-8"))
        results.clear()
        return rank_items(nlp, "slm_relations", documents, limit=limit, near_miss=0.0, on_result=results.append)

    items = rank(1000)
    assert len(items) == sum(doc._.relations_report["scored"] for doc in nlp.pipe(TEXTS))
    assert [one.margin for one in items] == sorted(one.margin for one in items)
    assert {one.source.document.id for one in items} == {"0", "1", "4", "5"}
    assert [(result.id, result.error) for result in results if result.doc is None] == [("unreadable", "not UTF-8")]
    assert "slm_relations" in nlp.pipe_names
    fewer = rank(3)
    assert [one.pair for one in fewer] == [one.pair for one in items[:3]]


def test_document_that_fails_is_skipped(pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.load(pipeline)
    _, pipe = get_relation_extractor(nlp)
    predict = pipe.predict

    def fail(docs: list[Doc], k: int) -> list:
        if any("Zoë" in doc.text for doc in docs):
            raise RuntimeError("out of memory")
        return predict(docs, k)

    monkeypatch.setattr(pipe, "predict", fail)
    failed: list[ExtractionResult] = []
    documents = [InputDocument(str(number), text) for number, text in enumerate(TEXTS)]
    items = rank_items(nlp, "slm_relations", documents, limit=99, near_miss=0.0, on_result=failed.append)
    assert {one.source.document.id for one in items} == {"0", "1", "4"}
    assert [one.error for one in failed if one.doc is None] == ["slm_relations: RuntimeError: out of memory"]


def test_component_without_probabilities_is_an_error(pipeline: str) -> None:
    with pytest.raises(ValueError, match="Use a pipeline with slm_relations or rel_classifier"):
        rank_items(spacy.load(pipeline), "entity_ruler", [], limit=1)


def test_proposals_become_documents_in_the_order_of_their_least_certain_pair(make_items: Callable) -> None:
    certain = make_items({("Ann", "Acme"): {"employer": 0.9}}, id="certain")
    mixed = make_items({("Ann", "Acme"): {"employer": 0.95}, ("Ann", "Bo"): {"spouse": 0.45}}, id="mixed")
    items = sorted([*certain, *mixed], key=lambda item: item.margin)
    documents = list(proposed_documents(items))
    assert [document.id for document in documents] == ["mixed", "certain"]
    assert [(one.label, one.score) for one in documents[0].relations] == [("spouse", 0.45), ("employer", 0.95)]
