from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from thinc.api import Adam

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models import hub
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.schema import LabelSchema
from tests.models.encoder.architectures import ENCODERS, save_encoder

SCHEMA = LabelSchema.from_labels(["born", "kin"])
TYPES = ("PER", "LOC")
PAIRS = [
    ("Ann Lee was born in Rome", (0, 7, "PER"), (20, 24, "LOC"), "born"),
    ("Ann has a sister Bo and works in Paris for the Red Mill", (0, 3, "PER"), (17, 19, "PER"), "kin"),
    ("Ann has a sister Bo and works in Paris for the Red Mill", (17, 19, "PER"), (33, 38, "LOC"), "no_relation"),
]
INSTANCES = [RelationInstance.from_offsets(*pair) for pair in PAIRS]


@pytest.fixture
def make(tiny_encoder: Path) -> Callable[..., EncoderClassifier]:
    def make(schema: LabelSchema = SCHEMA, **settings: object) -> EncoderClassifier:
        options = {"dtype": "float32", "device": "cpu", "base": str(tiny_encoder), **settings}
        model = EncoderClassifier(EncoderSettings(**options))
        model.start(schema.names, TYPES)
        return model

    return make


def train(model: EncoderClassifier, steps: int = 30, rate: float = 0.01) -> list[float]:
    optimizer = Adam(rate, use_averages=False, L2=0.0)
    losses = []
    for _ in range(steps):
        losses.append(model.update(INSTANCES, SCHEMA))
        model.finish_update(optimizer)
    return losses


def gradients(model: EncoderClassifier) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.network.named_parameters()
        if parameter.grad is not None
    }


def test_an_untrained_encoder_cannot_be_loaded(tiny_encoder: Path) -> None:
    model = EncoderClassifier(EncoderSettings(base=str(tiny_encoder)))
    with pytest.raises(ModelError, match="no label head yet"):
        model.load()
    assert not model.is_loaded and not model.labels


@pytest.mark.parametrize("markers", ["typed", "levitated"])
def test_the_encoder_learns_its_training_data(make: Callable, markers: str) -> None:
    model = make(markers=markers)
    losses = train(model)
    assert losses[-1] < 0.05 < losses[0]
    assert [SCHEMA.names[c] for (c,) in model.top_k(INSTANCES, SCHEMA)[0]] == [pair[3] for pair in PAIRS]


@pytest.mark.parametrize(
    "settings", [{}, {"markers": "punctuation"}, {"markers": "levitated"}, {"type_embedding": True}]
)
def test_probabilities_are_independent_of_the_batch(make: Callable, settings: dict) -> None:
    model = make(**settings)
    log_probs = model.log_probs(INSTANCES, SCHEMA)
    assert log_probs.shape == (3, 3)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(3))
    one_by_one = np.concatenate([model.log_probs([instance], SCHEMA) for instance in INSTANCES])
    assert log_probs == pytest.approx(one_by_one, abs=1e-5)
    columns, best = model.top_k(INSTANCES, SCHEMA, k=2)
    assert best == pytest.approx(-np.sort(-log_probs, axis=1)[:, :2])
    allowed = np.ones((3, 3), dtype=bool)
    allowed[0, columns[0, 0]] = False
    assert model.top_k(INSTANCES, SCHEMA, allowed=allowed)[0][0, 0] == columns[0, 1]
    few = model.top_k(INSTANCES, SCHEMA, k=3, allowed=allowed)[1]
    assert few[0, 2] == -np.inf
    assert np.exp(few).sum(axis=1) == pytest.approx(np.ones(3)), "normalized over the allowed labels"


def test_a_subset_of_the_labels_is_renormalized(make: Callable) -> None:
    model = make()
    everything = np.exp(model.log_probs(INSTANCES, SCHEMA))
    two = np.exp(model.log_probs(INSTANCES, LabelSchema.from_labels(["kin", "born"], None)))
    assert two == pytest.approx(everything[:, [1, 0]] / everything[:, :2].sum(axis=1, keepdims=True))
    with pytest.raises(ModelError, match="not trained on the labels owner, only on born, kin, no_relation"):
        model.log_probs(INSTANCES, LabelSchema.from_labels(["owner"]))


def test_batches_do_not_change_the_gradient(make: Callable) -> None:
    weights = np.array([1.0, 2.0, 3.0])
    exact = {"dropout": 0.0, "mixed_precision": False}
    whole, parts, small = make(**exact), make(**exact), make(**exact, max_batch_tokens=8)
    whole.update(INSTANCES, SCHEMA, weights=weights)
    small.update(INSTANCES, SCHEMA, weights=weights)
    # Gradients accumulate over updates until the optimizer step.
    for instance in INSTANCES:
        parts.update([instance], SCHEMA)
    for name, gradient in gradients(whole).items():
        assert gradients(small)[name] == pytest.approx(gradient, abs=1e-5)
    mean = make(**exact)
    mean.update(INSTANCES, SCHEMA)
    for name, gradient in gradients(mean).items():
        assert gradients(parts)[name] / 3 == pytest.approx(gradient, abs=1e-5)


def test_loss_is_the_mean_negative_log_probability(make: Callable) -> None:
    model = make(dropout=0.0, mixed_precision=False)
    gold = [SCHEMA.index[pair[3]] for pair in PAIRS]
    expected = -model.log_probs(INSTANCES, SCHEMA)[range(3), gold].mean()
    assert model.update(INSTANCES, SCHEMA) == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_nan_adds_no_gradient(make: Callable) -> None:
    model = make()
    with torch.no_grad():
        model.network.head.output.bias[0] = float("nan")
    assert np.isnan(model.update(INSTANCES, SCHEMA))
    assert not gradients(model)
    with pytest.raises(ValueError, match="NaN"):
        model.log_probs(INSTANCES, SCHEMA)


def test_a_loss_that_is_nan_clears_accumulated_gradients(make: Callable) -> None:
    model = make(max_batch_tokens=8)
    model.update(INSTANCES, SCHEMA)
    weights = np.array([1.0, float("nan"), 1.0])
    assert np.isnan(model.update(INSTANCES, SCHEMA, weights=weights))
    assert not any(gradient.any() for gradient in gradients(model).values())


def test_frozen_layers_do_not_change(make: Callable) -> None:
    model = make(frozen_layers=1)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    train(model, steps=2)
    changed = {name for name, tensor in model.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("encoder.embeddings", "encoder.encoder.layer.0")) for name in changed)
    assert {"markers.weight", "head.output.weight"} <= changed
    assert any(name.startswith("encoder.encoder.layer.1") for name in changed)
    with pytest.raises(ValueError, match="has 2 layers"):
        make(frozen_layers=3)


def test_the_head_has_its_own_learning_rate(make: Callable) -> None:
    model = make(head_learn_rate=10.0)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    train(model, steps=1, rate=1e-4)
    steps = {name: (tensor - before[name]).abs().max() for name, tensor in model.network.state_dict().items()}
    assert float(steps["head.output.bias"]) == pytest.approx(1e-3, rel=0.05)
    assert float(steps["encoder.encoder.layer.1.output.dense.bias"]) == pytest.approx(1e-4, rel=0.05)


def test_added_labels_keep_the_scores_of_the_others(make: Callable) -> None:
    model = make()
    train(model)
    before = model.log_probs(INSTANCES, SCHEMA)
    wider = SCHEMA.with_name("owner")
    again = pickle.loads(pickle.dumps(model))
    model.add_labels(wider)
    assert model.labels == ("born", "kin", "no_relation", "owner")
    assert model.log_probs(INSTANCES, SCHEMA) == pytest.approx(before, abs=1e-5)
    scores = model.log_probs(INSTANCES, wider)
    assert scores.shape == (3, 4)
    # New weights only depend on the seed of the settings.
    torch.manual_seed(17)
    again.add_labels(wider)
    np.testing.assert_allclose(again.log_probs(INSTANCES, wider), scores)


def test_long_contexts_are_truncated_to_the_limit_of_the_encoder(make: Callable) -> None:
    model = make()
    long = "of Rome " * 120 + "Ann Lee was born in Rome" + " in Paris" * 120
    start = long.index("Ann")
    near = RelationInstance.from_offsets(long, (start, start + 7, "PER"), (start + 20, start + 24, "LOC"), "born")
    far = RelationInstance.from_offsets(long, (3, 7, "LOC"), (start, start + 7, "PER"))
    truncated, none = model.truncate([near, far], SCHEMA, 1000)
    assert none is None and truncated is not None and truncated.label == "born"
    assert truncated.text_of(truncated.head_mention) == "Ann Lee"
    assert len(model.markers.tokenize([truncated.context])[0][0]) <= 192 - model.markers.max_added
    model.log_probs([truncated], SCHEMA)
    assert model.truncate([near], SCHEMA, 12)[0].context.text.count(" ") < 12


@pytest.mark.parametrize("settings", [{}, {"markers": "plain"}, {"markers": "levitated"}, {"type_embedding": True}])
def test_a_restored_encoder_scores_the_same_and_can_be_trained_further(
    make: Callable, tmp_path: Path, settings: dict
) -> None:
    model = make(**settings)
    train(model)
    expected = model.log_probs(INSTANCES, SCHEMA)
    model.save(tmp_path / "model", embed=False)
    for way in ("disk", "again", "pickle"):
        if way == "disk":
            restored = EncoderClassifier(model.settings).restore(tmp_path / "model")
            assert not restored.is_loaded
        elif way == "again":
            restored.save(tmp_path / "model", embed=True)
            restored = EncoderClassifier(model.settings).restore(tmp_path / "model")
        else:
            restored = pickle.loads(pickle.dumps(model))
        assert np.array_equal(restored.log_probs(INSTANCES, SCHEMA), expected)
        assert (restored.labels, restored.types) == (model.labels, ("LOC", "PER"))
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    train(restored, steps=2)
    assert not np.array_equal(restored.log_probs(INSTANCES, SCHEMA), expected)


def test_damaged_and_contradicting_folders_are_refused(make: Callable, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "model", embed=False)
    with pytest.raises(ModelError, match="trained with 'typed'"):
        make(markers="plain").restore(tmp_path / "model")
    make(markers="levitated").save(tmp_path / "levitated", embed=False)
    with pytest.raises(ModelError, match="trained with 'levitated'"):
        make().restore(tmp_path / "levitated")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or incomplete"):
        EncoderClassifier(model.settings).restore(tmp_path / "model").load()
    (tmp_path / "model" / "classifier.json").write_text("{")
    with pytest.raises(ModelError, match=r"classifier\.json:1: the file is damaged"):
        EncoderClassifier(model.settings).restore(tmp_path / "model")


def test_a_failed_load_fails_again(make: Callable, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "model", embed=False)
    weights = tmp_path / "model" / "model.safetensors"
    damaged = EncoderClassifier(model.settings).restore(tmp_path / "model")
    weights.write_bytes(weights.read_bytes()[:-100])
    for _ in range(2):
        with pytest.raises(ModelError, match="damaged or incomplete"):
            damaged.log_probs(INSTANCES, SCHEMA)


def test_a_failed_start_keeps_the_current_model(make: Callable) -> None:
    model = make()
    expected = model.log_probs(INSTANCES, SCHEMA)
    model.settings = EncoderSettings(**{**vars(model.settings), "base": "/none"})
    with pytest.raises(ModelError, match="neither an existing folder"):
        model.start(["a", "b", "c", "d"], TYPES)
    assert np.array_equal(model.log_probs(INSTANCES, SCHEMA), expected)


def test_predictions_before_an_optimizer_step_are_not_cached(make: Callable) -> None:
    model = make(dtype="bfloat16")
    model.update(INSTANCES, SCHEMA)
    before = model.log_probs(INSTANCES, SCHEMA)
    model.finish_update(Adam(0.01, use_averages=False))
    assert not np.array_equal(model.log_probs(INSTANCES, SCHEMA), before)


@pytest.mark.parametrize(
    ("kind", "markers"), [*((kind, "typed") for kind in ENCODERS), ("electra", "levitated"), ("roberta", "levitated")]
)
def test_other_architectures_can_be_trained(tiny_encoder: Path, tmp_path: Path, kind: str, markers: str) -> None:
    save_encoder(kind, tiny_encoder, tmp_path)
    model = EncoderClassifier(EncoderSettings(base=str(tmp_path), dtype="float32", device="cpu", markers=markers))
    model.start(SCHEMA.names, TYPES)
    assert model.truncate(INSTANCES, SCHEMA, 500) == INSTANCES
    # The limit of 60 positions is not a multiple of the length that batches are rounded to.
    long = RelationInstance.from_offsets("Ann in Rome" + " of" * 80, (0, 3, "PER"), (7, 11, "LOC"), "born")
    (truncated,) = model.truncate([long], SCHEMA, 500)
    assert truncated is not None
    assert np.exp(model.log_probs([truncated], SCHEMA)).sum() == pytest.approx(1.0)
    assert train(model, steps=15)[-1] < 1.0


def test_unusable_encoders_are_refused(tiny_encoder: Path, tiny_base: Path, tmp_path: Path) -> None:
    def start(base: object) -> None:
        EncoderClassifier(EncoderSettings(base=str(base))).start(SCHEMA.names, TYPES)

    with pytest.raises(ModelError, match="neither an existing folder"):
        start(tmp_path / "nothing")
    with pytest.raises(ModelError, match="is not supported: it needs character offsets"):
        start(tiny_base)
    halved = tmp_path / "halved"
    halved.mkdir()
    for file in tiny_encoder.iterdir():
        (halved / file.name).write_bytes(file.read_bytes())
    config = json.loads((halved / "config.json").read_text())
    (halved / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"do not belong to the BertModel in its config\.json: 16 are missing"):
        start(halved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"markers": "bold"}, 'must be one of "typed", "plain", "punctuation"'),
        ({"runtime": "onnx"}, 'must be one of "torch", "openvino"'),
        ({"dropout": 1.0}, "at least 0 and below 1"),
        ({"max_batch_tokens": 0}, "at least 1"),
        ({"head_learn_rate": 0.0}, "above 0"),
        ({"device": "meta"}, "is not supported"),
        ({"base": ""}, "is empty"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        EncoderSettings(**settings)


def test_openvino_predicts_the_same_and_is_saved(make: Callable, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = make()
    train(model)
    expected = np.exp(model.log_probs(INSTANCES, SCHEMA))
    model.save(tmp_path / "torch", embed=False)
    settings = EncoderSettings(**{**vars(model.settings), "runtime": "openvino"})
    converted = EncoderClassifier(settings).restore(tmp_path / "torch")
    assert np.exp(converted.log_probs(INSTANCES, SCHEMA)) == pytest.approx(expected, abs=1e-2)
    converted.save(tmp_path / "openvino", embed=False)
    assert (tmp_path / "openvino" / "openvino.xml").exists()
    again = EncoderClassifier(settings).restore(tmp_path / "openvino")
    assert np.exp(again.log_probs(INSTANCES, SCHEMA)) == pytest.approx(expected, abs=1e-2)
    # Further training replaces the saved runtime model.
    train(again, steps=3)
    trained = EncoderClassifier(model.settings)
    again.save(tmp_path / "more", embed=False)
    by_torch = np.exp(trained.restore(tmp_path / "more").log_probs(INSTANCES, SCHEMA))
    assert np.exp(again.log_probs(INSTANCES, SCHEMA)) == pytest.approx(by_torch, abs=1e-2)


@pytest.mark.parametrize("markers", ["typed", "levitated"])
def test_bfloat16_is_close_to_float32(make: Callable, markers: str) -> None:
    model = make(markers=markers)
    train(model)
    small = EncoderClassifier(EncoderSettings(**{**vars(model.settings), "dtype": "bfloat16"}))
    small.__dict__.update({key: value for key, value in model.__dict__.items() if key != "settings"})
    small._score = None
    expected = np.exp(model.log_probs(INSTANCES, SCHEMA))
    assert np.exp(small.log_probs(INSTANCES, SCHEMA)) == pytest.approx(expected, abs=0.05)


def test_instances_without_a_known_label_are_refused(make: Callable) -> None:
    model = make()
    model.initialize(SCHEMA, INSTANCES)
    for label, found in ((None, "has no label"), ("zzz", 'has the label "zzz"')):
        with pytest.raises(ValueError, match=f"{found}, but the labels are: born, kin"):
            model.update([replace(INSTANCES[0], label=label)], SCHEMA)


def test_openvino_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "has_gpu", lambda: True)
    with pytest.raises(ModelError, match='runs on the CPU, not on "cuda"'):
        EncoderSettings(runtime="openvino", device="cuda")
