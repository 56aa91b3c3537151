"""Finding, refusing and loading base models and adapters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.adapter import (
    CONFIG_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    Adapter,
    AdapterRecord,
)
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.generation import generate_answers
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_labels(["place of birth", "place of death", "employer"])
INSTANCES = [
    RelationInstance.from_offsets("Ann was born in Rome.", (0, 3, "PER"), (16, 20, "LOC")),
    RelationInstance.from_offsets("Bo works for the Red Mill.", (0, 2, "PER"), (17, 25, "ORG")),
]


@pytest.fixture
def base_copy(tiny_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def with_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_pickles, r"only pickled weights \(pytorch_model.bin\)"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is no JSON"),
        (lambda folder: edit_config(folder, auto_map={"AutoModel": "x.Y"}), "code from its own folder"),
        (
            lambda folder: edit_config(folder, sliding_window=8, layer_types=["sliding_attention"] * 4),
            "DynamicSlidingWindowLayer",
        ),
        (lambda folder: edit_config(folder, final_logit_softcapping=30.0), "scales its logits"),
    ],
)
def test_unusable_folders_are_refused(base_copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(base_copy)
    with pytest.raises(ModelError, match=message):
        make_small_lm(base=str(base_copy)).load()


def test_absent_models_say_where_was_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match=r"(?s)not installed.*python -m spacy slmre download-base"):
        make_small_lm().load()
    with pytest.raises(ModelError, match="no such folder, no hub id"):
        make_small_lm(base="./nowhere").load()
    with pytest.raises(ModelError, match=r"at revision abc.*hf download nobody/nothing-here"):
        make_small_lm(base="nobody/nothing-here", revision="abc").load()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": "int3"}, "model.dtype"),
        ({"device": "toaster"}, "model.device"),
        ({"quantization": "int8"}, "model.quantization"),
        ({"max_batch_tokens": 0}, "model.max_batch_tokens"),
        ({"base": ""}, "default"),
    ],
)
def test_settings_are_checked_where_they_are_made(setting: dict, message: str) -> None:
    if setting == {"base": ""}:
        assert make_small_lm(**setting).settings.base == hub.PACKAGED_BASE
        return
    with pytest.raises(ModelError, match=message):
        make_small_lm(**setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu() -> None:
    with pytest.raises(ModelError, match="finds no GPU"):
        make_small_lm(device="cuda")


def test_fingerprint_tells_weights_apart(base_copy: Path) -> None:
    before = hub.identify(base_copy, "x").fingerprint
    assert hub.identify(base_copy, "y").fingerprint == before
    data = bytearray((base_copy / "model.safetensors").read_bytes())
    data[-1] ^= 255
    (base_copy / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1]]))
    changed = hub.identify(base_copy, "x").fingerprint
    data[len(data) * 3 // 4] ^= 255
    assert changed is not None and before is not None


# -- four bits -----------------------------------------------------------------------------------------


def test_4bit_weights_dequantised_are_exactly_the_4bit_values(tiny_base: Path) -> None:
    options = {"base": str(tiny_base), "dtype": "float32", "device": "cpu"}
    plain = make_small_lm(**options, quantization=None).log_probs(INSTANCES, SCHEMA)
    dequantised = make_small_lm(**options).load()
    kept = make_small_lm(**options, keep_4bit=True).load()
    layers = [type(module).__name__ for module in kept.network.modules()]
    assert layers.count("Linear4bit") == 4 * 7
    assert "Linear4bit" not in [type(module).__name__ for module in dequantised.network.modules()]
    result = dequantised.log_probs(INSTANCES, SCHEMA)
    np.testing.assert_allclose(kept.log_probs(INSTANCES, SCHEMA), result, atol=1e-4)
    assert np.abs(result - plain).max() > 1e-3


def test_4bit_layers_are_kept_from_repacking(tiny_base: Path) -> None:
    import bitsandbytes as bnb

    lm = make_small_lm(base=str(tiny_base), dtype="float32", device="cpu", keep_4bit=True).load()
    layers = [module for module in lm.network.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    before = layers[0].weight.data.clone()
    lm.log_probs(INSTANCES, SCHEMA)
    assert torch.equal(layers[0].weight.data, before)


# -- adapters ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter_folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random weights, as peft saves it, with our record beside it."""
    from peft import LoraConfig, get_peft_model

    lm = make_small_lm(base=str(tiny_base), quantization=None, dtype="float32", device="cpu").load()
    network = get_peft_model(
        lm.network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    record = AdapterRecord(lm.identity(), PromptStyle(definitions=False), SCHEMA)
    (folder / RECORD_FILE).write_text(json.dumps(record.to_dict()), encoding="utf-8")
    return folder


@pytest.fixture
def adapter_copy(adapter_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(adapter_folder, tmp_path / "adapter")


def plain(**settings: object):
    return make_small_lm(**{"quantization": None, "dtype": "float32", "device": "cpu", **settings})


def test_adapter_brings_base_style_and_labels(adapter_folder: Path, tiny_base: Path) -> None:
    lm = plain(adapter=str(adapter_folder))
    assert lm.settings.base == str(tiny_base)
    assert not lm.style.definitions and lm.schema == SCHEMA
    without = plain(base=str(tiny_base), definitions=False).log_probs(INSTANCES, SCHEMA)
    assert np.abs(lm.log_probs(INSTANCES, SCHEMA) - without).max() > 1e-3


def test_adapter_equals_peft_itself(adapter_folder: Path, tiny_base: Path) -> None:
    from peft import PeftModel

    reference = plain(base=str(tiny_base)).load()
    PeftModel.from_pretrained(reference.network, adapter_folder).eval()
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = reference.network(input_ids=tokens).logits
        found = plain(adapter=str(adapter_folder)).load().network(input_ids=tokens).logits
    # The weights are summed in another order, which a random network blows up.
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_setting_that_contradicts_the_adapter_is_an_error(adapter_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.definitions contradicts the adapter"):
        plain(adapter=str(adapter_folder), definitions=True)
    plain(adapter=str(adapter_folder), definitions=False)


@pytest.mark.parametrize("tuned_with", [None, "nf4"])
def test_the_base_is_loaded_as_the_adapter_was_tuned(
    adapter_copy: Path, adapter_folder: Path, tiny_base: Path, tmp_path: Path, tuned_with: str | None
) -> None:
    record = json.loads((adapter_copy / RECORD_FILE).read_text())
    (adapter_copy / RECORD_FILE).write_text(json.dumps({**record, "quantization": tuned_with}))
    assert make_small_lm(adapter=str(adapter_copy)).quantization == tuned_with
    assert make_small_lm(adapter=str(adapter_copy), quantization="nf4").quantization == "nf4"
    # A saved model follows the adapter that it is given later.
    make_small_lm(adapter=str(adapter_copy)).save(tmp_path / "model", embed=False)
    for adapter, expected in ((str(adapter_copy), tuned_with), (str(adapter_folder), "auto"), (None, "auto")):
        options = {"adapter": adapter, "base": None if adapter else str(tiny_base)}
        assert make_small_lm(**options).restore(tmp_path / "model").quantization == expected


def test_an_adapter_from_before_quantisation_was_recorded(adapter_copy: Path) -> None:
    record = json.loads((adapter_copy / RECORD_FILE).read_text())
    del record["quantization"]
    (adapter_copy / RECORD_FILE).write_text(json.dumps(record))
    assert make_small_lm(adapter=str(adapter_copy)).quantization == "nf4"


def test_adapter_for_another_base(adapter_folder: Path, base_copy: Path) -> None:
    data = bytearray((base_copy / "model.safetensors").read_bytes())
    data[-1000:] = bytes(1000)
    (base_copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"tuned on .* but model\.base = .* has other weights"):
        plain(adapter=str(adapter_folder), base=str(base_copy)).load()


def test_adapter_of_another_shape(adapter_copy: Path, tmp_path: Path, tokenizer) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

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
        plain(adapter=str(adapter_copy), base=str(tmp_path / "other")).load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\0" * 100), "damaged"),
        (
            lambda folder: (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:5000]),
            "damaged",
        ),
        (lambda folder: (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin"), "pickled"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "missing or damaged"),
        (lambda folder: (folder / RECORD_FILE).write_text("{}"), "missing or damaged"),
        (
            lambda folder: (folder / RECORD_FILE).write_text(
                json.dumps(json.loads((folder / RECORD_FILE).read_text()) | {"layout": "two-way-tree.v1"})
            ),
            "does not go with its prompt style",
        ),
        (lambda folder: shutil.rmtree(folder), "no such folder"),
    ],
)
def test_damaged_adapters(adapter_copy: Path, tiny_base: Path, damage, message: str) -> None:
    damage(adapter_copy)
    with pytest.raises(ModelError, match=message):
        plain(adapter=str(adapter_copy), base=str(tiny_base)).load()


def test_adapter_of_another_layout(adapter_copy: Path) -> None:
    record = json.loads((adapter_copy / RECORD_FILE).read_text())
    (adapter_copy / RECORD_FILE).write_text(json.dumps({**record, "layout": "later.v9"}))
    with pytest.raises(ModelError, match=r"attention layout later\.v9"):
        plain(adapter=str(adapter_copy)).load()


def test_adapter_tuned_on_texts_read_two_ways(adapter_copy: Path, tiny_base: Path) -> None:
    one_way = plain(adapter=str(adapter_copy), base=str(tiny_base)).log_probs(INSTANCES, SCHEMA)
    record = json.loads((adapter_copy / RECORD_FILE).read_text())
    record |= {"layout": "two-way-tree.v1", "style": record["style"] | {"two_way": True}}
    (adapter_copy / RECORD_FILE).write_text(json.dumps(record))
    lm = plain(adapter=str(adapter_copy), base=str(tiny_base))
    assert np.abs(lm.log_probs(INSTANCES, SCHEMA) - one_way).max() > 1e-3
    assert Adapter.from_folder(adapter_copy).record.to_dict()["layout"] == "two-way-tree.v1"
    with pytest.raises(ModelError, match=r"model\.two_way contradicts the adapter"):
        plain(adapter=str(adapter_copy), base=str(tiny_base), two_way=False).load()
    with pytest.raises(ModelError, match="score its labels instead"):
        generate_answers(lm, INSTANCES, SCHEMA)


def test_adapter_round_trip(adapter_folder: Path, tmp_path: Path) -> None:
    adapter = Adapter.from_folder(adapter_folder)
    adapter.to_folder(tmp_path / "again")
    again = Adapter.from_folder(tmp_path / "again")
    assert again.weights == adapter.weights and again.record == adapter.record
    assert replace(again, config={}) == replace(adapter, config={})


def test_first_use_within_inference_mode(tiny_base: Path) -> None:
    lm = plain(base=str(tiny_base))
    with torch.inference_mode():
        inside = lm.log_probs(INSTANCES, SCHEMA)
    np.testing.assert_array_equal(lm.log_probs(INSTANCES, SCHEMA), inside)
    assert not any(parameter.is_inference() for parameter in lm.network.parameters())


# -- long contexts -------------------------------------------------------------------------------------


def test_fit_shortens_only_what_is_too_long(make_lm) -> None:
    lm = make_lm()
    words = " ".join(f"w{n}" for n in range(300))
    near = RelationInstance.from_offsets(f"Ann met Bo. {words}", (0, 3, "PER"), (8, 10, "PER"))
    far = RelationInstance.from_offsets(
        f"Ann {words} Bo", (0, 3, "PER"), (len(words) + 5, len(words) + 7, "PER")
    )
    short, none, same = lm.truncate([near, far, INSTANCES[0]], SCHEMA, 60)
    assert none is None and same is INSTANCES[0]
    assert short.text_of(short.head_mention) == "Ann" and short.text_of(short.tail_mention) == "Bo"
    assert len(lm.prompts.contexts([short.context])[0]) <= 60
    assert lm.truncate([far], SCHEMA, 100_000) == [far]


def test_prompt_longer_than_the_model_reads(make_lm) -> None:
    labels = LabelSchema.from_labels([f"relation number {n} of very many" for n in range(400)])
    with pytest.raises(ModelError, match="of the 4096 that the model reads"):
        make_lm().set_labels(labels)
    with pytest.raises(ModelError, match="longer than the 4096 that the model reads"):
        make_lm().log_probs(INSTANCES, labels)


def test_labels_that_the_tokenizer_confuses(make_lm) -> None:
    lm = make_lm()
    assert lm.top_k([], SCHEMA, 2)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="k = 0"):
        lm.top_k(INSTANCES, SCHEMA, 0)


def test_importing_says_nothing_of_missing_kernels() -> None:
    # Of these, `Trainer` has bitsandbytes imported first, which warns on processors with AVX512-BF16.
    code = "import spacy_slmre.study.pretraining"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gemm_4bit_forward" not in done.stderr
