"""Tuning from LoRA weights that compensate for quantization."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.trainer import PackedTrainer
from spacy_slmre.training.tune import train_adapter
from tests.models.causal_lm.reference import make_model
from tests.training.test_trainer import make_set

SCHEMA = LabelSchema.from_labels(["place of birth", "employer"])


@pytest.fixture
def make_lm(tiny_base: Path):
    def make(**settings) -> SmallLM:
        return make_model(base=str(tiny_base), quantization="nf4", **settings)

    return make


def test_only_a_new_adapter_is_initialized(make_lm, tmp_path: Path, monkeypatch) -> None:
    lora = LoraSettings(rank=4, alpha=8, init_lora="qera")
    settings = TrainingSettings(
        max_tokens=400, gradient_accumulation_steps=1, learning_rate=0.01, eval_steps=1, max_steps=3
    )

    def run(folder: Path, lora: LoraSettings = lora, lm=None):
        lm = lm or make_lm()
        result = train_adapter(lm, [make_set("one", SCHEMA)], settings, lora, folder)
        return lm, lm.adapter.weights, result["history"][0].get("loss"), result["scores"]

    lm, whole, *_ = run(tmp_path / "whole")
    assert whole != run(tmp_path / "nothing", lora=LoraSettings(rank=4, alpha=8))[1]
    original = PackedTrainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    assert run(tmp_path / "killed")[1] == whole
    # An adapter that is tuned further keeps its weights.
    lm.adapter.to_folder(tmp_path / "adapter")
    again = make_lm(adapter=str(tmp_path / "adapter"))
    monkeypatch.setattr(type(again), "init_lora_with_qera", out_of_memory)
    run(tmp_path / "further", lm=again)
    with pytest.raises(TuningError, match="init_lora"):
        run(tmp_path / "out-of-memory")


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("the device is full")
