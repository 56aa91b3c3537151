"""Loading base models in 4 bits."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import torch

from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model


def layers_4bit(lm) -> list[bnb.nn.Linear4bit]:
    return [module for module in lm.network.modules() if isinstance(module, bnb.nn.Linear4bit)]


def test_dequantized_weights_have_exactly_the_4bit_values(tiny_base: Path) -> None:
    plain = make_model(base=str(tiny_base)).log_probs(INSTANCES, SCHEMA)
    dequantized = make_model(base=str(tiny_base), quantization="auto").load()
    kept = make_model(base=str(tiny_base), quantization="auto", keep_4bit=True).load()
    assert len(layers_4bit(kept)) == 4 * 7 and not layers_4bit(dequantized)
    log_probs = dequantized.log_probs(INSTANCES, SCHEMA)
    np.testing.assert_allclose(kept.log_probs(INSTANCES, SCHEMA), log_probs, atol=1e-4)
    assert np.abs(log_probs - plain).max() > 1e-3


def test_4bit_weights_are_never_repacked(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base), quantization="auto", keep_4bit=True).load()
    layers = layers_4bit(lm)
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    before = layers[0].weight.data.clone()
    lm.log_probs(INSTANCES, SCHEMA)
    assert torch.equal(layers[0].weight.data, before)
