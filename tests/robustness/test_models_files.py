"""Damaged, incomplete and foreign model folders are refused with one clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spacy_slmre.models import hub
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.adapter import CONFIG_FILE, RECORD_FILE
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.checkpoint import write_origin
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.models.encoder.settings import EncoderSettings
from tests.models.causal_lm.reference import INSTANCES, SCHEMA, make_model

WEIGHTS = "model.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


def edit_json(name: str, **changes: object) -> Damage:
    def edit(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**data, **changes}))

    return edit


def edit_config(**changes: object) -> Damage:
    return edit_json("config.json", **changes)


def edit_weights(change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Damage:
    def edit(folder: Path) -> None:
        save_file(dict(change(load_file(folder / WEIGHTS))), folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def without(part: str) -> Damage:
    return edit_weights(lambda weights: {name: tensor for name, tensor in weights.items() if part not in name})


def rename(old: str, new: str) -> Damage:
    return edit_weights(lambda weights: {name.replace(old, new): tensor for name, tensor in weights.items()})


def write_bytes(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-50])


def index(file: str, **content: object) -> Damage:
    """Give the weights to another file, which an index names; the safetensors file that remains is a decoy."""

    def edit(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder / "decoy.safetensors")
        torch.save(weights, folder / "weights.bin")
        data = content or {"metadata": {}, "weight_map": dict.fromkeys(weights, file)}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(data))

    return edit


LM_FAULTS = {
    "no head": (without("lm_head"), r"1 are missing \(lm_head.weight\)"),
    "no norm": (without("model.norm"), r"1 are missing \(model.norm.weight\)"),
    "renamed": (rename("q_proj", "query"), "4 are missing"),
    "more layers in the config": (edit_config(num_hidden_layers=6), "18 are missing"),
    "fewer layers in the config": (edit_config(num_hidden_layers=2), "18 are unknown"),
    "other shapes": (edit_config(intermediate_size=32), "shapes of the weights differ"),
    "other vocabulary": (edit_config(vocab_size=500), "shapes of the weights differ"),
    "huge vocabulary": (edit_config(vocab_size=10**12), "shapes of the weights differ"),
    "an additional weight": (
        edit_weights(lambda weights: {**weights, "score.weight": torch.zeros(2, 2)}),
        r"1 are unknown \(score.weight\)",
    ),
    "cut weights": (cut(WEIGHTS), r"model\.safetensors is damaged or incomplete"),
    "junk weights": (write_bytes(WEIGHTS, b"junk" * 99), r"model\.safetensors is damaged or incomplete"),
    "empty weights": (write_bytes(WEIGHTS, b""), r"model\.safetensors is damaged or incomplete"),
    "a pickle in an index": (index("weights.bin"), r"names 'weights\.bin', which is not a safetensors file"),
    "another folder in an index": (index("../x.safetensors"), r"names '\.\./x\.safetensors'"),
    "a missing file in an index": (index("part.safetensors"), r"part\.safetensors is missing"),
    "an index of another form": (index("", weight_map=[]), 'has no "weight_map"'),
    "weights of another name": (lambda folder: (folder / WEIGHTS).rename(folder / "x.safetensors"), "no weights"),
    "an adapter": (write_bytes("adapter_config.json", b"{}"), "contains an adapter"),
    "a number as text": (edit_config(hidden_size="x"), r"cannot be loaded.*hidden_size"),
    "no attention heads": (edit_config(num_attention_heads=0), "cannot be loaded"),
    "an unknown activation": (edit_config(hidden_act="nope"), "cannot be loaded.*nope"),
    "an unknown architecture": (edit_config(model_type="nope"), "cannot be loaded.*nope"),
    "an architecture of another type": (edit_config(model_type=["llama"]), "cannot be loaded"),
    "a quantization of another type": (edit_config(quantization_config="x"), "cannot be loaded"),
    "a binary config": (write_bytes("config.json", b"\xff\xfe\0"), r"config\.json: the file is damaged"),
    "a key twice": (write_bytes("config.json", b'{"a": 1, "a": 2}'), "'a' occurs more than once"),
    "a deeply nested config": (write_bytes("config.json", b"[" * 100_000), "nested too deeply"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
    "a junk tokenizer": (write_bytes("tokenizer.json", b"{}"), "cannot be loaded"),
    "a chat template with an error": (write_bytes("chat_template.jinja", b"{{ 1 / 0 }}"), "chat template.*Zero"),
    "a chat template without messages": (write_bytes("chat_template.jinja", b"Hi"), "does not show the user's message"),
    "NaN weights": (
        edit_weights(lambda weights: {name: tensor * float("nan") for name, tensor in weights.items()}),
        "cannot score a pair: The model computed NaN",
    ),
}


@pytest.mark.parametrize(("damage", "message"), LM_FAULTS.values(), ids=LM_FAULTS)
def test_a_faulty_language_model_is_refused_before_the_first_document(
    base: Path, damage: Damage, message: str, blank: Callable
) -> None:
    damage(base)
    nlp = blank()
    model = {"@architectures": "spacy-slmre.SmallLM.v1", "base": str(base), "quantization": None, "dtype": "float32"}
    pipe = nlp.add_pipe("slm_relations", config={"model": model, "labels": ["knows", "employer"]})
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pipe.load()


def test_tied_embeddings_are_not_missing(base: Path) -> None:
    edit_config(tie_word_embeddings=True)(base)
    without("lm_head")(base)
    assert np.isfinite(make_model(base=str(base)).log_probs(INSTANCES, SCHEMA)).all()


@pytest.mark.parametrize("any_layers", [True, False])
@pytest.mark.parametrize("is_decoder", [True, False])
def test_an_encoder_is_no_language_model(
    tiny_encoder: Path, tmp_path: Path, any_layers: bool, is_decoder: bool
) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    edit_config(is_decoder=is_decoder)(base)
    options = {"dtype": torch.float32, "device": torch.device("cpu")}
    # With another config, it looks like a decoder, but has no head.
    message = "are missing" if is_decoder else r"is an encoder \(bert\), not a causal language model"
    with pytest.raises(ModelError, match=message):
        loading.load_base(base, quantization=None, any_layers=any_layers, **options)


@pytest.mark.parametrize("stored", ["q4_1", "sharded", "nf4"])
def test_all_stored_forms_are_checked(stored: str, q4_1_base: Path, tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    if stored == "q4_1":
        shutil.copytree(q4_1_base, base)
        without("layers.2.mlp.up_proj")(base)
    elif stored == "sharded":
        lm = make_model(base=str(tiny_base)).load()
        lm.network.save_pretrained(base, max_shard_size="20KB")
        lm.prompts.tokenizer.save_pretrained(base)
        assert np.isfinite(make_model(base=str(base)).log_probs(INSTANCES, SCHEMA)).all()
        first = sorted(base.glob("*.safetensors"))[0]
        save_file(dict(list(load_file(first).items())[1:]), first, metadata={"format": "pt"})
    else:
        make_model(base=str(tiny_base), quantization="nf4").save(tmp_path / "model", embed=True)
        base = tmp_path / "model" / "base"
        without("layers.2.mlp.up_proj")(base)
    # Bitsandbytes cannot make new weights for missing ones.
    with pytest.raises(ModelError, match="cannot be loaded" if stored == "nf4" else "are missing"):
        make_model(base=str(base), quantization="auto").load()


ENCODER_FAULTS = {
    "no layer norm": (without("layer.1.output.LayerNorm.weight"), "1 are missing"),
    "more layers in the config": (edit_config(num_hidden_layers=3), "16 are missing"),
    "fewer layers in the config": (edit_config(num_hidden_layers=1), "16 are unknown"),
    "other shapes": (edit_config(intermediate_size=32), "shapes of the weights differ"),
    "cut weights": (cut(WEIGHTS), "damaged or incomplete"),
    "a pickle in an index": (index("weights.bin"), "which is not a safetensors file"),
    "a number as text": (edit_config(hidden_size="x"), "cannot be loaded"),
    "a junk tokenizer": (write_bytes("tokenizer.json", b"{}"), "cannot be loaded"),
}


@pytest.mark.parametrize(("damage", "message"), ENCODER_FAULTS.values(), ids=ENCODER_FAULTS)
def test_a_faulty_encoder_is_refused(tiny_encoder: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    damage(base)
    with pytest.raises(ModelError, match=message):
        EncoderClassifier(EncoderSettings(base=str(base), device="cpu")).start(["a", "b"], {"PER"})


def test_heads_for_other_tasks_are_ignored_in_an_encoder(tiny_encoder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    extra = {"cls.predictions.bias": torch.zeros(3), "embeddings.position_ids": torch.arange(192)}
    edit_weights(lambda weights: {**weights, **extra})(base)
    model = EncoderClassifier(EncoderSettings(base=str(base), device="cpu"))
    model.start(["a", "b"], {"PER"})
    assert model.is_loaded


CHANGES = {
    "chat template": write_bytes("chat_template.jinja", b"{{ messages[-1]['content'] }}"),
    "tokenizer": lambda folder: (folder / "tokenizer.json").write_text(
        (folder / "tokenizer.json").read_text().replace("Ġin", "Ġno")
    ),
    "end token": edit_json("tokenizer_config.json", eos_token="<|endoftext|>"),
    "config": edit_config(rms_norm_eps=0.5),
    "weights": edit_weights(lambda weights: {name: tensor + 1 for name, tensor in weights.items()}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("has_origin", [False, True])
def test_whatever_changes_answers_changes_the_fingerprint(base: Path, change: Damage, has_origin: bool) -> None:
    if has_origin:
        write_origin(base, "the original", "original")
    before = hub.identify(base, "x").fingerprint
    assert before == "original" if has_origin else before != "original"
    (base / "README.md").write_text("a note")
    assert hub.identify(base, "x").fingerprint == before
    change(base)
    assert hub.identify(base, "x").fingerprint != before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_pipeline_saved_by_reference_refuses_a_changed_base(base: Path, tmp_path: Path, change: Damage) -> None:
    make_model(base=str(base)).save(tmp_path / "model", embed=False)
    change(base)
    with pytest.raises(ModelError, match="was saved with other weights"):
        make_model(base=str(base)).restore(tmp_path / "model").load()


def test_pipelines_with_equal_weights_are_not_mixed_up_in_the_cache(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path / "cache"))
    make_model(base=str(base)).save(tmp_path / "one", embed=True)
    CHANGES["chat template"](base)
    make_model(base=str(base)).save(tmp_path / "two", embed=True)
    prefixes = []
    for name in ("one", "two"):
        restored = make_model(base=str(base)).restore(tmp_path / name, temporary=True)
        shutil.rmtree(tmp_path / name)
        prefixes.append(restored.prompts.prefix(SCHEMA))
    assert prefixes[0] != prefixes[1]


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lm = make_model(base=str(tiny_base), adapter=None)
    lm.begin_training(SCHEMA, LoraSettings(rank=2, alpha=4))
    folder = tmp_path_factory.mktemp("adapter")
    lm.export_adapter().to_folder(folder)
    return folder


ADAPTER_FAULTS = {
    "a list": (write_bytes(RECORD_FILE, b"[]"), f"{RECORD_FILE}: .*expected an object"),
    "a key twice": (write_bytes(RECORD_FILE, b'{"base": 1, "base": 2}'), f"{RECORD_FILE}: .*more than once"),
    "a base of another form": (edit_json(RECORD_FILE, base="x"), f'{RECORD_FILE}: .*"base" must be'),
    "a base without a name": (edit_json(RECORD_FILE, base={"revision": None}), f"{RECORD_FILE}: .*'name' is missing"),
    "an unknown quantization": (edit_json(RECORD_FILE, quantization="int3"), 'adapter.quantization = "int3"'),
    "a threshold above 1": (edit_json(RECORD_FILE, threshold=2.0), "threshold = 2.0, but it must be between 0 and 1"),
    "a threshold as text": (edit_json(RECORD_FILE, threshold="0.5"), '"threshold" must be'),
    "a style of another form": (edit_json(RECORD_FILE, style={"label_list": "yes"}), f'{RECORD_FILE}: .*"label_list"'),
    "a schema of another form": (edit_json(RECORD_FILE, schema={"labels": 5}), f"{RECORD_FILE}: .*A schema is"),
    "a huge rank": (edit_json(CONFIG_FILE, r=10**7), f"{CONFIG_FILE}: .*rank 10000000"),
    "a rank as text": (edit_json(CONFIG_FILE, r="2"), f"{CONFIG_FILE}: .*rank '2'"),
    "an unknown kind": (edit_json(CONFIG_FILE, peft_type="NOPE"), "does not fit the base model"),
}


@pytest.mark.parametrize(("damage", "message"), ADAPTER_FAULTS.values(), ids=ADAPTER_FAULTS)
def test_a_faulty_adapter_is_refused(
    adapter: Path, tiny_base: Path, tmp_path: Path, damage: Damage, message: str
) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        make_model(adapter=str(folder), base=str(tiny_base)).load()


def test_a_model_in_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ModelError, match="neither an existing folder"):
        make_model(base=str(tmp_path / "loop")).load()


def test_an_encoder_with_damaged_numbers_is_refused_before_the_first_document(tiny_encoder: Path) -> None:
    model = EncoderClassifier(EncoderSettings(base=str(tiny_encoder), device="cpu", dtype="float32"))
    model.start(SCHEMA.names, {"PER", "LOC"})
    model.check(SCHEMA)
    with torch.no_grad():
        model.network.head.output.bias[0] = float("nan")
    with pytest.raises(ModelError, match="cannot score a pair: The encoder computed NaN"):
        model.check(SCHEMA)
