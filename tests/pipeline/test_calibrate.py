from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.training import Example

from spacy_slmre.instances import RelationInstance
from spacy_slmre.pipeline.calibrate import calibrate
from spacy_slmre.schema import LabelSchema
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


def test_calibration_is_fitted_on_both_directions_together(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = LabelSchema.from_any({"labels": [{"name": "spouse", "symmetric": True}, {"name": "employer"}]})
    doc = nlp("Ann Lee married Bo Hill.")
    pipe = nlp.get_pipe("relations")
    pipe.set_schema(schema)
    probabilities = {"Ann Lee": [0.8, 0.1, 0.1], "Bo Hill": [0.2, 0.1, 0.7]}

    def log_probs(instances: list[RelationInstance], *_: object, **__: object) -> np.ndarray:
        return np.log([probabilities[one.text_of(one.head_mention)] for one in instances])

    monkeypatch.setattr(pipe.model, "log_probs", log_probs)
    reference = nlp.make_doc(doc.text)
    for one in (doc, reference):
        one.ents = [one.char_span(0, 7, "PERSON"), one.char_span(16, 23, "PERSON")]
    reference._.relations = [(*reference.ents, "spouse")]  # in the other direction, too, because it is symmetric
    summary = calibrate(pipe, [Example(doc, reference)])
    assert summary["pairs"] == 2
    # Both directions have the mean of their log-probabilities: 0.4, so one best label is wrong.
    assert summary["before"]["nll"] == pytest.approx(-math.log(0.4))
    assert summary["before"]["ece"] == pytest.approx(0.6 * 0.5 + 0.7 * 0.5)
    assert summary["before"]["micro_f1"] == summary["after"]["micro_f1"] == 1.0
    written = pipe(doc)._.relations
    assert [relation.score for relation in written] == pytest.approx([math.exp(-summary["after"]["nll"])] * 2)


def test_calibrating_without_pairs_raises_an_error(nlp: Language) -> None:
    with pytest.raises(ValueError, match="no labeled pairs"):
        calibrate(nlp.get_pipe("relations"), [])


def test_temperature_out_of_range_raises_an_error(blank: Callable[[], Language]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        blank().add_pipe("rel_classifier", config={"temperature": 0.0})
