"""Grouped attention equals attention with the whole mask, and is only used where it is exact."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from spacy_slmre.models import attention
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, TOLERANCE, separate_log_probs


def test_a_forward_pass_is_computed_in_groups(make_lm) -> None:
    lm = make_lm(prefix_cache=False)
    groups_by_layer: list[int] = []
    attend_all, attend_one = attention.AttentionGroups.attend, attention.AttentionGroup.attend

    def count_layer(self, *args):
        groups_by_layer.append(0)
        return attend_all(self, *args)

    def count_group(self, *args):
        groups_by_layer[-1] += 1
        return attend_one(self, *args)

    with (
        patch.object(attention, "GROUP_SIZE", 8),
        patch.object(attention.AttentionGroups, "attend", count_layer),
        patch.object(attention.AttentionGroup, "attend", count_group),
    ):
        log_probs = lm.log_probs(INSTANCES, SCHEMA)
    assert max(groups_by_layer) > 1
    np.testing.assert_allclose(log_probs, separate_log_probs(lm, INSTANCES, SCHEMA), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_groups_have_few_shapes_and_exact_results(dtype: torch.dtype) -> None:
    # A computed prefix of 50 keys, and behind it texts that see the prefix and themselves.
    texts = torch.block_diag(*(torch.ones(size, size).tril() for size in (40, 7, 90, 61, 45, 33))).bool()
    mask = torch.cat([torch.ones(len(texts), 50, dtype=torch.bool), texts], dim=1)
    shapes = []
    attend = attention.AttentionGroup.attend

    def record_shape(self, query, keys, values, scaling):
        shapes.append((query.shape[2], sum(keys[part].shape[2] for part in self._parts)))
        return attend(self, query, keys, values, scaling)

    torch.manual_seed(0)
    query = torch.randn(1, 4, len(texts), 8, dtype=dtype, requires_grad=True)
    key = torch.randn(1, 2, mask.shape[1], 8, dtype=dtype)  # each shared by two heads
    with patch.object(attention.AttentionGroup, "attend", record_shape):
        output = attention.AttentionGroups(mask).attend(query, key, key, None)
    assert [n_rows for n_rows, _ in shapes] == [64, 64, 64, 64, 20]
    assert all(n_keys % attention.KEYS_ROUND_TO == 0 and n_keys < mask.shape[1] for _, n_keys in shapes)

    exact, key = query.detach().float().requires_grad_(), key.float()
    expected = torch.nn.functional.scaled_dot_product_attention(exact, key, key, attn_mask=mask, enable_gqa=True)
    expected = expected.transpose(1, 2)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    torch.testing.assert_close(output.float(), expected, atol=tolerance, rtol=0)
    for result in (output, expected):
        result.float().square().sum().backward()
    torch.testing.assert_close(query.grad.float(), exact.grad, atol=10 * tolerance, rtol=10 * tolerance)


def test_a_layer_that_changes_its_mask_keeps_its_own_mask(make_lm) -> None:
    lm = make_lm("doge")  # adds a learned bias for keys to its mask
    with torch.no_grad():
        for name, parameter in lm.network.named_parameters():
            if name.endswith(".A"):
                parameter.normal_()
    expected = separate_log_probs(lm, INSTANCES, SCHEMA)
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), expected, atol=TOLERANCE)


def test_unsupported_attention_rules_are_left_to_transformers() -> None:
    states = torch.ones(1, 1, 2, 4)
    inputs = attention.attention_inputs(torch.ones(2, 2, dtype=torch.bool).tril())
    with pytest.raises(ValueError, match="softcap"):  # transformers' own error
        attention.grouped_attention(torch.nn.Module(), states, states, states, **inputs, softcap=30.0)
