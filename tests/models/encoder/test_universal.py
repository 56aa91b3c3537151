"""The encoder for any labels: what it predicts depends on wordings and definitions, not on a list of labels."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from safetensors.torch import load_file, save_file
from spacy.language import Language
from thinc.api import Adam

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.universal import (
    MODEL_FILE,
    SHIPPED,
    UniversalEncoder,
    UniversalEncoderSettings,
    make_universal_encoder,
)
from spacy_slmre.pipeline.fingerprint import pipeline_fingerprint
from spacy_slmre.schema import LabelSchema, RelationLabel
from tests.models.encoder.test_model import INSTANCES, SCHEMA

LIMIT = 25_000_000
"""Maximum size of the shipped weights in bytes."""


def settings(**values: object) -> UniversalEncoderSettings:
    return UniversalEncoderSettings(**{"dtype": "float32", "device": "cpu", **values})


@pytest.fixture
def model(tiny_encoder: Path) -> UniversalEncoder:
    return UniversalEncoder.from_base(settings(), str(tiny_encoder))


def train(model: UniversalEncoder, schema: LabelSchema = SCHEMA, steps: int = 40) -> list[float]:
    optimizer = Adam(0.01, use_averages=False, L2=0.0)
    losses = []
    for _ in range(steps):
        losses.append(model.update(INSTANCES, schema))
        model.finish_update(optimizer)
    return losses


def test_labels_need_no_training(model: UniversalEncoder) -> None:
    log_probs = model.log_probs(INSTANCES, SCHEMA)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(3))
    one_by_one = np.concatenate([model.log_probs([instance], SCHEMA) for instance in INSTANCES])
    assert log_probs == pytest.approx(one_by_one, abs=1e-5)
    other = LabelSchema.from_labels(["founded by", "born"])
    assert model.log_probs(INSTANCES, other).shape == (3, 3)
    # The ratio of two labels does not depend on the others.
    ratio = log_probs[:, 0] - log_probs[:, 2]
    mixed = model.log_probs(INSTANCES, other)
    assert mixed[:, 1] - mixed[:, 2] == pytest.approx(ratio, abs=1e-5)


def test_the_order_of_the_labels_does_not_matter(model: UniversalEncoder) -> None:
    log_probs = model.log_probs(INSTANCES, SCHEMA)
    turned = LabelSchema(SCHEMA.labels[::-1], SCHEMA.negative_label)
    assert model.log_probs(INSTANCES, turned)[:, ::-1] == pytest.approx(log_probs, abs=1e-6)
    without = LabelSchema(SCHEMA.labels[:2], None)
    expected = log_probs[:, :2] - np.log(np.exp(log_probs[:, :2]).sum(axis=1, keepdims=True))
    assert model.log_probs(INSTANCES, without) == pytest.approx(expected, abs=1e-5)


def test_wording_and_definition_matter_and_the_name_does_not(model: UniversalEncoder) -> None:
    def scores(**changes: str) -> np.ndarray:
        label = replace(RelationLabel("born", "born", "the head was born in the tail"), **changes)
        return model.log_probs(INSTANCES, LabelSchema((label, *SCHEMA.labels[1:]), SCHEMA.negative_label))

    assert scores(name="P19") == pytest.approx(scores())
    for changes in ({"wording": "employer"}, {"definition": "the head works for the tail"}):
        assert np.abs(scores(**changes) - scores()).max() > 1e-3


def test_it_learns_and_keeps_new_labels_possible(model: UniversalEncoder) -> None:
    words = model.network.words.weight.clone()
    model.default_threshold = 0.2
    losses = train(model)
    assert model.default_threshold is None, "it belonged to the weights before"
    assert losses[-1] < 0.1 < losses[0]
    assert [SCHEMA.names[c] for (c,) in model.top_k(INSTANCES, SCHEMA)[0]] == [one.label for one in INSTANCES]
    assert torch.equal(model.network.words.weight, words)
    more = SCHEMA.with_name("employer")
    model.add_labels(more)
    assert model.log_probs(INSTANCES, more).shape == (3, 4)


@pytest.mark.parametrize("embed", [False, True])
def test_saving_keeps_what_was_learned(model: UniversalEncoder, tmp_path: Path, embed: bool) -> None:
    train(model, steps=5)
    expected = model.log_probs(INSTANCES, SCHEMA)
    folder = tmp_path / "model"
    model.save(folder, embed=embed)
    assert (folder / "base").exists() == embed
    named = make_universal_encoder(weights=str(folder), dtype="float32", device="cpu")
    assert named.log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-6)
    restored = named.restore(folder, temporary=True)
    again = model.restore(folder)
    again.save(folder, embed=embed)  # replaces the folder that it was read from
    assert model.restore(folder).log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-6)
    shutil.rmtree(folder)
    assert restored.log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-6)
    assert pickle.loads(pickle.dumps(restored)).log_probs(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-6)


def test_damaged_weights_and_other_bases_are_refused(model: UniversalEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model.save(folder, embed=False)
    weights, record = folder / "model.safetensors", json.loads((folder / MODEL_FILE).read_text())
    other = {**record, "base": {**record["base"], "fingerprint": "other"}}
    (folder / MODEL_FILE).write_text(json.dumps(other))
    with pytest.raises(ModelError, match="belong to another version of"):
        model.restore(folder).load()
    (folder / MODEL_FILE).write_text(json.dumps(record))
    tensors = load_file(weights)
    name = "head.none.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    with pytest.raises(ModelError, match=f"damaged or incomplete .*missing: {name}"):
        model.restore(folder).load()
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged or incomplete"):
        model.restore(folder).load()
    (folder / MODEL_FILE).unlink()
    with pytest.raises(ModelError, match=MODEL_FILE):
        make_universal_encoder(weights=str(folder)).load()


def test_a_saved_pipeline_has_its_own_weights_unless_others_are_set(model: UniversalEncoder, tmp_path: Path) -> None:
    model.save(tmp_path / "first", embed=True)
    train(model, steps=5)
    model.save(tmp_path / "second", embed=True)

    def scores(nlp: Language) -> np.ndarray:
        return nlp.get_pipe("rel_classifier").model.log_probs(INSTANCES, SCHEMA)

    nlp = spacy.blank("en")
    weights = {**MODEL, "weights": str(tmp_path / "first")}
    nlp.add_pipe("rel_classifier", config={"model": weights, "labels": ["born"]})
    first, second = scores(nlp), model.log_probs(INSTANCES, SCHEMA)
    nlp.to_disk(tmp_path / "pipeline")
    changed = {"components.rel_classifier.model.weights": str(tmp_path / "second")}
    with pytest.warns(UserWarning, match="The saved weights are not used: model.weights was"):
        assert scores(spacy.load(tmp_path / "pipeline", config=changed)) == pytest.approx(second, abs=1e-5)
    shutil.rmtree(tmp_path / "first")
    read = spacy.load(tmp_path / "pipeline")
    assert scores(read) == pytest.approx(first, abs=1e-5)
    # The base encoder is not needed after the pipeline was sent to another process, either.
    pipe = read.get_pipe("rel_classifier")
    sent = pickle.loads(pickle.dumps(pipe.model.restore(tmp_path / "second", temporary=True)))
    shutil.rmtree(tmp_path / "second")
    sent.save(tmp_path / "third", embed=True)
    assert (tmp_path / "third" / "base").is_dir()


def test_a_run_is_not_resumed_with_other_weights(model: UniversalEncoder, tmp_path: Path) -> None:
    def key(folder: Path) -> str:
        nlp = spacy.blank("en")
        nlp.add_pipe("rel_classifier", config={"model": {**MODEL, "weights": str(folder)}, "labels": ["born"]})
        return pipeline_fingerprint(nlp)

    folder = tmp_path / "model"
    model.save(folder, embed=False)
    before = key(folder)
    assert key(folder) == before
    model.default_threshold = 0.4
    model.save(folder, embed=False)
    assert key(folder) != before, "with another threshold"
    train(model, steps=1)
    model.save(folder, embed=False)
    assert key(folder) != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": 1.0}, r"model\.dropout = 1\.0"),
        ({"head_learn_rate": 0.0}, r"model\.head_learn_rate = 0\.0"),
        ({"max_batch_tokens": 0}, r"model\.max_batch_tokens = 0"),
        ({"dtype": "int8"}, r'model\.dtype = "int8"'),
    ],
)
def test_bad_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        settings(**values)


@pytest.mark.slow
def test_shipped_weights_find_relations_under_any_labels(tmp_path: Path, real_encoder: str) -> None:
    assert (SHIPPED / "model.safetensors").stat().st_size <= LIMIT
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Ann Lee"}, {"label": "GPE", "pattern": "Rome"}]
    )
    labels = ["born in", "owner of"]
    pipe = nlp.add_pipe("rel_classifier", config={"model": MODEL, "labels": labels})
    doc = nlp("Ann Lee was born in Rome.")
    assert ("Ann Lee", "born in", "Rome") in {(r.head.text, r.label, r.tail.text) for r in doc._.relations}
    nlp.to_disk(tmp_path / "pipeline")
    scores = [relation.score for relation in doc._.relations]
    read = spacy.load(tmp_path / "pipeline")
    pipe.from_bytes(pipe.to_bytes())
    for other in (read, nlp):
        assert [relation.score for relation in other(doc.text)._.relations] == pytest.approx(scores, abs=1e-5)


MODEL = {"@architectures": "spacy-slmre.UniversalEncoder.v1", "dtype": "float32", "device": "cpu"}


def test_examples_of_a_pipeline_are_learned(model: UniversalEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    model.save(folder, embed=False)
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("rel_classifier", config={"model": {**MODEL, "weights": str(folder)}, "labels": ["born"]})
    assert pipe.is_trainable and not pipe.model.is_loaded
    assert pipe.add_label("kin") == 1 and pipe.labels == ("born", "kin", "no_relation")
    context = "Ann has a sister Bo", (0, 3, "PER"), (17, 19, "PER")
    before = pipe.model.log_probs([RelationInstance.from_offsets(*context)], pipe.schema)[0]
    column = int(before.argmin())
    instance = RelationInstance.from_offsets(*context, pipe.schema.names[column])
    optimizer = Adam(0.01, use_averages=False, L2=0.0)
    for _ in range(5):
        pipe.model.update([instance], pipe.schema)
        pipe.finish_update(optimizer)
    assert pipe.model.log_probs([instance], pipe.schema)[0, column] > before[column]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps(EXAMPLE) + "\n")
    return file


EXAMPLE = {"text": "Ann was born in Rome.", "head": [0, 3, "PER"], "tail": [16, 20, "LOC"], "label": "born"}


def test_labels_move_towards_their_examples(model: UniversalEncoder, tmp_path: Path, examples: Path) -> None:
    weights = tmp_path / "weights"
    model.save(weights, embed=True)
    schema = LabelSchema.from_labels(["born", "kin"])
    pair = RelationInstance.from_offsets("Eva was born in Oslo.", (0, 3, "PER"), (16, 20, "LOC"))
    before = model.log_probs([pair], schema)[0]
    few_shot = make_universal_encoder(**vars(settings(weights=str(weights), examples=str(examples))))
    after = few_shot.log_probs([pair], schema)[0]
    assert np.exp(after).sum() == pytest.approx(1)
    born, kin, none = range(3)
    # Examples say which relation a pair has, not whether it has one.
    assert after[born] > before[born] and after[kin] < before[kin]
    assert after[none] == pytest.approx(before[none], abs=1e-5)
    allowed = np.array([[True, False, True]])
    assert few_shot.log_probs([pair], schema, allowed) == pytest.approx(model.log_probs([pair], schema, allowed))
    model.set_examples([RelationInstance.from_dict(EXAMPLE)])
    assert model.log_probs([pair], schema)[0] == pytest.approx(after, abs=1e-5)
    model.set_examples([RelationInstance.from_dict({**EXAMPLE, "label": "no_relation"})])
    assert model.log_probs([pair], schema)[0] == pytest.approx(before, abs=1e-5)
    # They are saved with the model, and their file is no longer needed.
    few_shot.save(tmp_path / "saved", embed=True)
    examples.unlink()
    restored = few_shot.restore(tmp_path / "saved")
    for other in (restored, few_shot.restore(tmp_path / "saved", temporary=True), pickle.loads(pickle.dumps(restored))):
        assert other.log_probs([pair], schema)[0] == pytest.approx(after, abs=1e-5)
    model.set_examples([])
    assert model.log_probs([pair], schema)[0] == pytest.approx(before, abs=1e-5)
    few_shot.update(INSTANCES, schema)  # computes gradients for the labels without examples
    assert few_shot.log_probs([pair], schema)[0] == pytest.approx(after, abs=1e-5)


def test_a_run_is_not_resumed_with_other_examples(model: UniversalEncoder, tmp_path: Path, examples: Path) -> None:
    model.save(tmp_path / "weights", embed=False)
    first = make_universal_encoder(weights=str(tmp_path / "weights")).describe_files()
    assert make_universal_encoder(weights=str(tmp_path / "weights"), examples=str(examples)).describe_files() != first


def test_bad_examples_are_refused(model: UniversalEncoder, tmp_path: Path, examples: Path) -> None:
    model.save(tmp_path / "weights", embed=True)
    few_shot = make_universal_encoder(weights=str(tmp_path / "weights"), examples=str(examples))
    with pytest.raises(ValueError, match='A few-shot example has the label "born", which is not in the schema'):
        few_shot.set_labels(LabelSchema.from_labels(["kin"]))
    missing = make_universal_encoder(weights=str(tmp_path / "weights"), examples=str(tmp_path / "missing.jsonl"))
    with pytest.raises(ModelError, match=r"model\.examples = .*missing.jsonl.* cannot be read"):
        missing.load()
    far = "Ann. " + "word " * 400 + "Rome."
    model.set_examples([RelationInstance.from_offsets(far, (0, 3, "PER"), (len(far) - 5, len(far) - 1, "LOC"), "born")])
    with pytest.raises(ModelError, match="The arguments of a few-shot example are too far apart"):
        model.set_labels(LabelSchema.from_labels(["born"]))
