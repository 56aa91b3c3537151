"""Fused layers compute what peft's layers compute, and its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from spacy_slmre.models.causal_lm.fused_lora import FusedLora, fuse_lora


class Layers(nn.Module):
    """Two linear layers without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(24, 40, bias=False), nn.Linear(40, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(torch.tanh(self.one(x)))


def make(dtype: torch.dtype = torch.float32, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": ["one", "other"], **settings})
    network = get_peft_model(Layers().to(dtype), config)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter, dtype=torch.float32)
    return network


def n_fused(network: nn.Module) -> int:
    return sum(isinstance(module, FusedLora) for module in network.modules())


def outputs_and_gradients(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        result = network(x)
    (result.float() ** 2).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
    assert all(one is not None and one.dtype == torch.float32 for one in gradients)
    return [result.float(), x.grad.float(), *gradients]


@pytest.mark.parametrize("shape", [(5, 24), (1, 7, 24), (2, 3, 24)])
def test_fused_layers_equal_those_of_peft(shape: tuple[int, ...]) -> None:
    plain = make()
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    assert (n_fused(plain), n_fused(fused)) == (0, 2)
    x = torch.randn(shape)
    for own, other in zip(outputs_and_gradients(fused, x), outputs_and_gradients(plain, x), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_rounding_errors_are_no_larger_than_those_of_peft() -> None:
    exact = make()
    rounded = make(torch.bfloat16)
    # Both have the same base weights.
    exact.load_state_dict(rounded.state_dict())
    fused = copy.deepcopy(rounded)
    fuse_lora(fused)
    x = torch.randn(64, 24).bfloat16()
    truth = outputs_and_gradients(exact, x.float())
    for own, other, right in zip(
        outputs_and_gradients(fused, x), outputs_and_gradients(rounded, x), truth, strict=True
    ):
        assert (own - right).norm() < 1.5 * (other - right).norm()


def test_layers_that_are_not_plain_stay_those_of_peft() -> None:
    with_dora = make(use_dora=True)
    fuse_lora(with_dora)
    assert n_fused(with_dora) == 0
    with_bias = Layers()
    with_bias.one = nn.Linear(24, 40)
    network = get_peft_model(with_bias, LoraConfig(r=4, target_modules=["one", "other"]))
    fuse_lora(network)
    assert n_fused(network) == 1


def test_dropout_and_disabled_adapters_work_as_in_peft() -> None:
    plain = make(lora_dropout=0.5)
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    x = torch.randn(6, 24)
    results = []
    for network in (plain, fused):
        torch.manual_seed(1)
        results.append(network.train()(x))
    assert torch.equal(*results)
    with plain.disable_adapter(), fused.disable_adapter():
        assert torch.equal(plain.eval()(x), fused.eval()(x))
