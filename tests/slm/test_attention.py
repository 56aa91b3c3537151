"""Attention by groups is used where it is the same, and only there."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from spacy_slmre.slm import attention, packing

from .test_exactness import TOLERANCE, separate_log_probs
from .test_training import INSTANCES, SCHEMA


def test_a_pass_is_computed_in_groups(make_lm) -> None:
    lm = make_lm(prefix_cache=False)
    layers: list[int] = []  # groups computed in each layer of each pass
    whole, part = attention.AttentionGroups.attend, attention.AttentionGroup.attend

    def noting_layers(self, *args):
        layers.append(0)
        return whole(self, *args)

    def noting_groups(self, *args):
        layers[-1] += 1
        return part(self, *args)

    with (
        patch.object(packing, "LEAST_GROUP", 8),
        patch.object(attention.AttentionGroups, "attend", noting_layers),
        patch.object(attention.AttentionGroup, "attend", noting_groups),
    ):
        found = lm.log_probs(INSTANCES, SCHEMA)
    assert max(layers) > 1
    np.testing.assert_allclose(found, separate_log_probs(lm, INSTANCES, SCHEMA), atol=TOLERANCE)


def test_a_layer_that_changes_its_mask_keeps_it(make_lm) -> None:
    # Doge adds what it has learnt of keys to the mask that it is given.
    lm = make_lm("doge")
    with torch.no_grad():
        for name, parameter in lm.network.named_parameters():
            if name.endswith(".A"):
                parameter.normal_()
    expected = separate_log_probs(lm, INSTANCES, SCHEMA)
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), expected, atol=TOLERANCE)


def test_rules_that_groups_do_not_know_are_refused_as_ever() -> None:
    states = torch.ones(1, 1, 2, 4)
    inputs = attention.attention_inputs(torch.ones(2, 2, dtype=torch.bool).tril(), [0])
    with pytest.raises(ValueError, match="softcap"):
        attention.grouped_attention(torch.nn.Module(), states, states, states, **inputs, softcap=30.0)
