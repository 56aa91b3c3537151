"""Base models stored in Q4_1 keep exactly its values and are only quantized again on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.loading import QUANTIZATIONS, load_base, quant_method, resolve_quantization
from spacy_slmre.models.causal_lm.q4_1 import Q4_1, pack, save_q4_1, unpack
from tests.conftest import round_to_q4_1
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model

CPU = torch.device("cpu")


def test_packed_bytes_equal_those_of_llama_cpp() -> None:
    weight = round_to_q4_1(torch.randn(5, 96, generator=torch.Generator().manual_seed(0)))
    packed = pack(weight)
    assert packed.shape == (5, 3, 20) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed), weight)
    expected = quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_1)
    assert np.array_equal(packed.numpy().reshape(5, -1), expected)


def test_other_values_are_refused_instead_of_rounded(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be represented exactly in Q4_1"):
        pack(torch.randn(2, 64))
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with pytest.raises(ValueError, match="cannot be represented exactly in Q4_1"):
        save_q4_1(model, tmp_path / "base", torch.float32)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loaded_values_equal_the_saved_ones(
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


def test_nf4_quantizes_the_q4_1_values(
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


def test_q4_1_weights_cannot_stay_in_4_bits(q4_1_base: Path) -> None:
    with pytest.raises(ModelError, match=r'stored in Q4_1.*model\.quantization = "nf4"'):
        make_model(base=str(q4_1_base), quantization="auto", keep_4bit=True).load()


def test_the_quantization_depends_on_setting_and_stored_weights(
    q4_1_base: Path, tiny_base: Path, tmp_path: Path
) -> None:
    def resolved(folder: Path) -> list[str | None]:
        return [resolve_quantization(folder, setting) for setting in QUANTIZATIONS]

    assert QUANTIZATIONS == ("auto", "nf4", None)
    assert resolved(q4_1_base) == [Q4_1, "nf4", Q4_1]
    assert resolved(tiny_base) == ["nf4", "nf4", None]
    config = tmp_path / "config.json"
    for own in ({"quant_method": "bitsandbytes"}, {"load_in_4bit": True}):  # old configs name no method
        config.write_text(json.dumps({"quantization_config": own}))
        assert resolved(tmp_path) == ["bitsandbytes"] * 3
    config.write_text(json.dumps({"quantization_config": None}))
    assert resolve_quantization(tmp_path, None) is None


@pytest.mark.parametrize(("quantization", "stored"), [("auto", Q4_1), (None, Q4_1), ("nf4", "bitsandbytes")])
def test_a_saved_model_has_the_quantization_that_it_runs_in(
    q4_1_base: Path, tmp_path: Path, quantization: str | None, stored: str
) -> None:
    lm = make_model(base=str(q4_1_base), quantization=quantization)
    lm.save(tmp_path / "model", embed=True)
    assert quant_method(tmp_path / "model" / "base") == stored
    again = make_model(base=str(q4_1_base), quantization=quantization).restore(tmp_path / "model")
    assert again.folder == tmp_path / "model" / "base"
    assert np.array_equal(again.log_probs(INSTANCES, SCHEMA), lm.log_probs(INSTANCES, SCHEMA))
