"""Finding, checking and identifying base models."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spacy_slmre.models import hub
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.checkpoint import write_origin


@pytest.fixture
def base_copy(tiny_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


def edit_config(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickle_weights, r"only pickled weights \(pytorch_model.bin\)"),
        (lambda folder: (folder / "model.safetensors").unlink(), "contains no weights"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            r"config\.json:1: the file is damaged: it is not JSON",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected an object, found a list"),
        (edit_config(auto_map={"AutoModel": "x.Y"}), "requires custom code"),
        (edit_config(sliding_window=8, layer_types=["sliding_attention"] * 4), "DynamicSlidingWindowLayer"),
        (edit_config(final_logit_softcapping=30.0), "scales its logits"),
    ],
)
def test_unusable_folders_are_refused(base_copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(base_copy)
    with pytest.raises(ModelError, match=message):
        make_small_lm(base=str(base_copy)).load()


def test_a_missing_model_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match=r"(?s)not installed.*python -m spacy slmre download-base"):
        make_small_lm().load()
    with pytest.raises(ModelError, match="neither an existing folder, nor a hub id"):
        make_small_lm(base="./nowhere").load()
    with pytest.raises(ModelError, match=r"at revision abc.*hf download nobody/nothing-here"):
        make_small_lm(base="nobody/nothing-here", revision="abc").load()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="slmre download-base all-minilm-l6-v2"):
        hub.locate_base(hub.PACKAGED_ENCODER)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv(hub.CACHE_VARIABLE, "/own")
    assert hub.packaged_folder() == Path("/own/smollm2-135m-instruct-q4_1")
    monkeypatch.delenv(hub.CACHE_VARIABLE)
    assert hub.cache_folder() == Path("/xdg/spacy-slmre")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(ModelError, match="finds no GPU"):
        hub.resolve_device("cuda")


def test_an_empty_cuda_visible_devices_hides_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # CUDA reads the variable once, so torch still finds the GPU if it is set later, as `--gpu-id -1` does.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hub.resolve_device("auto").type == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hub.resolve_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="finds no GPU"):
        hub.resolve_device("cuda")


@pytest.mark.parametrize(("has_instructions", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool, dtype: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or has_instructions

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert hub.resolve_dtype("auto", torch.device("cuda")) == dtype


def test_the_fingerprint_depends_on_the_weights(base_copy: Path) -> None:
    before = hub.identify(base_copy, "x").fingerprint
    edit_config(transformers_version="0.1", dtype="float16")(base_copy)
    assert hub.identify(base_copy, "y").fingerprint == before
    data = bytearray((base_copy / "model.safetensors").read_bytes())
    data[-1000:] = bytes(byte ^ 255 for byte in data[-1000:])
    (base_copy / "model.safetensors").write_bytes(data)
    assert hub.identify(base_copy, "x").fingerprint not in (before, None)


def test_a_converted_model_keeps_the_fingerprint_of_its_origin(base_copy: Path) -> None:
    write_origin(base_copy, "a file", "original")
    assert hub.identify(base_copy, "x") == hub.BaseModelInfo("x", None, "original")


def test_the_revision_of_a_cached_model_is_its_commit(base_copy: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.parent.mkdir()
    base_copy.rename(snapshot)
    assert hub.identify(snapshot, "owner/model", "main").revision == "0123abc"


def test_loading_hides_the_warning_about_an_unused_kernel(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    # Independent of what libraries in other tests did to loggers.
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    with caplog.at_level(logging.WARNING, logger=logger.name):
        with hub.quiet_loading():
            logger.warning("gemm_4bit_forward is not available")
            logger.warning("another problem")
        logger.warning("gemm_4bit_forward after loading")
    assert [record.getMessage() for record in caplog.records] == ["another problem", "gemm_4bit_forward after loading"]
