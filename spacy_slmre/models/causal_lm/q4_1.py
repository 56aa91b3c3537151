"""Weights at rest in Q4_1, a 4-bit form of llama.cpp, with exactly the values that a model came with.

In a row of weights every 32 have a scale d and a minimum m in half precision, and each is d·q + m with q from
0 to 15: 5 bits a weight. Rounding such values to NF4 once more changes a small model a good deal
(docs/tuning.md has what it costs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

Q4_1 = "q4_1"
"""In a model's config: the method that its weights are quantised by."""
BLOCK = 32
_SUFFIX = f".{Q4_1}"
_HEADER = 4  # bytes of d and m


def pack(weight: Tensor) -> Tensor:
    """Weights in Q4_1.

    Args:
        weight: Of shape (rows, columns), in float32.

    Returns:
        Bytes of shape (rows, columns / 32, 20): d, m, and two weights a byte, of which the 16 lower halves
        come first.

    Raises:
        ValueError: Q4_1 cannot hold these values, so that they would be rounded.
    """
    from gguf import GGMLQuantizationType, quants

    packed = torch.from_numpy(quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_1))
    packed = packed.view(len(weight), -1, _HEADER + BLOCK // 2)
    if not torch.equal(unpack(packed), weight):
        raise ValueError("These weights are not of Q4_1.")
    return packed


def unpack(packed: Tensor) -> Tensor:
    """The inverse of `pack`: shape (rows, columns), in float32."""
    scale, minimum = packed[..., :_HEADER].contiguous().view(torch.float16).float().split(1, -1)
    halves = packed[..., _HEADER:]
    steps = torch.cat([halves & 15, halves >> 4], -1)
    return (steps * scale).add_(minimum).flatten(1)


def save_q4_1(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write a model whose linear layers have values of Q4_1.

    Args:
        model: The model, in float32.
        folder: Where to; it is made.
        dtype: What embeddings, norms and head are rounded to.

    Raises:
        ValueError: They have other values.
    """
    head = model.get_output_embeddings()
    linear = {
        f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name not in linear or (linear[name] is head and not model.config.tie_word_embeddings):
            tensors[name] = tensor.to(dtype)
        elif linear[name] is not head:
            tensors[name + _SUFFIX] = pack(tensor)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "dtype": str(dtype).removeprefix("torch.")}
    config["quantization_config"] = {"quant_method": Q4_1}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def read_q4_1(folder: Path, dtype: torch.dtype) -> Mapping[str, Any]:
    """What `from_pretrained` of a model class takes in place of a folder that `save_q4_1` wrote.

    Args:
        folder: The folder.
        dtype: What all weights are brought to.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    del config.quantization_config
    state = {
        name.removesuffix(_SUFFIX): (unpack(tensor) if name.endswith(_SUFFIX) else tensor).to(dtype)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    return {"config": config, "state_dict": state}
