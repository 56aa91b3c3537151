"""Layers below the trained ones are computed once for each sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.training import trainer
from spacy_slmre.training.config import TrainingSettings
from spacy_slmre.training.frozen_layers import FrozenLayers
from spacy_slmre.training.tune import train_adapter
from tests.training.test_trainer import OTHER, SCHEMA, load, make_set

LORA = LoraSettings(rank=4, alpha=8, top_layers=1)
SETTINGS = TrainingSettings(
    max_tokens=400,
    gradient_accumulation_steps=1,
    learning_rate=0.02,
    eval_steps=6,
    max_steps=12,
    adapter_dtype="float32",
)


@pytest.fixture
def train(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Train for several epochs; return the metrics, the final weights, and how often the lowest layer was computed."""

    def train(max_bytes: int, lora: LoraSettings = LORA) -> tuple[dict, dict[str, torch.Tensor], int]:
        monkeypatch.setattr(trainer, "MAX_BYTES", max_bytes)
        lm = load(tiny_base)
        lm.begin_training({}, lora)
        computed = 0

        def count(*_: object) -> None:
            nonlocal computed
            computed += lm.network.training

        lm.network.get_decoder().layers[0].self_attn.register_forward_pre_hook(count)
        sets = [make_set("one", SCHEMA), make_set("two", OTHER)]
        folder = tmp_path / f"{max_bytes}-{lora.dropout}"
        result = train_adapter(lm, sets, SETTINGS, lora, folder)
        weights = {name: one.detach().clone() for name, one in lm.network.named_parameters() if one.requires_grad}
        return result, weights, computed

    return train


def test_remembered_layers_give_the_same_weights_and_are_computed_once(train: Callable) -> None:
    kept, kept_weights, kept_computed = train(2**30)
    again, weights, computed = train(0)
    assert kept["scores"] == again["scores"]
    assert all(torch.equal(one, kept_weights[name]) for name, one in weights.items()) and weights
    # In 12 steps, each of the six sequences is used twice.
    assert (kept_computed, computed) == (6, 12)


def test_with_dropout_nothing_is_remembered(train: Callable) -> None:
    assert train(2**30, LoraSettings(rank=4, alpha=8, top_layers=1, dropout=0.1))[2] == 12


def test_layers_are_as_before_after_training(tiny_base: Path) -> None:
    lm = load(tiny_base)
    lm.begin_training(SCHEMA, LORA)
    layers = FrozenLayers(lm.network, 2**20)
    assert layers.layers == list(lm.network.get_decoder().layers)[:3]
    with layers.installed():
        assert all("forward" in vars(layer) for layer in layers.layers)
    assert not any("forward" in vars(layer) for layer in layers.layers)
