"""Packed, cached, best-first scoring equals separate prompts in which every label is computed."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models import attention, packing
from spacy_slmre.models.causal_lm import scoring
from spacy_slmre.schema import LabelSchema
from tests.models.causal_lm.reference import TOLERANCE, instance_lists, schemas, separate_log_probs

BORN = RelationInstance.from_offsets("Ann was born in Rome", (0, 3, "PER"), (16, 20, "LOC"))
MANY_LABELS = LabelSchema.from_labels([f"relation {n} of {n % 7}" for n in range(99)])


@pytest.fixture(params=["llama", "qwen2", "smollm3"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    instances=instance_lists(),
    schema=schemas(),
    budget=st.sampled_from([1, 90, 1024]),
    cache=st.booleans(),
    group_size=st.sampled_from([1, 20, attention.GROUP_SIZE]),
    keys_round_to=st.sampled_from([1, attention.KEYS_ROUND_TO]),
)
def test_packed_scores_equal_those_of_separate_prompts(
    make_lm, architecture, instances, schema, budget, cache, group_size, keys_round_to
) -> None:
    lm = make_lm(architecture, max_batch_tokens=budget, prefix_cache=cache)
    columns = range(0, len(schema.labels), 1 + len(schema.labels) // 10)  # of many labels, only some
    expected = separate_log_probs(lm, instances[:2], schema, columns)
    for training in (False, True):
        lm.network.train(training)
        with patch.object(attention, "GROUP_SIZE", group_size), patch.object(attention, "KEYS_ROUND_TO", keys_round_to):
            log_probs = lm.log_probs(instances, schema)
        assert log_probs.shape == (len(instances), len(schema.labels))
        np.testing.assert_allclose(log_probs[:2, columns], expected, atol=TOLERANCE)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, atol=1e-6)
        assert lm.network.training is training


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=instance_lists(), schema=schemas(), k=st.integers(1, 5), data=st.data())
def test_top_k_is_exact(make_lm, architecture, instances, schema, k, data) -> None:
    lm = make_lm(architecture)
    n_labels = len(schema.labels)
    allowed = None
    if data.draw(st.booleans()):
        flags = st.lists(st.booleans(), min_size=n_labels, max_size=n_labels)
        allowed = np.array([data.draw(flags) for _ in instances], dtype=bool).reshape(len(instances), n_labels)
    masked = lm.log_probs(instances, schema, allowed)
    if allowed is not None:
        expected = separate_log_probs(lm, instances[:2], schema, allowed=allowed)
        np.testing.assert_allclose(masked[:2], expected, atol=TOLERANCE)
    columns, best = lm.top_k(instances, schema, k, allowed)
    assert columns.shape == best.shape == (len(instances), min(k, n_labels))
    np.testing.assert_allclose(best, -np.sort(-masked, axis=1)[:, :k], atol=TOLERANCE)
    found = best > -np.inf
    np.testing.assert_allclose(np.take_along_axis(masked, columns, axis=1)[found], best[found], atol=TOLERANCE)


def test_the_prefix_is_recomputed_when_weights_change(make_lm) -> None:
    schema = LabelSchema.from_labels(["place of birth", "employer"])
    lm = make_lm()
    before = lm.log_probs([BORN], schema)
    np.testing.assert_array_equal(lm.log_probs([BORN], schema), before)
    with torch.no_grad():
        lm.network.model.layers[0].self_attn.v_proj.weight.mul_(-1.0)
    after = lm.log_probs([BORN], schema)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, separate_log_probs(lm, [BORN], schema), atol=TOLERANCE)


def test_each_schema_has_its_own_prefix(make_lm) -> None:
    lm = make_lm()
    first, second = ["place of birth", "employer"], ["employer", "author", "sibling"]
    for labels in (first, second, first):
        schema = LabelSchema.from_labels(labels)
        expected = separate_log_probs(lm, [BORN], schema)
        np.testing.assert_allclose(lm.log_probs([BORN], schema), expected, atol=TOLERANCE)


def test_sequences_respect_the_token_limit_when_all_labels_are_scored(make_lm) -> None:
    lm = make_lm(max_batch_tokens=300)
    mentions = tuple(Mention(5 * n, 5 * n + 4, "PER") for n in range(6))
    context = Context(" ".join(f"Ann{n}" for n in range(6)), mentions)
    instances = [RelationInstance(context, h, t) for h in range(6) for t in range(6) if h != t]
    with patch.object(scoring, "forward", wraps=scoring.forward) as forward:
        lm.log_probs(instances, MANY_LABELS)
    prefix = len(lm.prompts.prefix(MANY_LABELS))
    lengths = [len(call.args[1]) - prefix for call in forward.call_args_list]
    assert len(lengths) > 4 and 200 < max(lengths) <= 300 + 4 * packing.ROUND_TO
