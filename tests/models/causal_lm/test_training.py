"""The loss over packed sequences is that of separate prompts, and trains what scoring uses."""

from __future__ import annotations

import gc
import math
import shutil
import weakref
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import as_batch, packed_loss
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema
from tests.conftest import random_network
from tests.models.causal_lm.test_exactness import instance_lists, schemas
from tests.models.causal_lm.test_loading import plain

SCHEMA = LabelSchema.from_labels(["place of birth", "place of death", "place", "member of", "employer"])
TEXT = "Ann Lee was born in Rome and works for the Red Mill"
CONTEXT = Context(TEXT, (Mention(0, 7, "PER"), Mention(20, 24, "LOC"), Mention(43, 51, "ORG")))


def labelled(instances, schema) -> list[RelationInstance]:
    return [
        RelationInstance(one.context, one.head, one.tail, schema.names[n % len(schema.names)])
        for n, one in enumerate(instances)
    ]


INSTANCES = labelled(
    [RelationInstance(CONTEXT, head, tail) for head in range(3) for tail in range(3) if head != tail]
    + [RelationInstance.from_offsets(TEXT.upper(), (0, 7, "PER"), (20, 24, "LOC"))],
    SCHEMA,
)


def separate_loss(lm, instance, schema, objective="trie") -> torch.Tensor:
    """The loss of one instance from a prompt of its own, written without tree or packing."""
    answers = lm.prompts.answers(schema)
    answer = answers[schema.index[instance.label]]
    prompt = (
        lm.prompts.prefix(schema)
        + lm.prompts.contexts([instance.context])[0]
        + lm.prompts.queries([instance])[0]
    )
    logits = lm.network(input_ids=torch.tensor([prompt + answer])).logits[0]
    loss = torch.zeros(())
    for depth, token in enumerate(answer):
        row = logits[len(prompt) + depth - 1]
        if objective == "lm":
            loss = loss - row.log_softmax(-1)[token]
            continue
        siblings = sorted({a[depth] for a in answers if a[:depth] == answer[:depth]})
        loss = loss - row[siblings].log_softmax(-1)[siblings.index(token)]
    return loss


def gradients(lm) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in lm.network.named_parameters() if p.requires_grad}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=instance_lists(),
    schema=schemas(),
    room=st.sampled_from([64, 400]),
    seed=st.sampled_from([None, 3]),
    two_way=st.booleans(),
)
def test_packed_loss_is_the_log_probability_of_scoring(make_lm, found, schema, room, seed, two_way) -> None:
    instances = labelled(found, schema)
    if len(schema.labels) == 1 or not instances:
        return
    lm = make_lm(style=PromptStyle(two_way=two_way))
    sequences = TrainingSequences(lm.prompts, instances, schema, room=room, seed=seed)
    with torch.no_grad():
        total = sum(float(packed_loss(lm.network, as_batch(sequence))) for sequence in sequences)
    gold = [schema.index[instance.label] for instance in instances]
    expected = -lm.log_probs(instances, schema)[np.arange(len(gold)), gold].sum()
    assert total == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert sorted(row for sequence in sequences for row in sequence.instances) == list(range(len(instances)))
    assert sum(sequence.count for sequence in sequences) == len(instances)
    sizes = [sequences.size(position) for position in range(len(sequences))]
    assert sizes == [len(sequence.packed.tokens) for sequence in sequences]


@pytest.mark.parametrize("objective", ["trie", "lm"])
def test_gradients_are_those_of_separate_prompts(make_lm, objective) -> None:
    packed, separate = make_lm("qwen2"), make_lm("qwen2")
    for lm in (packed, separate):
        lm.begin_training(SCHEMA, LoraSettings(rank=4, alpha=8))
        for name, parameter in lm.network.named_parameters():
            if "lora_B" in name:  # zero at first, and then no gradient would reach lora_A
                torch.manual_seed(1)
                torch.nn.init.normal_(parameter, std=0.1)
    sequences = TrainingSequences(packed.prompts, INSTANCES, SCHEMA, room=100, objective=objective)
    assert len(sequences) > 1
    losses = [packed_loss(packed.network, as_batch(sequence)) for sequence in sequences]
    count = sum(sequence.count for sequence in sequences)
    sum(losses).div(count).backward()
    expected = sum(separate_loss(separate, one, SCHEMA, objective) for one in INSTANCES) / count
    expected.backward()
    assert sum(losses).item() / count == pytest.approx(expected.item(), rel=1e-4)
    for name, gradient in gradients(separate).items():
        torch.testing.assert_close(gradients(packed)[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_lm_objective_counts_answer_tokens(make_lm) -> None:
    lm = make_lm()
    sequences = TrainingSequences(lm.prompts, INSTANCES, SCHEMA, room=2000, objective="lm")
    answers = lm.prompts.answers(SCHEMA)
    assert sum(s.count for s in sequences) == sum(len(answers[SCHEMA.index[i.label]]) for i in INSTANCES)


def test_update_gives_loss_and_gradients(make_lm) -> None:
    lm = make_lm(max_batch_tokens=60)
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    loss = lm.update(INSTANCES, SCHEMA)
    gold = [SCHEMA.index[instance.label] for instance in INSTANCES]
    assert loss == pytest.approx(-lm.log_probs(INSTANCES, SCHEMA)[range(len(gold)), gold].mean(), rel=1e-4)
    once = gradients(lm)
    lm.update(INSTANCES, SCHEMA)  # gradients add up, as spaCy's optimizers expect
    torch.testing.assert_close(
        gradients(lm)["model.layers.3.mlp.up_proj.lora_B.default.weight"],
        2 * once["model.layers.3.mlp.up_proj.lora_B.default.weight"],
    )
    assert lm.update(INSTANCES, SCHEMA, weights=[0.0] * len(INSTANCES)) == 0.0
    assert lm.update([], SCHEMA) == 0.0
    dropped = {lm.update(INSTANCES, SCHEMA, drop=0.5) for _ in range(2)}
    assert all(math.isfinite(value) for value in dropped)
    # What is no number leaves nothing behind that would spoil the next step.
    assert math.isnan(lm.update(INSTANCES, SCHEMA, weights=[math.nan] * len(INSTANCES)))
    assert all(parameter.grad is None for parameter in lm.trainable_parameters())


def is_merged(lm: SmallLM) -> bool:
    (merged,) = {module.merged for module in lm.network.modules() if isinstance(module, BaseTunerLayer)}
    return merged


def test_training_changes_the_adapter_only_and_scores_follow(make_lm) -> None:
    lm = make_lm()
    before = lm.log_probs(INSTANCES, SCHEMA)
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), before, atol=1e-6)
    frozen = {name: p.clone() for name, p in lm.network.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(lm.trainable_parameters(), lr=0.003)
    losses = []
    for _ in range(30):
        losses.append(lm.update(INSTANCES, SCHEMA))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.3 * losses[0]
    columns, _ = lm.top_k(INSTANCES, SCHEMA)
    assert [SCHEMA.names[column] for column in columns[:, 0]] == [one.label for one in INSTANCES]
    for name, parameter in lm.network.named_parameters():
        if name in frozen:
            torch.testing.assert_close(parameter, frozen[name], rtol=0, atol=0)
            assert parameter.grad is None


def test_kept_adapter_is_saved_and_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    lm = plain(base=str(tiny_base))
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    with torch.no_grad():
        for parameter in lm.trainable_parameters():
            parameter.normal_(std=0.2)
    expected = lm.log_probs(INSTANCES, SCHEMA)
    lm.export_adapter().to_folder(tmp_path / "adapter")
    again = plain(base=str(tiny_base), adapter=str(tmp_path / "adapter"))
    assert again.schema == SCHEMA
    np.testing.assert_allclose(again.log_probs(INSTANCES, SCHEMA), expected, atol=1e-4)
    assert is_merged(again)  # one product a layer while it scores
    again.begin_training(SCHEMA)  # the base's weights are again those of its files, to the last bit
    weights = load_file(next(tiny_base.glob("*.safetensors")))["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(again.network.model.layers[0].mlp.up_proj.base_layer.weight, weights)
    assert not is_merged(again)
    assert len(again.trainable_parameters()) == len(lm.trainable_parameters())
    np.testing.assert_allclose(again.log_probs(INSTANCES, SCHEMA), expected, atol=1e-4)
    again.update(INSTANCES, SCHEMA)
    assert all(parameter.grad.abs().sum() > 0 for parameter in again.trainable_parameters())


def test_weights_are_loaded_anew_one_at_a_time(tiny_base: Path, tmp_path: Path) -> None:
    lm = plain(base=str(tiny_base))
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    lm.export_adapter().to_folder(tmp_path / "adapter")
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    lm = plain(base=str(base), adapter=str(tmp_path / "adapter"))
    expected = lm.log_probs(INSTANCES, SCHEMA)
    base.rename(tmp_path / "away")
    with pytest.raises(ModelError, match="base"):
        lm.begin_training(SCHEMA)
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), expected)
    (tmp_path / "away").rename(base)
    before, load_base, still_there = weakref.ref(lm.network), loading.load_base, []

    def noting(*args, **kwargs):
        gc.collect()
        still_there.append(before() is not None)
        return load_base(*args, **kwargs)

    with patch.object(loading, "load_base", noting):
        lm.begin_training(SCHEMA)
    assert still_there == [False]


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("kind", ["tied head", "DoRA", "IA3"])
def test_adapters_that_change_more_than_a_layer_are_not_merged(
    kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    network = random_network("llama", len(tokenizer))
    network.config.tie_word_embeddings = kind == "tied head"
    network.tie_weights()
    network.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config: PeftConfig = {
        "tied head": LoraConfig(target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"),
        "DoRA": LoraConfig(target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM"),
        "IA3": IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
    }[kind]
    adapted = get_peft_model(network, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    lm = plain(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter")).load()
    assert not is_merged(lm)
    apart = SmallLM(lm.settings, network=(adapted.get_base_model().eval(), tokenizer))
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), apart.log_probs(INSTANCES, SCHEMA), atol=1e-5)


def test_dropout_waits_for_training(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=4, dropout=0.5))
    for parameter in lm.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), lm.log_probs(INSTANCES, SCHEMA))


def test_adapter_of_several_schemas_keeps_them_all(tiny_base: Path) -> None:
    lm = plain(base=str(tiny_base))
    schemas = {"one": SCHEMA, "two": LabelSchema.from_labels(["author"])}
    lm.begin_training(schemas, LoraSettings(rank=2))
    record = lm.export_adapter().record
    assert record is not None and record.schema is None and record.quantization is None
    assert type(record).from_dict(record.to_dict()) == record and record.schemas == schemas


def test_only_the_top_layers_get_weights(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=2, top_layers=1))
    trained = [name for name, parameter in lm.network.named_parameters() if parameter.requires_grad]
    assert trained and all("layers.3." in name for name in trained)
    with pytest.raises(ValueError, match="has 4 layers"):
        make_lm().begin_training(SCHEMA, LoraSettings(top_layers=5))


def test_what_cannot_be_trained_is_refused(make_lm) -> None:
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
        TrainingSequences(lm.prompts, INSTANCES, SCHEMA, room=500, objective="mlm")
