"""The second model of a cascade only scores pairs that may have a relation."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.training import Example

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.cascade import Cascade, make_cascade
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.encoder.universal import UniversalEncoder, UniversalEncoderSettings
from spacy_slmre.schema import LabelSchema
from tests.models.encoder.test_model import INSTANCES, SCHEMA


@pytest.fixture
def cascade(tiny_encoder: Path, tiny_base: Path) -> Cascade:
    exact = {"dtype": "float32", "device": "cpu"}
    first = UniversalEncoder.from_base(UniversalEncoderSettings(**exact), str(tiny_encoder))
    return Cascade(first, make_small_lm(base=str(tiny_base), quantization=None, **exact))


def count_asked(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> list[RelationInstance]:
    """Record the instances that the second model scores."""
    asked: list[RelationInstance] = []
    score = cascade.second.log_probs

    def log_probs(instances: list[RelationInstance], *args: object, **options: object) -> np.ndarray:
        asked.extend(instances)
        return score(instances, *args, **options)

    monkeypatch.setattr(cascade.second, "log_probs", log_probs)
    return asked


def test_pairs_without_a_relation_are_not_scored_again(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (model.log_probs(INSTANCES, SCHEMA) for model in (cascade.first, cascade.second))
    related = 1 - np.exp(first[:, SCHEMA.index["no_relation"]])
    cascade.min_prob = float(np.sort(related)[1])
    asked = count_asked(cascade, monkeypatch)
    log_probs = cascade.log_probs(INSTANCES, SCHEMA)
    chosen = related >= cascade.min_prob
    assert asked == [one for one, is_asked in zip(INSTANCES, chosen, strict=True) if is_asked] and len(asked) == 2
    assert log_probs[~chosen] == pytest.approx(first[~chosen])
    means = np.exp(first[chosen]) ** cascade.weight * np.exp(second[chosen]) ** (1 - cascade.weight)
    assert np.exp(log_probs[chosen]) == pytest.approx(means / means.sum(axis=1, keepdims=True), rel=1e-4)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(3))


def test_without_a_negative_label_both_score_all_pairs(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_asked(cascade, monkeypatch)
    schema = LabelSchema(SCHEMA.labels[:2], None)
    cascade.min_prob = 1.0
    assert np.exp(cascade.log_probs(INSTANCES, schema)).sum(axis=1) == pytest.approx(np.ones(3))
    assert asked == INSTANCES


def test_excluded_labels_have_no_probability(cascade: Cascade) -> None:
    cascade.min_prob = 0.0
    allowed = np.ones((3, 3), dtype=bool)
    allowed[0, 0] = False
    log_probs = cascade.log_probs(INSTANCES, SCHEMA, allowed)
    assert log_probs[0, 0] == -np.inf and np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(3))


def test_contexts_fit_both_models(cascade: Cascade) -> None:
    text = "Ann " + "and so on " * 300 + "Bo"
    far = RelationInstance.from_offsets(text, (0, 3, "PER"), (len(text) - 2, len(text), "PER"))
    fitted = cascade.truncate([INSTANCES[0], far], SCHEMA, 512)
    assert fitted[0] == INSTANCES[0] and fitted[1] is None


def test_saving_keeps_both(cascade: Cascade, tmp_path: Path) -> None:
    expected = cascade.log_probs(INSTANCES, SCHEMA)
    cascade.save(tmp_path / "model", embed=False)
    assert cascade.restore(tmp_path / "model").log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-5)
    assert pickle.loads(pickle.dumps(cascade)).log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-5)


def test_a_component_uses_it(cascade: Cascade, tiny_base: Path, tmp_path: Path, blank: Callable[[], Language]) -> None:
    cascade.first.save(tmp_path / "weights", embed=False)
    exact = {"dtype": "float32", "device": "cpu"}
    first = {"@architectures": "spacy-slmre.UniversalEncoder.v1", "weights": str(tmp_path / "weights"), **exact}
    second = {"@architectures": "spacy-slmre.SmallLM.v1", "base": str(tiny_base), "quantization": None, **exact}
    model = {"@architectures": "spacy-slmre.Cascade.v1", "first": first, "second": second, "threshold": 0.1}
    nlp = blank()
    pipe = nlp.add_pipe("slm_relations", config={"model": model, "labels": ["knows", "employer"]})
    assert pipe.decoding.threshold == 0.1 and not pipe.is_trainable
    doc = nlp("Marie Curie married Pierre Curie.")
    assert doc._.relations_report["scored"] == 2
    nlp.to_disk(tmp_path / "pipeline")
    read = spacy.load(tmp_path / "pipeline")
    scores = [relation.score for relation in doc._.relations]
    assert [relation.score for relation in read(doc.text)._.relations] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_weight_ranges_from_one_model_to_the_other(cascade: Cascade, weight: float) -> None:
    cascade.min_prob, cascade.weight = 0.0, weight
    expected = (cascade.first if weight else cascade.second).log_probs(INSTANCES, SCHEMA)
    assert cascade.log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("values", [{"min_prob": 1.5}, {"weight": 2.0}, {"threshold": -0.1}, {"min_prob": "0.1"}])
def test_values_that_are_not_probabilities_are_refused(cascade: Cascade, values: dict) -> None:
    with pytest.raises(ModelError, match=r"must be (between 0 and 1|a number)"):
        Cascade(cascade.first, cascade.second, **values)


def test_by_default_it_joins_the_shipped_encoder_and_the_packaged_language_model() -> None:
    cascade = make_cascade(min_prob=0.3)
    assert isinstance(cascade.first, UniversalEncoder) and cascade.first.describe_files()["weights"]
    assert isinstance(cascade.second, SmallLM) and cascade.second.adapter is not None
    assert (cascade.min_prob, cascade.weight, cascade.threshold) == (0.3, Cascade.weight, Cascade.threshold)
    given = make_cascade(cascade.first, cascade.second)
    assert given.first is cascade.first and given.second is cascade.second


def test_the_files_of_both_models_are_described(cascade: Cascade) -> None:
    encoder, lm = cascade.describe_files()
    assert encoder == cascade.first.describe_files() and lm == cascade.second.describe_files()
    cascade.second.set_prompt_style(replace(cascade.second.style, label_list=False))
    assert cascade.describe_files() != [encoder, lm]


def test_reports_name_both_models(cascade: Cascade) -> None:
    first, second, both = cascade.first.info, cascade.second.info, cascade.info
    assert (both.kind, both.name) == ("cascade", f"{first.name} + {second.name}")
    assert both.n_parameters == first.n_parameters + second.n_parameters


def test_training_in_a_pipeline_says_that_it_has_no_effect(cascade: Cascade) -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("slm_relations", config={"labels": ["kin"]})
    component.model = cascade
    with pytest.warns(UserWarning, match="cannot be trained in a pipeline"):
        nlp.update([Example.from_dict(nlp.make_doc("Ann"), {})])


def test_examples_are_for_the_default_models(tmp_path: Path, cascade: Cascade) -> None:
    example = {"text": "Bo works for Acme", "head": [0, 2, "PER"], "tail": [13, 17, "ORG"], "label": "employer"}
    (tmp_path / "examples.jsonl").write_text(json.dumps(example))
    both = make_cascade(examples=str(tmp_path / "examples.jsonl"))
    assert isinstance(both.first, UniversalEncoder) and isinstance(both.second, SmallLM)
    assert both.first.describe_files()["examples"][0]["label"] == "employer"
    assert both.second.resolved.examples[0]["label"] == "employer" and not both.second.style.examples
    with pytest.raises(ModelError, match=r"set it in model\.first and model\.second"):
        make_cascade(cascade.first, cascade.second, examples="examples.jsonl")
