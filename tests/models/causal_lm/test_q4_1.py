"""Base models that lie in Q4_1: exactly its values, never rounded again unless asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.base import ModelError, load_base, quant_method, resolve_quantization
from spacy_slmre.models.causal_lm.q4_1 import Q4_1, pack, save_q4_1, unpack
from spacy_slmre.models.packaged import install_distribution
from spacy_slmre.schema import LabelSchema
from tests.conftest import round_to_q4_1

CPU = torch.device("cpu")
SCHEMA = LabelSchema.from_labels(["place of birth", "employer"])
INSTANCES = [RelationInstance.from_offsets("Ann was born in Rome.", (0, 3, "PER"), (16, 20, "LOC"))]


def test_bytes_are_those_of_llama_cpp() -> None:
    weight = round_to_q4_1(torch.randn(5, 96, generator=torch.Generator().manual_seed(0)))
    packed = pack(weight)
    assert packed.shape == (5, 3, 20) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed), weight)
    expected = quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_1)
    assert np.array_equal(packed.numpy().reshape(5, -1), expected)


def test_other_values_are_not_rounded_in_silence(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not of Q4_1"):
        pack(torch.randn(2, 64))
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with pytest.raises(ValueError, match="not of Q4_1"):
        save_q4_1(model, tmp_path / "base", torch.float32)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_come_back_exactly(
    q4_1_base: Path, rounded: PreTrainedModel, quantization: str | None, dtype: torch.dtype
) -> None:
    model, _ = load_base(q4_1_base, quantization=quantization, dtype=dtype, device=CPU)
    assert not model.training and model.config._attn_implementation == "sdpa"
    found, expected = model.state_dict(), rounded.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(dtype)), name
    for (name, own), other in zip(model.named_buffers(), rounded.buffers(), strict=True):
        assert torch.equal(own, other), name


def test_tied_embeddings_are_written_once(
    rounded: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = type(rounded.config).from_dict({**rounded.config.to_dict(), "tie_word_embeddings": True})
    tied = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tied.load_state_dict(rounded.state_dict())
    tied.tie_weights()
    save_q4_1(tied, tmp_path / "base", torch.float32)
    tokenizer.save_pretrained(tmp_path / "base")
    model, _ = load_base(tmp_path / "base", quantization="auto", dtype=torch.float32, device=CPU)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, tied.lm_head.weight)


def test_nf4_on_top_is_what_nf4_makes_of_the_values(
    q4_1_base: Path, rounded: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    rounded.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    options = {"quantization": "nf4", "dtype": torch.float32, "device": CPU}
    found, expected = (load_base(folder, **options)[0].state_dict() for folder in (q4_1_base, plain))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(found[name], expected[name])
    assert not torch.equal(found[name], rounded.state_dict()[name])
    kept, _ = load_base(q4_1_base, keep_4bit=True, **options)
    assert type(kept.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


def test_nothing_computes_in_q4_1(q4_1_base: Path) -> None:
    with pytest.raises(ModelError, match=r'lie in Q4_1.*model\.quantization = "nf4"'):
        make_small_lm(base=str(q4_1_base), keep_4bit=True).load()


def test_which_form_the_weights_have(q4_1_base: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert [resolve_quantization(q4_1_base, one) for one in loading.QUANTIZATIONS] == [Q4_1, "nf4", Q4_1]
    assert [resolve_quantization(tiny_base, one) for one in loading.QUANTIZATIONS] == ["nf4", "nf4", None]
    config = tmp_path / "config.json"
    for own in ({"quant_method": "bitsandbytes"}, {"load_in_4bit": True}):  # older ones name no method
        config.write_text(json.dumps({"quantization_config": own}))
        assert [resolve_quantization(tmp_path, one) for one in loading.QUANTIZATIONS] == ["bitsandbytes"] * 3
    config.write_text(json.dumps({"quantization_config": None}))
    assert resolve_quantization(tmp_path, None) is None


@pytest.mark.parametrize(("quantization", "lies"), [("auto", Q4_1), (None, Q4_1), ("nf4", "bitsandbytes")])
def test_a_saved_model_holds_the_bits_that_it_runs_in(
    q4_1_base: Path, tmp_path: Path, quantization: str | None, lies: str
) -> None:
    options = {"quantization": quantization, "dtype": "float32", "device": "cpu"}
    lm = make_small_lm(base=str(q4_1_base), **options)
    lm.save(tmp_path / "model", embed=True)
    assert quant_method(tmp_path / "model" / "base") == lies
    again = make_small_lm(base=str(q4_1_base), **options).restore(tmp_path / "model")
    assert again.folder == tmp_path / "model" / "base"
    assert np.array_equal(again.log_probs(INSTANCES, SCHEMA), lm.log_probs(INSTANCES, SCHEMA))


def test_packaged_base_has_the_values_of_its_gguf(real_base: str) -> None:
    lm = make_small_lm(base=real_base, adapter=None, dtype="float32", device="cpu")
    assert resolve_quantization(lm.locate(), "auto") == Q4_1
    # The converted model lies in the user's cache; this environment may lack the file that it was made from.
    tensors = {tensor.name: tensor for tensor in GGUFReader(install_distribution()).tensors}
    for name, own in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        tensor = tensors[f"blk.7.{name}.weight"]
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        found = lm.network.get_parameter(f"model.layers.7.{own}.weight")
        assert np.array_equal(found.detach().numpy(), expected)
