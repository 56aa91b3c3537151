"""The layers below the trained ones, which compute the same for a training sequence in every pass through the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MAX_BYTES = 2**30
"""Maximum size of what a training run remembers."""


class FrozenLayers:
    """Computes the layers below all trained weights once for each training sequence, and remembers their output.

    A pass through the data then costs only the layers above. Dropout makes every output different, so with it, nothing
    is remembered.

    Args:
        network: The model, with its trained weights.
        max_bytes: Maximum size of all remembered outputs; those of further sequences are computed again.

    Attributes:
        layers: The layers without trained weights, from the lowest one up.
    """

    def __init__(self, network: PreTrainedModel, max_bytes: int) -> None:
        layers = [] if has_dropout(network) else network.get_decoder().layers
        self.layers: list[nn.Module] = [*takewhile(_is_frozen, layers)]
        self._room = max_bytes
        self._outputs: dict[int, Tensor] = {}
        self._sequence: int | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Make the layers remember their outputs for a while."""
        originals = [(layer, layer.__dict__.get("forward")) for layer in self.layers]
        for layer in self.layers:
            layer.forward = self._remembering(layer.forward, layer is self.layers[-1])
        try:
            yield
        finally:
            self._outputs.clear()
            for layer, own in originals:
                del layer.forward
                if own is not None:  # hooks of accelerate are set in the same way
                    layer.forward = own

    @contextmanager
    def of_sequence(self, number: int) -> Iterator[None]:
        """Compute a training sequence, or use what is remembered of it; otherwise, the layers compute as usual."""
        self._sequence = number
        try:
            yield
        finally:
            self._sequence = None

    def _remembering(self, compute: Callable[..., Tensor], is_last: bool) -> Callable[..., Tensor]:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            number = self._sequence
            if number is None:
                return compute(hidden_states, *args, **kwargs)
            if number in self._outputs:
                return self._outputs[number] if is_last else hidden_states
            with torch.no_grad():
                output = compute(hidden_states, *args, **kwargs)
            if is_last and (size := output.numel() * output.element_size()) <= self._room:
                self._room -= size
                self._outputs[number] = output
            return output

        return forward


def _is_frozen(layer: nn.Module) -> bool:
    return not any(weights.requires_grad for weights in layer.parameters())


def has_dropout(network: PreTrainedModel) -> bool:
    """Return whether a part of a model has dropout in training: modules, or attention as configured."""
    settings = network.config.get_text_config().to_dict().items()
    configured = any("dropout" in name and isinstance(value, float) and value > 0 for name, value in settings)
    return configured or any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
