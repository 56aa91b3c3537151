"""A Thinc wrapper for torch networks, so that spaCy's optimizers can train them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from safetensors.torch import load, save
from thinc.api import Optimizer, PyTorchShim, get_current_ops
from thinc.types import FloatsXd
from thinc.util import torch2xp, xp2torch


class ThincShim(PyTorchShim):
    """A torch network whose weights are serialized as safetensors.

    Args:
        network: The network, on its device.
        learn_rate_of: Factor of the learning rate for a parameter, by its name; 1 by default.
    """

    def __init__(self, network: torch.nn.Module, *, learn_rate_of: Callable[[str], float] | None = None) -> None:
        super().__init__(
            network,
            device=next(network.parameters()).device,
            serialize_model=lambda model: save(cpu_tensors(model)),
            deserialize_model=_deserialize,
        )
        self.network = network
        self.learn_rate_of = learn_rate_of

    def finish_update(self, optimizer: Optimizer) -> None:
        """Update the parameters that have a gradient."""
        # Without CuPy, Thinc computes on the CPU, so parameters on a GPU are copied back and forth.
        ops = get_current_ops()
        for name, parameter in self.network.named_parameters():
            if parameter.grad is None:
                continue
            new, _ = optimizer(
                # The shape is part of the key, so that a resized layer starts with fresh moments.
                (self.id, f"{name} {tuple(parameter.shape)}"),
                cast(FloatsXd, torch2xp(parameter.data, ops=ops)),
                cast(FloatsXd, torch2xp(parameter.grad, ops=ops)),
                lr_scale=1.0 if self.learn_rate_of is None else self.learn_rate_of(name),
            )
            updated = xp2torch(new)
            # On a CPU, the optimizer changes the parameter in place. Assigning a new tensor in every step, as Thinc's
            # own shim does, would keep the old ones in memory.
            if updated.data_ptr() != parameter.data_ptr():
                parameter.data.copy_(updated)
            parameter.grad.zero_()


def cpu_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the weights by name; safetensors does not allow shared memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _deserialize(network: torch.nn.Module, data: bytes, device: torch.device) -> torch.nn.Module:
    network.load_state_dict(load(data))
    return network.to(device)
