"""Attention by groups is used where it is the same, and only there."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DogeConfig, PreTrainedTokenizerFast

from spacy_slmre.slm import attention, packing
from spacy_slmre.slm.model import SmallLM
from spacy_slmre.slm.settings import SmallLMSettings

from .test_exactness import TOLERANCE, separate_log_probs
from .test_training import INSTANCES, SCHEMA


def test_a_pass_is_computed_in_groups(make_lm) -> None:
    lm = make_lm(prefix_cache=False)
    layers = []
    plain = attention.sdpa_attention_forward

    def noting(module, *args, **kwargs):
        layers.append(module.layer_idx)
        return plain(module, *args, **kwargs)

    with (
        patch.object(packing, "LEAST_GROUP", 8),
        patch.object(attention, "sdpa_attention_forward", noting),
    ):
        found = lm.log_probs(INSTANCES, SCHEMA)
    assert any(one == other for one, other in pairwise(layers))  # a layer several times in a pass
    np.testing.assert_allclose(found, separate_log_probs(lm, INSTANCES, SCHEMA), atol=TOLERANCE)


def test_a_layer_that_changes_its_mask_keeps_it(tokenizer: PreTrainedTokenizerFast) -> None:
    # Doge adds what it has learnt of keys to the mask that it is given.
    config = DogeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".A"):
                parameter.normal_()
    settings = SmallLMSettings(dtype="float32", device="cpu", quantization=None)
    lm = SmallLM(settings, network=(network.eval(), tokenizer))
    expected = separate_log_probs(lm, INSTANCES, SCHEMA)
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), expected, atol=TOLERANCE)
