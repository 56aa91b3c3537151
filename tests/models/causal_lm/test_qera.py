"""LoRA weights that compensate the quantization error of NF4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import Batch, as_batch
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.qera import input_sizes, low_rank_factors
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.trainer import PackedTrainer
from spacy_slmre.training.tune import train_adapter
from tests.training.test_trainer import make_set

SCHEMA = LabelSchema.from_labels(["place of birth", "employer"])
INSTANCES = [
    RelationInstance.from_offsets("Ann was born in Rome.", (0, 3, "PER"), (16, 20, "LOC"), "place of birth"),
    RelationInstance.from_offsets("Bo works for Acme.", (0, 2, "PER"), (13, 17, "ORG"), "employer"),
]


@pytest.fixture
def make_lm(tiny_base: Path):
    def make(quantization: str | None = "nf4", **settings):
        return make_small_lm(
            base=str(tiny_base), quantization=quantization, dtype="float32", device="cpu", **settings
        )

    return make


def batches(lm) -> list[Batch]:
    sequences = TrainingSequences(lm.prompts, INSTANCES, SCHEMA, room=200)
    return [as_batch(sequences[position]) for position in range(len(sequences))]


def scores(lm) -> torch.Tensor:
    return torch.from_numpy(lm.log_probs(INSTANCES, SCHEMA))


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (8, 8)])
def test_low_rank_factors_equal_those_of_the_svd(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, right = low_rank_factors(matrix, 4)
    assert left.shape == (shape[0], 4) and right.shape == (4, shape[1])
    rows, values, columns = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(left @ right, (rows[:, :4] * values[:4]) @ columns[:4])
    torch.testing.assert_close(left.square().sum(0), right.square().sum(1))
    left, right = low_rank_factors(torch.zeros(shape), 2)  # nothing was lost
    assert not (left @ right).any() and left.isfinite().all() and right.isfinite().all()


def test_input_sizes_are_root_mean_squares(make_lm) -> None:
    lm = make_lm(None)
    (batch,) = batches(lm)
    seen = []
    layer = lm.network.model.layers[1].mlp.down_proj
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        sizes = input_sizes(lm.network, [batch, batch])
    assert len(seen) == 2 and len(sizes) == 7 * len(lm.network.model.layers)
    torch.testing.assert_close(sizes["layers.1.mlp.down_proj"], seen[0][0].square().mean(0).sqrt())
    assert not layer._forward_pre_hooks


def test_the_quantization_error_is_compensated(make_lm) -> None:
    plain = scores(make_lm(None))
    distances = []
    for rank in (4, 16, 10_000):
        lm = make_lm()
        before = (scores(lm) - plain).abs().mean()
        lm.begin_training(SCHEMA, LoraSettings(rank=min(rank, smallest(lm)), alpha=7))
        assert torch.equal(scores(lm), scores(make_lm()))
        lm.init_lora_with_qera(batches(lm))
        distances.append(float((scores(lm) - plain).abs().mean() / before))
    assert 1 > distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.01  # at full rank, the quantization error is compensated completely


def smallest(lm) -> int:
    layers = lm.network.model.layers
    return max(min(p.shape) for p in layers.parameters() if p.dim() == 2)


def test_weights_that_are_not_quantized_are_not_changed(make_lm, q4_1_base: Path) -> None:
    for lm in (make_lm(None), make_small_lm(base=str(q4_1_base), dtype="float32", device="cpu")):
        lm.begin_training(SCHEMA, LoraSettings(rank=2))
        lm.init_lora_with_qera(batches(lm))
        assert not any(p.any() for name, p in lm.network.named_parameters() if "lora_B" in name)
    with pytest.raises(ValueError, match="begin_training"):
        make_lm().init_lora_with_qera([])
    with pytest.raises(ModelError, match=r"lora\.init_lora"):
        LoraSettings(init_lora="something")


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
