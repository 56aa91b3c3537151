"""Initial LoRA weights that compensate for quantization (QERA, arXiv 2410.06040).

LoRA usually starts at zero. In a quantized layer it can start instead at the low-rank matrix that minimizes the error
of the layer's output, given the magnitude of its inputs. This is QERA's approximation for uncorrelated inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spacy_slmre.models.attention import use_grouped_attention
from spacy_slmre.models.causal_lm.loading import load_base
from spacy_slmre.models.causal_lm.loss import Batch, packed_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def input_sizes(network: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the root mean square of each linear layer's inputs, (in_features,), by its name in the decoder.

    Args:
        network: A causal language model.
        batches: Results of `as_batch`, on the network's device.
    """
    squares: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            total = inputs[0].flatten(0, -2).float().square().sum(dim=0)
            squares[name] = squares[name] + total if name in squares else total

        return hook

    n_tokens = 0
    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.get_decoder().named_modules():
            if isinstance(module, nn.Linear):
                hooks.callback(module.register_forward_pre_hook(record(name)).remove)
        for batch in batches:
            packed_loss(network, batch)
            n_tokens += batch["input_ids"].numel()
    return {name: (total / n_tokens).sqrt() for name, total in squares.items()}


def init_with_qera(network: PreTrainedModel, folder: Path, batches: Iterable[Batch]) -> None:
    """Set the LoRA weights of a quantized network to the best low-rank approximation of the quantization error.

    Args:
        network: The network, changed in place.
        folder: The base model with its original weights.
        batches: Results of `as_batch`.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    device = network.device
    plain, _ = load_base(folder, quantization=None, dtype=network.dtype, device=device)
    use_grouped_attention(plain)
    sizes = input_sizes(plain, ({name: t.to(device) for name, t in batch.items()} for batch in batches))
    before = dict(plain.get_decoder().named_modules())
    for name, module in network.get_decoder().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        rounded = dequantize_module_weight(module.get_base_layer()).float()
        size = sizes[name].clamp(min=1e-3 * sizes[name].mean())  # some inputs are almost always zero
        lost = (before[name].get_parameter("weight").float() - rounded) * size
        for adapter, rank in module.r.items():
            full = min(rank, *lost.shape)  # the remaining ranks start at zero
            left, right = low_rank_factors(lost, full)
            scale = module.scaling[adapter] ** 0.5
            with torch.no_grad():
                module.lora_A[adapter].get_parameter("weight")[:full] = right / size / scale
                module.lora_B[adapter].get_parameter("weight")[:, :full] = left / scale


def low_rank_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return two factors of equal norm, (n, rank) and (rank, m), of the best low-rank approximation of a matrix (n, m).

    The eigenvectors of the smaller Gram matrix take a fraction of the time of a singular value decomposition.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, right = low_rank_factors(matrix.T, rank)
        return right.T, left.T
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    chosen = vectors[:, -rank:]
    root = values[-rank:].clamp(min=torch.finfo(values.dtype).tiny) ** 0.25  # of the singular values
    return chosen * root, (chosen / root).T @ matrix
