"""Adapters on disk, and what they determine about a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE, Adapter, AdapterRecord
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.prompts import PromptStyle
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model


@pytest.fixture(scope="module")
def adapter_folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random weights as peft saves it, with our record."""
    lm = make_model(base=str(tiny_base)).load()
    network = get_peft_model(lm.network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("adapter")
    network.save_pretrained(folder)
    record = AdapterRecord(lm.identity(), PromptStyle(definitions=False), {"": SCHEMA})
    (folder / RECORD_FILE).write_text(json.dumps(record.to_dict()), encoding="utf-8")
    return folder


@pytest.fixture
def adapter_copy(adapter_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(adapter_folder, tmp_path / "adapter")


def edit_record(folder: Path, **changes: object) -> None:
    record = json.loads((folder / RECORD_FILE).read_text())
    (folder / RECORD_FILE).write_text(json.dumps({**record, **changes}))


def test_an_adapter_determines_base_style_and_labels(adapter_folder: Path, tiny_base: Path) -> None:
    lm = make_model(adapter=str(adapter_folder))
    assert lm.resolved.base == str(tiny_base)
    assert not lm.style.definitions and lm.schema == SCHEMA
    without = make_model(base=str(tiny_base), definitions=False).log_probs(INSTANCES, SCHEMA)
    assert np.abs(lm.log_probs(INSTANCES, SCHEMA) - without).max() > 1e-3


def test_an_attached_adapter_equals_peft(adapter_folder: Path, tiny_base: Path) -> None:
    reference = make_model(base=str(tiny_base)).load()
    PeftModel.from_pretrained(reference.network, adapter_folder).eval()
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = reference.network(input_ids=tokens).logits
        found = make_model(adapter=str(adapter_folder)).load().network(input_ids=tokens).logits
    # Merged weights are summed in another order, and a random network amplifies the difference.
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_settings_must_agree_with_the_adapter(adapter_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.definitions conflicts with the adapter"):
        make_model(adapter=str(adapter_folder), definitions=True).load()
    assert not make_model(adapter=str(adapter_folder), definitions=False).style.definitions


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_base_is_loaded_with_the_quantization_of_the_adapter(
    adapter_copy: Path, tiny_base: Path, tmp_path: Path, quantization: str | None
) -> None:
    edit_record(adapter_copy, quantization=quantization)
    assert make_small_lm(adapter=str(adapter_copy)).quantization == quantization
    assert make_small_lm(adapter=str(adapter_copy), quantization="nf4").quantization == "nf4"
    # A saved model keeps its adapter, except if the config names another one since.
    make_small_lm(adapter=str(adapter_copy)).save(tmp_path / "model", embed=False)
    shutil.move(adapter_copy, tmp_path / "moved")
    same = make_small_lm(adapter=str(adapter_copy))
    assert same.restore(tmp_path / "model").quantization == quantization
    other = make_small_lm(adapter=None, base=str(tiny_base))
    assert other.restore(tmp_path / "model").adapter is None
    assert other.restore(tmp_path / "model", temporary=True).quantization == quantization


def test_an_adapter_for_other_weights_is_refused(adapter_folder: Path, tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-1000:] = bytes(1000)
    (base / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"tuned on .* but model\.base = .* has other weights"):
        make_model(adapter=str(adapter_folder), base=str(base)).load()


def test_an_adapter_of_another_shape_is_refused(adapter_copy: Path, tmp_path: Path, tokenizer) -> None:
    (adapter_copy / RECORD_FILE).unlink()
    other = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="does not fit the base model"):
        make_model(adapter=str(adapter_copy), base=str(tmp_path / "other")).load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\0" * 100), "damaged"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:5000]), "damaged"),
        (lambda folder: (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin"), "only pickled weights"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "expected the weights in .* found none"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), r"config\.json:1: the file is damaged: it is not JSON"),
        (
            lambda folder: (folder / RECORD_FILE).write_text("{}"),
            r"slmre_adapter\.json: the file is damaged: the key 'base' is missing",
        ),
        (lambda folder: edit_record(folder, layout="later.v9"), r"prompt layout later\.v9"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_damaged_adapters_are_refused(
    adapter_copy: Path, tiny_base: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(adapter_copy)
    with pytest.raises(ModelError, match=message):
        make_model(adapter=str(adapter_copy), base=str(tiny_base)).load()


def test_adapters_survive_a_round_trip(adapter_folder: Path, tmp_path: Path) -> None:
    adapter = Adapter.from_folder(adapter_folder)
    adapter.to_folder(tmp_path / "again")
    assert Adapter.from_folder(tmp_path / "again") == adapter
