"""Fused layers compute what peft's layers compute, and their gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from torch import nn

from spacy_slmre.models.causal_lm.fused_lora import FusedLora, LoraProduct, fuse_lora
from spacy_slmre.models.causal_lm.lora import LoraSettings
from tests.models.causal_lm.reference import INSTANCES, SCHEMA


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


def make_both(dtype: torch.dtype = torch.float32, **settings: object) -> tuple[nn.Module, nn.Module]:
    """Return the same network with peft's layers and with fused ones."""
    plain = make(dtype, **settings)
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    return plain, fused


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
    plain, fused = make_both()
    assert (n_fused(plain), n_fused(fused)) == (0, 2)
    x = torch.randn(shape)
    for own, other in zip(outputs_and_gradients(fused, x), outputs_and_gradients(plain, x), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_product() -> None:
    torch.manual_seed(0)
    x, down, up = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2, 5), (2, 5), (4, 2)))
    weight = torch.randn(4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *parts: LoraProduct.apply(parts[0], weight, *parts[1:], 3.0), (x, down, up))


def test_in_bfloat16_rounding_errors_are_about_those_of_peft() -> None:
    exact = make()
    rounded, fused = make_both(torch.bfloat16)
    # All have the same base weights.
    exact.load_state_dict(rounded.state_dict())
    x = torch.randn(64, 24).bfloat16()
    truth = outputs_and_gradients(exact, x.float())
    for own, other, right in zip(
        outputs_and_gradients(fused, x), outputs_and_gradients(rounded, x), truth, strict=True
    ):
        assert (own - right).norm() < 1.5 * (other - right).norm()


def test_results_may_be_changed_in_place_and_be_empty() -> None:
    plain, fused = make_both()
    x = torch.randn(3, 24)
    results = []
    for network in (plain, fused):
        network(x).clamp_(min=0).sum().backward()
        results.append([one.grad for one in network.parameters() if one.requires_grad])
        assert network(x[:0]).shape == (0, 8)
    torch.testing.assert_close(*results)


def test_float32_weights_work_under_autocast_of_another_type() -> None:
    plain, fused = make_both()
    with torch.autocast("cpu", torch.bfloat16):
        results = [network(torch.ones(2, 24)) for network in (plain, fused)]
    assert torch.equal(*results)


def test_whatever_else_peft_does_still_works() -> None:
    x = torch.randn(4, 24)
    plain, fused = make_both()
    for network in (plain, fused):
        network.add_adapter("second", LoraConfig(r=2, target_modules=["one"], init_lora_weights=False))
        network.set_adapter("default")
    torch.testing.assert_close(fused(x), plain(x))
    merged = make()
    fuse_lora(merged)
    before = merged(x)
    merged.merge_adapter()
    torch.testing.assert_close(merged(x), before)
    merged.unmerge_adapter()
    torch.testing.assert_close(merged(x), before)
    torch.testing.assert_close(merged.merge_and_unload()(x), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_of_a_network_takes_the_same_steps_as_with_peft(
    make_lm, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = {}
    for fuse in (True, False):
        lm = make_lm(dtype="bfloat16")
        with monkeypatch.context() as patched:
            if not fuse:
                patched.setattr("spacy_slmre.models.causal_lm.fused_lora.fuse_lora", lambda network: None)
            model = lm.begin_training(SCHEMA, LoraSettings(rank=4))
        adapted = [module for module in model.modules() if isinstance(module, lora.Linear)]
        assert all(isinstance(module, FusedLora) == fuse for module in adapted) and adapted
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        for parameter in lm.trainable_parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            lm.update(INSTANCES, SCHEMA)
        gradients[fuse] = torch.cat([parameter.grad.flatten() for parameter in lm.trainable_parameters()])
    assert torch.nn.functional.cosine_similarity(gradients[True], gradients[False], dim=0) > 0.99
    assert (gradients[True].norm() / gradients[False].norm()).item() == pytest.approx(1, abs=0.05)


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
    plain, fused = make_both(lora_dropout=0.5)
    x = torch.randn(6, 24)
    results = []
    for network in (plain, fused):
        torch.manual_seed(1)
        results.append(network.train()(x))
    assert torch.equal(*results)
    with plain.disable_adapter(), fused.disable_adapter():
        assert torch.equal(plain.eval()(x), fused.eval()(x))
