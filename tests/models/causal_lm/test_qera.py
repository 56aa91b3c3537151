"""Initial LoRA weights that compensate for quantization to NF4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import Batch, as_batch
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.qera import input_sizes, low_rank_factors
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model


def batches(lm: SmallLM) -> list[Batch]:
    sequences = TrainingSequences(lm.prompts, INSTANCES, SCHEMA, max_tokens=200)
    return [as_batch(sequence) for sequence in sequences]


def scores(lm: SmallLM) -> torch.Tensor:
    return torch.from_numpy(lm.log_probs(INSTANCES, SCHEMA))


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (8, 8)])
def test_low_rank_factors_equal_those_of_the_svd(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, right = low_rank_factors(matrix, 4)
    assert left.shape == (shape[0], 4) and right.shape == (4, shape[1])
    rows, values, columns = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(left @ right, (rows[:, :4] * values[:4]) @ columns[:4])
    torch.testing.assert_close(left.square().sum(0), right.square().sum(1))
    left, right = low_rank_factors(torch.zeros(shape), 2)
    assert not (left @ right).any() and left.isfinite().all() and right.isfinite().all()


def test_input_sizes_are_root_mean_squares(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    batch, *_ = batches(lm)
    inputs = []
    layer = lm.network.model.layers[1].mlp.down_proj
    with layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        sizes = input_sizes(lm.network, [batch, batch])
    assert len(inputs) == 2 and len(sizes) == 7 * len(lm.network.model.layers)
    torch.testing.assert_close(sizes["layers.1.mlp.down_proj"], inputs[0][0].square().mean(0).sqrt())
    assert not layer._forward_pre_hooks


def test_higher_ranks_compensate_more_of_the_quantization(tiny_base: Path) -> None:
    plain = scores(make_model(base=str(tiny_base)))
    quantized = scores(make_model(base=str(tiny_base), quantization="nf4"))
    remaining = []
    for rank in (8, 24, 64):  # 64 exceeds the full rank of all layers, 32
        lm = make_model(base=str(tiny_base), quantization="nf4")
        lm.begin_training(SCHEMA, LoraSettings(rank=rank, alpha=7))
        assert torch.equal(scores(lm), quantized)
        lm.init_lora_with_qera(batches(lm))
        remaining.append(float((scores(lm) - plain).abs().mean() / (quantized - plain).abs().mean()))
    assert 1 > remaining[0] > remaining[1] > remaining[2]
    assert remaining[2] < 0.01


def test_weights_that_were_not_quantized_need_no_compensation(tiny_base: Path, q4_1_base: Path) -> None:
    for lm in (make_model(base=str(tiny_base)), make_model(base=str(q4_1_base), quantization="auto")):
        lm.begin_training(SCHEMA, LoraSettings(rank=2))
        lm.init_lora_with_qera(batches(lm))
        lora_b = [parameter for name, parameter in lm.network.named_parameters() if "lora_B" in name]
        assert lora_b and not any(parameter.any() for parameter in lora_b)


def test_compensation_requires_lora_weights(tiny_base: Path) -> None:
    with pytest.raises(ValueError, match="begin_training"):
        make_model(base=str(tiny_base)).init_lora_with_qera([])
