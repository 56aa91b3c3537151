"""Training, exporting and merging LoRA weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import AdapterRecord
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.schema import LabelSchema
from tests.conftest import random_network
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model


def is_merged(lm: SmallLM) -> bool:
    return not any(isinstance(module, BaseTunerLayer) for module in lm.network.modules())


def randomize(lm: SmallLM, std: float) -> None:
    with torch.no_grad():
        for parameter in lm.trainable_parameters():
            parameter.normal_(std=std)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rank": 0}, r"lora\.rank = 0, but it must be at least 1"),
        ({"dropout": 1.0}, r"lora\.dropout"),
        ({"init_lora": "something"}, r'lora\.init_lora = "something", but it must be one of "default", "qera"'),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LoraSettings(**setting)


def test_training_changes_only_the_adapter_and_scores_follow(make_lm) -> None:
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
    parameters = dict(lm.network.named_parameters())
    assert frozen
    for name, value in frozen.items():
        assert torch.equal(parameters[name], value) and parameters[name].grad is None


def test_an_exported_adapter_scores_the_same_and_can_be_trained_further(tiny_base: Path, tmp_path: Path) -> None:
    lm = make_model(base=str(tiny_base))
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    randomize(lm, std=0.2)
    expected = lm.log_probs(INSTANCES, SCHEMA)
    lm.export_adapter().to_folder(tmp_path / "adapter")
    again = make_model(base=str(tiny_base), adapter=str(tmp_path / "adapter"))
    assert again.schema == SCHEMA
    np.testing.assert_allclose(again.log_probs(INSTANCES, SCHEMA), expected, atol=1e-4)
    assert is_merged(again)
    again.begin_training(SCHEMA)
    # The base weights are those of the file to the last bit, not unmerged ones.
    weights = load_file(next(tiny_base.glob("*.safetensors")))["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(again.network.model.layers[0].mlp.up_proj.base_layer.weight, weights)
    assert not is_merged(again)
    assert len(again.trainable_parameters()) == len(lm.trainable_parameters())
    np.testing.assert_allclose(again.log_probs(INSTANCES, SCHEMA), expected, atol=1e-4)
    again.update(INSTANCES, SCHEMA)
    assert all(parameter.grad.abs().sum() > 0 for parameter in again.trainable_parameters())


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("kind", ["tied head", "DoRA", "IA3", "rank stabilized", "two ranks", "one layer"])
def test_all_kinds_of_adapters_score_as_with_peft_and_plain_lora_is_merged(
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
        "rank stabilized": LoraConfig(target_modules=["q_proj"], use_rslora=True, task_type="CAUSAL_LM"),
        "two ranks": LoraConfig(
            target_modules=["q_proj", "up_proj"], rank_pattern={"q_proj": 2}, task_type="CAUSAL_LM"
        ),
        "one layer": LoraConfig(target_modules=["q_proj", "down_proj"], layers_to_transform=[1], task_type="CAUSAL_LM"),
    }[kind]
    adapted = get_peft_model(network, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    lm = make_model(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter")).load()
    assert is_merged(lm) == (kind == "one layer")
    separate = SmallLM(lm.settings, lm.resolved, network=(adapted.get_base_model().eval(), tokenizer))
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), separate.log_probs(INSTANCES, SCHEMA), atol=1e-5)


def test_dropout_does_not_affect_scoring(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=4, dropout=0.5))
    randomize(lm, std=0.3)
    lm.network.train()
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), lm.log_probs(INSTANCES, SCHEMA))


def test_an_adapter_records_all_schemas_that_it_was_tuned_on(tiny_base: Path) -> None:
    lm = make_model(base=str(tiny_base))
    schemas = {"one": SCHEMA, "two": LabelSchema.from_labels(["author"])}
    lm.begin_training(schemas, LoraSettings(rank=2))
    record = lm.export_adapter().record
    assert record.schema is None and record.schemas == schemas and record.quantization is None
    assert AdapterRecord.from_dict(record.to_dict()) == record
    lm.begin_training({"one": SCHEMA})
    assert lm.export_adapter().record.schema == SCHEMA


def test_only_the_top_layers_get_lora_weights(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=2, top_layers=1))
    trained = [name for name, parameter in lm.network.named_parameters() if parameter.requires_grad]
    assert trained and all("layers.3." in name for name in trained)
    with pytest.raises(ModelError, match="has 4 layers"):
        make_lm().begin_training(SCHEMA, LoraSettings(top_layers=5))


def test_only_the_top_layers_of_an_adapter_are_trained(make_lm) -> None:
    lm = make_lm()
    lm.begin_training(SCHEMA, LoraSettings(rank=2))
    lm.begin_training(SCHEMA, LoraSettings(top_layers=2))
    trained = [name for name, parameter in lm.network.named_parameters() if parameter.requires_grad]
    assert trained and all("layers.2." in name or "layers.3." in name for name in trained)


def test_exporting_requires_training(make_lm) -> None:
    with pytest.raises(ValueError, match="begin_training"):
        make_lm().export_adapter()
