"""Decoders as scoring uses them: keys, values and hidden states of packed prompt trees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from spacy_slmre.models.attention import attention_inputs, use_grouped_attention
from spacy_slmre.models.packing import PackedInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, (1, n_key_heads, n_tokens, head_size)."""


class Decoder(ABC):
    """A decoder that computes packed prompt trees."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """The number of parameters."""

    @property
    @abstractmethod
    def max_positions(self) -> int | None:
        """The maximum number of tokens of a prompt, if there is one."""

    @property
    @abstractmethod
    def version(self) -> object:
        """A value that differs when the weights have changed."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Compute without gradients and without dropout."""
        with torch.inference_mode():
            yield

    @abstractmethod
    def forward(self, packed: PackedInput, computed: KeyValues, rows: Sequence[int]) -> tuple[torch.Tensor, KeyValues]:
        """Compute the new tokens of a tree.

        Args:
            packed: Tokens, positions and mask.
            computed: Keys and values of the tokens computed before; empty for none.
            rows: Indices of the new tokens whose hidden states are needed.

        Returns:
            Hidden states, (n_rows, hidden_size), and keys and values of all tokens.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Compute the logits of only these tokens, in float32: (n_rows, n_tokens)."""


class NetworkDecoder(Decoder):
    """A decoder of transformers, which can be trained and changed.

    Args:
        network: A causal language model; its attention is replaced by grouped attention.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        use_grouped_attention(network)
        self.network = network

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.network.device

    @property
    def n_parameters(self) -> int:
        """The number of parameters."""
        return self.network.num_parameters()

    @property
    def max_positions(self) -> int | None:
        """The maximum number of tokens of a prompt, if there is one."""
        return getattr(self.network.config, "max_position_embeddings", None)

    @property
    def version(self) -> object:
        """A value that differs when the weights have changed."""
        # Torch has no public counter of in-place changes; `_version` is described in its notes on autograd.
        return id(self.network), sum(parameter._version for parameter in self.network.parameters())

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Compute without gradients and without dropout."""
        training = self.network.training
        if training:
            self.network.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self.network.train()

    def forward(self, packed: PackedInput, computed: KeyValues, rows: Sequence[int]) -> tuple[torch.Tensor, KeyValues]:
        """Compute the new tokens of a tree; see `Decoder.forward`."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.network.config)
        for layer, (keys, values) in enumerate(computed):
            cache.update(keys, values, layer)
        device = self.device
        output = self.network.get_decoder()(
            input_ids=torch.from_numpy(packed.tokens)[None].to(device),
            position_ids=torch.from_numpy(packed.positions)[None].to(device),
            **attention_inputs(torch.from_numpy(packed.mask).to(device)),
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state[0][list(rows)], [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore

    def logits(self, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Compute the logits of only these tokens, in float32: (n_rows, n_tokens)."""
        head = self.network.get_output_embeddings()
        columns = torch.tensor(tokens, device=hidden.device)
        if type(head) is not torch.nn.Linear:  # rows of an adapted or quantized head cannot be selected
            return head(hidden)[:, columns].float()
        bias = None if head.bias is None else head.bias[columns].float()
        return F.linear(hidden.float(), head.weight[columns].float(), bias)
