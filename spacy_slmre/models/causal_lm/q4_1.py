"""Q4_1, a 4-bit format of llama.cpp, which keeps the exact values of a model published in that format.

Every 32 weights of a row share a scale d and a minimum m in half precision; each is d·q + m with q from 0 to 15: 5 bits
per weight in total. Requantizing such values to NF4 changes a small model considerably (see docs/guides/tune.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spacy_slmre.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, explain_errors, load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Q4_1 = "q4_1"
"""Name of this quantization method in a model's config."""
BLOCK = 32
_SUFFIX = f".{Q4_1}"
_HEADER = 4  # bytes of d and m


def pack(weight: Tensor) -> Tensor:
    """Pack weights into Q4_1.

    Args:
        weight: float32 (rows, columns).

    Returns:
        Bytes (rows, columns / 32, 20): d, m, and two weights per byte, the 16 lower halves first.

    Raises:
        ValueError: The weights cannot be represented exactly.
    """
    from gguf import GGMLQuantizationType, quants

    packed = torch.from_numpy(quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_1))
    packed = packed.view(len(weight), -1, _HEADER + BLOCK // 2)
    if not torch.equal(unpack(packed), weight):
        raise ValueError("The weights cannot be represented exactly in Q4_1.")
    return packed


def unpack(packed: Tensor) -> Tensor:
    """Unpack the result of `pack` to float32 (rows, columns)."""
    scale, minimum = packed[..., :_HEADER].contiguous().view(torch.float16).float().split(1, -1)
    halves = packed[..., _HEADER:]
    steps = torch.cat([halves & 15, halves >> 4], -1)
    return (steps * scale).add_(minimum).flatten(1)


def save_q4_1(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write a float32 model whose linear layers have Q4_1 values; all other weights are converted to `dtype`.

    Raises ValueError if a linear layer has other values.
    """
    head = model.get_output_embeddings()
    linear = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name not in linear or (linear[name] is head and not model.config.tie_word_embeddings):
            tensors[name] = tensor.to(dtype)
        elif linear[name] is not head:
            tensors[name + _SUFFIX] = pack(tensor)
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {**model.config.to_dict(), "dtype": str(dtype).removeprefix("torch.")}
    config["quantization_config"] = {"quant_method": Q4_1}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")


def read_q4_1(folder: Path, dtype: torch.dtype) -> Mapping[str, Any]:
    """Return arguments for `load_network`, with weights of this type, from a folder written by `save_q4_1`.

    Raises ModelError if the files are damaged.
    """
    config = load_config(folder)
    del config.quantization_config
    with explain_errors(folder):
        return {"config": config, "state": unpack_state(load_file(folder / WEIGHTS_FILE), dtype)}


def unpack_state(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights of this type, of which those in Q4_1 are unpacked."""
    return {
        name.removesuffix(_SUFFIX): (unpack(tensor) if name.endswith(_SUFFIX) else tensor).to(dtype)
        for name, tensor in state.items()
    }
