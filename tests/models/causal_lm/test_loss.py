"""The loss over packed sequences equals that of separate prompts, and is the negative log of the score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import as_batch, packed_loss
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.schema import LabelSchema
from tests.models.causal_lm.reference import (
    CONTEXT,
    INSTANCES,
    SCHEMA,
    instance_lists,
    schemas,
    separate_loss,
    with_labels,
)

GOLD = [SCHEMA.index[instance.label] for instance in INSTANCES]


def gradients(lm) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in lm.network.named_parameters() if p.requires_grad}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    instances=instance_lists(), schema=schemas(), max_tokens=st.sampled_from([64, 400]), seed=st.sampled_from([None, 3])
)
def test_the_packed_loss_is_the_negative_log_of_the_score(make_lm, instances, schema, max_tokens, seed) -> None:
    if len(schema.labels) == 1 or not instances:
        return
    instances = with_labels(instances, schema)
    lm = make_lm()
    sequences = TrainingSequences(lm.prompts, instances, schema, max_tokens=max_tokens, seed=seed)
    with torch.no_grad():
        total = sum(float(packed_loss(lm.network, as_batch(sequence))) for sequence in sequences)
    gold = [schema.index[instance.label] for instance in instances]
    expected = -lm.log_probs(instances, schema)[np.arange(len(gold)), gold].sum()
    assert total == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert sorted(row for sequence in sequences for row in sequence.instances) == list(range(len(instances)))
    assert sum(sequence.count for sequence in sequences) == len(instances)
    sizes = [sequences.size(index) for index in range(len(sequences))]
    assert sizes == [len(sequence.packed.tokens) for sequence in sequences]


@pytest.mark.parametrize("objective", ["trie", "lm"])
def test_packed_gradients_equal_those_of_separate_prompts(make_lm, objective) -> None:
    packed, separate = make_lm("qwen2"), make_lm("qwen2")
    for lm in (packed, separate):
        lm.begin_training(SCHEMA, LoraSettings(rank=4, alpha=8))
        for name, parameter in lm.network.named_parameters():
            if "lora_B" in name:  # starts at zero, which would block the gradients of lora_A
                torch.manual_seed(1)
                torch.nn.init.normal_(parameter, std=0.1)
    sequences = TrainingSequences(packed.prompts, INSTANCES, SCHEMA, max_tokens=100, objective=objective)
    assert len(sequences) > 1
    losses = [packed_loss(packed.network, as_batch(sequence)) for sequence in sequences]
    count = sum(sequence.count for sequence in sequences)
    sum(losses).div(count).backward()
    expected = sum(separate_loss(separate, one, SCHEMA, objective) for one in INSTANCES) / count
    expected.backward()
    assert sum(losses).item() / count == pytest.approx(expected.item(), rel=1e-4)
    for name, gradient in gradients(separate).items():
        torch.testing.assert_close(gradients(packed)[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_the_lm_objective_counts_answer_tokens(make_lm) -> None:
    lm = make_lm()
    sequences = TrainingSequences(lm.prompts, INSTANCES, SCHEMA, max_tokens=2000, objective="lm")
    answers = lm.prompts.answers(SCHEMA)
    assert sum(sequence.count for sequence in sequences) == sum(len(answers[column]) for column in GOLD)


def test_update_returns_the_loss_and_accumulates_gradients(make_lm) -> None:
    lm = make_lm(max_batch_tokens=60)
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    loss = lm.update(INSTANCES, SCHEMA)
    assert loss == pytest.approx(-lm.log_probs(INSTANCES, SCHEMA)[range(len(GOLD)), GOLD].mean(), rel=1e-4)
    once = gradients(lm)
    lm.update(INSTANCES, SCHEMA)
    name = "model.layers.3.mlp.up_proj.lora_B.default.weight"
    torch.testing.assert_close(gradients(lm)[name], 2 * once[name])
    assert lm.update(INSTANCES, SCHEMA, weights=[0.0] * len(INSTANCES)) == 0.0
    assert lm.update([], SCHEMA) == 0.0
    assert all(math.isfinite(lm.update(INSTANCES, SCHEMA, drop=0.5)) for _ in range(2))


def test_a_loss_that_is_nan_clears_the_gradients(make_lm) -> None:
    lm = make_lm()
    lm.update(INSTANCES, SCHEMA)
    assert math.isnan(lm.update(INSTANCES, SCHEMA, weights=[math.nan] * len(INSTANCES)))
    assert all(parameter.grad is None for parameter in lm.trainable_parameters())


def test_untrainable_instances_are_refused(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=2))
    with pytest.raises(ValueError, match="has no label, but the labels are: place of birth"):
        lm.update([RelationInstance(CONTEXT, 0, 1)], SCHEMA)
    with pytest.raises(ValueError, match='the label "spouse"'):
        lm.update([RelationInstance(CONTEXT, 0, 1, "spouse")], SCHEMA)
    single = LabelSchema.from_labels(["only"], negative_label=None)
    with pytest.raises(ValueError, match="nothing to learn"):
        lm.update([RelationInstance(CONTEXT, 0, 1, "only")], single)
    with pytest.raises(ValueError, match="trie, lm"):
        TrainingSequences(lm.prompts, INSTANCES, SCHEMA, max_tokens=500, objective="mlm")
