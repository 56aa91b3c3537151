"""Attention by groups is used where it is the same, and only there."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import torch

from spacy_slmre.slm import attention, packing

from .test_exactness import TOLERANCE, separate_log_probs
from .test_training import INSTANCES, SCHEMA


def test_a_pass_is_computed_in_groups(make_lm) -> None:
    lm = make_lm(prefix_cache=False)
    groups = []
    plain = attention.AttentionGroup.attend

    def noting(self, *args):
        groups.append(self)
        return plain(self, *args)

    with (
        patch.object(packing, "LEAST_GROUP", 8),
        patch.object(attention.AttentionGroup, "attend", noting),
    ):
        found = lm.log_probs(INSTANCES, SCHEMA)
    assert any(one is not other for one, other in pairwise(groups))  # several in a layer
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
