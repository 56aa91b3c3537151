"""Attention by groups is used where it is the same, and only there."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from spacy_slmre.models.causal_lm import attention
from tests.models.causal_lm.test_exactness import TOLERANCE, separate_log_probs
from tests.models.causal_lm.test_training import INSTANCES, SCHEMA


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
        patch.object(attention, "GROUP_SIZE", 8),
        patch.object(attention.AttentionGroups, "attend", noting_layers),
        patch.object(attention.AttentionGroup, "attend", noting_groups),
    ):
        found = lm.log_probs(INSTANCES, SCHEMA)
    assert max(layers) > 1
    np.testing.assert_allclose(found, separate_log_probs(lm, INSTANCES, SCHEMA), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_groups_have_few_shapes(dtype: torch.dtype) -> None:
    # A prefix of 50 keys that is there already, and behind it texts that see the prefix and themselves.
    texts = torch.block_diag(*(torch.ones(size, size).tril() for size in (40, 7, 90, 61, 45, 33))).bool()
    mask = torch.cat([torch.ones(len(texts), 50, dtype=torch.bool), texts], dim=1)
    seen = []

    def noting_shapes(self, query, keys, values, scaling):
        seen.append((query.shape[2], sum(keys[part].shape[2] for part in self._parts)))
        return attend(self, query, keys, values, scaling)

    attend = attention.AttentionGroup.attend
    torch.manual_seed(0)
    query = torch.randn(1, 4, len(texts), 8, dtype=dtype, requires_grad=True)
    key = torch.randn(1, 2, mask.shape[1], 8, dtype=dtype)  # two heads share keys
    with patch.object(attention.AttentionGroup, "attend", noting_shapes):
        found = attention.AttentionGroups(mask).attend(query, key, key, None)
    assert [rows for rows, _ in seen] == [64, 64, 64, 64, 20]
    assert all(keys % attention.KEYS_ROUND_TO == 0 for _, keys in seen)
    assert max(keys for _, keys in seen) < mask.shape[1]
    key = key.float()
    whole = torch.nn.functional.scaled_dot_product_attention(
        exact := query.detach().float().requires_grad_(), key, key, attn_mask=mask, enable_gqa=True
    )
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    torch.testing.assert_close(found.float(), whole.transpose(1, 2), atol=tolerance, rtol=0)
    for output in (found, whole.transpose(1, 2)):
        output.float().square().sum().backward()
    torch.testing.assert_close(query.grad.float(), exact.grad, atol=10 * tolerance, rtol=10 * tolerance)


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
    inputs = attention.attention_inputs(torch.ones(2, 2, dtype=torch.bool).tril())
    with pytest.raises(ValueError, match="softcap"):
        attention.grouped_attention(torch.nn.Module(), states, states, states, **inputs, softcap=30.0)
