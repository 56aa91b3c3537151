"""Settings, lifecycle and truncation of a small language model."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError, TrainableModel
from spacy_slmre.models.causal_lm import model
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.hub import PACKAGED_BASE
from spacy_slmre.schema import LabelSchema
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model

SHOWN = RelationInstance.from_offsets("Bo works for Acme", (0, 2, "PER"), (13, 17, ""), "employer").to_dict()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": "int3"}, "model.dtype"),
        ({"device": "toaster"}, "model.device"),
        ({"quantization": "int8"}, "model.quantization"),
        ({"max_batch_tokens": 0}, "model.max_batch_tokens"),
        ({"lora_rank": 0}, "model.lora_rank"),
        ({"base": ""}, "model.base is empty"),
    ],
)
def test_settings_are_checked_at_construction(setting: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_small_lm(**setting)


def test_nothing_is_read_at_construction(tmp_path: Path) -> None:
    lm = make_small_lm(base=str(tmp_path / "no-base"), adapter=str(tmp_path / "no-adapter"))
    assert isinstance(lm, TrainableModel) and not lm.is_loaded
    with pytest.raises(ModelError, match="no such folder"):
        lm.load()
    assert make_small_lm(adapter=None).resolved.base == PACKAGED_BASE


@pytest.mark.parametrize("embed", [False, True])
def test_a_saved_model_needs_none_of_the_files_of_its_settings(tiny_base: Path, tmp_path: Path, embed: bool) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    examples = tmp_path / "examples.jsonl"
    examples.write_text(json.dumps(SHOWN))
    lm = make_model(base=str(base), examples=str(examples))
    expected = lm.log_probs(INSTANCES, SCHEMA)
    lm.save(tmp_path / "model", embed=embed)
    pickled = pickle.dumps(lm)
    examples.unlink()
    if embed:
        shutil.rmtree(base)
    for restored in (lm.restore(tmp_path / "model"), *([] if embed else [pickle.loads(pickled)])):
        assert not restored.is_loaded and restored.style == lm.style
        np.testing.assert_array_equal(restored.log_probs(INSTANCES, SCHEMA), expected)


def test_a_model_saved_by_reference_refuses_other_weights(tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    make_model(base=str(base)).save(tmp_path / "model", embed=False)
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-1000:] = bytes(1000)
    (base / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="was saved with other weights"):
        make_model(base=str(base)).restore(tmp_path / "model").load()


def test_a_damaged_saved_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json:1: the file is damaged"):
        make_model().restore(tmp_path)


def test_weights_loaded_in_inference_mode_can_be_trained(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    with torch.inference_mode():
        inside = lm.log_probs(INSTANCES, SCHEMA)
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), inside)
    assert not any(parameter.is_inference() for parameter in lm.network.parameters())


def test_weights_are_released_before_they_are_reloaded(tiny_base: Path, tmp_path: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    lm.export_adapter().to_folder(tmp_path / "adapter")
    base = shutil.copytree(tiny_base, tmp_path / "base")
    lm = make_model(base=str(base), adapter=str(tmp_path / "adapter"))
    expected = lm.log_probs(INSTANCES, SCHEMA)
    # If the base model is not found, the loaded one is kept.
    base.rename(tmp_path / "away")
    with pytest.raises(ModelError, match="base"):
        lm.begin_training(SCHEMA)
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), expected)
    (tmp_path / "away").rename(base)
    before, load_base, was_alive = weakref.ref(lm.network), model.load_base, []

    def record(*args, **kwargs):
        gc.collect()
        was_alive.append(before() is not None)
        return load_base(*args, **kwargs)

    with patch.object(model, "load_base", record):
        lm.begin_training(SCHEMA)
    assert was_alive == [False]


def test_training_with_a_torch_optimizer_is_saved(tiny_base: Path, tmp_path: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.update(INSTANCES, SCHEMA)
    optimizer = torch.optim.SGD(lm.trainable_parameters(), lr=1.0)
    for _ in range(3):
        optimizer.step()
        lm.update(INSTANCES, SCHEMA)
    expected = lm.log_probs(INSTANCES, SCHEMA)
    assert not np.allclose(expected, make_model(base=str(tiny_base)).log_probs(INSTANCES, SCHEMA))
    lm.save(tmp_path / "model", embed=False)
    np.testing.assert_allclose(lm.restore(tmp_path / "model").log_probs(INSTANCES, SCHEMA), expected, rtol=1e-4)


def test_labels_that_were_added_during_training_are_recorded(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.update(INSTANCES, SCHEMA)
    wider = SCHEMA.with_name("sibling")
    lm.update(INSTANCES, wider)
    assert lm.export_adapter().record.schema == wider


def test_only_contexts_that_are_too_long_are_truncated(make_lm) -> None:
    lm = make_lm()
    words = " ".join(f"w{n}" for n in range(300))
    near = RelationInstance.from_offsets(f"Ann met Bo. {words}", (0, 3, "PER"), (8, 10, "PER"))
    far = RelationInstance.from_offsets(f"Ann {words} Bo", (0, 3, "PER"), (len(words) + 5, len(words) + 7, "PER"))
    truncated, none, same = lm.truncate([near, far, INSTANCES[0]], SCHEMA, 60)
    assert none is None and same is INSTANCES[0]
    assert truncated.text_of(truncated.head_mention) == "Ann" and truncated.text_of(truncated.tail_mention) == "Bo"
    assert len(lm.prompts.contexts([truncated.context])[0]) <= 60
    assert lm.truncate([far], SCHEMA, 100_000) == [far]


def test_label_lists_longer_than_the_model_reads_are_refused(make_lm) -> None:
    labels = LabelSchema.from_labels([f"relation number {n} of very many" for n in range(400)])
    with pytest.raises(ModelError, match="of the model's 4096 tokens, so there is no room"):
        make_lm().set_labels(labels)
    with pytest.raises(ModelError, match="exceeds the model's limit of 4096"):
        make_lm().log_probs(INSTANCES, labels)


def test_top_k_handles_no_instances_and_refuses_k_below_one(make_lm) -> None:
    lm = make_lm()
    assert lm.top_k([], SCHEMA, 2)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="k = 0"):
        lm.top_k(INSTANCES, SCHEMA, 0)


def test_labels_are_fitted_to_examples(tiny_base: Path, tmp_path: Path) -> None:
    lm = make_model(base=str(tiny_base))
    plain = lm.log_probs(INSTANCES, SCHEMA)
    pair, none = INSTANCES[0], SCHEMA.index["no_relation"]
    rare = int(np.delete(plain[0], none).argmin())
    example = replace(pair, label=SCHEMA.names[rare])
    lm.set_examples([example, replace(INSTANCES[1], label="no_relation")])
    fitted = lm.log_probs(INSTANCES, SCHEMA)
    assert np.exp(fitted).sum(axis=1) == pytest.approx(1.0)
    # They say which relation a pair has, not whether it has one.
    assert fitted[0, rare] > plain[0, rare]
    assert fitted[:, none] == pytest.approx(plain[:, none], abs=1e-5)
    # Any label may become the most probable one, so that all are computed.
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA, k=1, min_prob=0.2), fitted, atol=1e-5)
    one_by_one = np.concatenate([lm.log_probs([instance], SCHEMA) for instance in INSTANCES])
    np.testing.assert_allclose(one_by_one, fitted, atol=1e-4)
    # Impossible labels remain impossible, also where none is left.
    allowed = np.ones(plain.shape, dtype=bool)
    allowed[:, rare] = False
    allowed[0] = False
    restricted = lm.log_probs(INSTANCES, SCHEMA, allowed)
    assert np.isneginf(restricted[~allowed]).all()
    assert np.exp(restricted[1:]).sum(axis=1) == pytest.approx(1.0)
    lm.save(tmp_path / "model", embed=False)
    for restored in (lm.restore(tmp_path / "model"), pickle.loads(pickle.dumps(lm))):
        np.testing.assert_allclose(restored.log_probs(INSTANCES, SCHEMA), fitted, atol=1e-5)
    assert lm.describe_files() != make_model(base=str(tiny_base)).describe_files()
    with pytest.raises(ValueError, match="A few-shot example has the label"):
        lm.set_labels(LabelSchema.from_labels(["other"]))
    lm.set_examples([])
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), plain)


def test_fitted_labels_follow_the_weights(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.set_examples([INSTANCES[0]])
    before = lm.log_probs(INSTANCES, SCHEMA)
    with torch.no_grad():
        for name, parameter in lm.network.named_parameters():
            if "down_proj" in name:
                parameter.mul_(1.5)
    after = lm.log_probs(INSTANCES, SCHEMA)
    assert np.abs(after - before).max() > 1e-3
    lm.clear_cache()
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), after, atol=1e-5)


def test_training_does_not_fit_labels(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.set_examples([INSTANCES[0]])
    with patch("spacy_slmre.models.causal_lm.model.fit_labels", side_effect=AssertionError):
        assert lm.update(INSTANCES, SCHEMA) > 0
