from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from spacy_slmre.pipeline.calibrate import calibrate
from tests.conftest import TEXTS
from tests.pipeline.test_rel_classifier import initialize, make_examples


@pytest.fixture(params=["rel_classifier", "slm_relations"])
def nlp(request, blank: Callable[[], Language], tiny_model: dict, tiny_classifier: dict) -> Language:
    nlp = blank()
    model = tiny_classifier if request.param == "rel_classifier" else tiny_model
    labels = ["born", "employer", "spouse"]
    nlp.add_pipe(request.param, name="relations", config={"model": model, "labels": labels})
    if request.param == "rel_classifier":
        examples = make_examples(nlp)
        optimizer = initialize(nlp, examples)
        optimizer.learn_rate = 0.01
        for _ in range(8):  # not enough to be certain of every label
            nlp.update(examples, sgd=optimizer)
    return nlp


def test_calibration_changes_scores_and_is_saved(nlp: Language, tmp_path: Path) -> None:
    pipe = nlp.get_pipe("relations")
    before = {(r.head.start, r.tail.start): r for r in nlp(TEXTS[0])._.relations}
    summary = calibrate(pipe, make_examples(nlp))
    assert summary["pairs"] == 14 and summary["temperature"] == pipe.temperature != 1.0
    assert summary["after"]["nll"] <= summary["before"]["nll"] + 1e-6
    assert summary["before"]["micro_f1"] == summary["after"]["micro_f1"]
    doc = nlp(TEXTS[0])
    for relation in doc._.relations:
        old = before[relation.head.start, relation.tail.start]
        # Scores are lower at temperatures above 1 and higher below; labels do not change.
        assert relation.label == old.label
        assert math.copysign(1, old.score - relation.score) == math.copysign(1, pipe.temperature - 1)
    nlp.to_disk(tmp_path)
    saved = spacy.load(tmp_path)
    assert saved.get_pipe("relations").temperature == pytest.approx(pipe.temperature)
    assert [r.score for r in saved(TEXTS[0])._.relations] == pytest.approx([r.score for r in doc._.relations])


def test_fitted_thresholds_do_not_lower_f1(nlp: Language) -> None:
    pipe = nlp.get_pipe("relations")
    summary = calibrate(pipe, make_examples(nlp), thresholds=True)
    assert summary["label_thresholds"] == pipe.label_thresholds
    assert summary["after"]["micro_f1"] >= summary["before"]["micro_f1"]


def test_calibrating_without_pairs_raises_an_error(nlp: Language) -> None:
    with pytest.raises(ValueError, match="no labeled pairs"):
        calibrate(nlp.get_pipe("relations"), [])


def test_temperature_out_of_range_raises_an_error(blank: Callable[[], Language]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        blank().add_pipe("rel_classifier", config={"temperature": 0.0})
