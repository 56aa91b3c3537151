"""LoRA weights that begin with what rounding a base model to 4 bits has lost, where its inputs are large.

LoRA weights usually begin as nothing. Beside a rounded weight they can begin with the matrix of their rank
that brings a layer's output nearest to that of the weight as it was, given how large its inputs are: QERA
(arXiv 2410.06040), in its approximation that takes inputs for uncorrelated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spacy_slmre.models.causal_lm.loss import Batch, packed_loss


def input_sizes(network: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """How large the inputs of all linear layers are.

    Args:
        network: A causal language model.
        batches: Packed sequences as `as_batch` makes them, on the network's device.

    Returns:
        By each layer's name in the decoder, the root mean square of each input, (in_features,).
    """
    squares: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten(0, -2).float().square().sum(dim=0)
            squares[name] = squares[name] + found if name in squares else found

        return hook

    n_tokens = 0
    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.get_decoder().named_modules():
            if isinstance(module, nn.Linear):
                hooks.callback(module.register_forward_pre_hook(note(name)).remove)
        for batch in batches:
            packed_loss(network, batch)
            n_tokens += batch["input_ids"].numel()
    return {name: (total / n_tokens).sqrt() for name, total in squares.items()}


def begin_with_rounding(network: PreTrainedModel, plain: PreTrainedModel, sizes: dict[str, Tensor]) -> None:
    """Set the LoRA weights of a rounded network to the best of their rank for what its weights have lost.

    Args:
        network: It has LoRA weights; they are changed in place.
        plain: The same network with the weights as they were.
        sizes: What `input_sizes` gives for it.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    before = dict(plain.get_decoder().named_modules())
    for name, module in network.get_decoder().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        rounded = dequantize_module_weight(module.get_base_layer()).float()
        size = sizes[name].clamp(min=1e-3 * sizes[name].mean())  # some inputs are hardly ever there
        lost = (before[name].get_parameter("weight").float() - rounded) * size
        for adapter, rank in module.r.items():
            full = min(rank, *lost.shape)  # what is beyond that begins as nothing
            left, right = low_rank_factors(lost, full)
            scale = module.scaling[adapter] ** 0.5
            with torch.no_grad():
                module.lora_A[adapter].get_parameter("weight")[:full] = right / size / scale
                module.lora_B[adapter].get_parameter("weight")[:, :full] = left / scale


def low_rank_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of equal size, (n, rank) and (rank, m), of the matrix of a rank that is nearest to (n, m).

    By the eigenvectors of the smaller of its two products with itself, which takes a fraction of the time of
    all singular values.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, right = low_rank_factors(matrix.T, rank)
        return right.T, left.T
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    chosen = vectors[:, -rank:]
    root = values[-rank:].clamp(min=torch.finfo(values.dtype).tiny) ** 0.25  # of the singular values
    return chosen * root, (chosen / root).T @ matrix
