"""Attention over a packed sequence, one group of tokens at a time.

A mask over a whole sequence costs its length squared, and hides almost all of it: a context and its queries
see the prefix and themselves. On processors, where attention computes what is hidden too, each group is given
the keys and values that any of its tokens may see. The results are those of the whole mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED_ATTENTION = "slmre_grouped"
"""The name under which `transformers` knows it, as a model's `attn_implementation`."""


class AttentionGroup:
    """Tokens that attend together.

    Args:
        start: The first of them among the tokens of a pass.
        end: Behind the last.
        mask: What each of the pass's tokens may see: bool (n_tokens, n_keys).
    """

    def __init__(self, start: int, end: int, mask: torch.Tensor) -> None:
        seen = mask[start:end].any(dim=0)
        edges = torch.diff(seen.int(), prepend=seen.new_zeros(1).int(), append=seen.new_zeros(1).int())
        self.rows = slice(start, end)
        self._spans = [slice(*span) for span in edges.nonzero().reshape(-1, 2).tolist()]
        self._hidden = ~mask[start:end, seen]
        self._bias: torch.Tensor | None = None

    def bias(self, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores: 0 or -inf, (1, 1, n_rows, n_seen)."""
        if self._bias is None or self._bias.dtype != dtype:  # all layers of a pass use one
            zeros = torch.zeros(self._hidden.shape, dtype=dtype)
            self._bias = zeros.masked_fill_(self._hidden, -torch.inf)[None, None]
        return self._bias

    def seen(self, tensor: torch.Tensor) -> torch.Tensor:
        """The keys or values that some of these tokens may see: (1, n_heads, n_seen, head_size)."""
        parts = [tensor[:, :, span] for span in self._spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


@dataclass(frozen=True)
class AttentionGroups:
    """All tokens of a pass by groups, in order, and the mask that these were made from.

    Attributes:
        mask: (1, 1, n_tokens, n_keys).
        groups: The groups.
    """

    mask: torch.Tensor
    groups: Sequence[AttentionGroup]

    def are_of(self, mask: torch.Tensor | None) -> bool:
        """Whether a layer was given that very mask, and not one that its model has changed."""
        return mask is not None and mask.data_ptr() == self.mask.data_ptr() and mask.shape == self.mask.shape


def attention_inputs(mask: torch.Tensor, starts: Iterable[int]) -> dict[str, Any]:
    """The arguments of a network's forward pass that say what each token may see.

    Args:
        mask: Bool (n_tokens, n_keys), on the network's device.
        starts: The first token of each group, ascending from 0.
    """
    whole = mask[None, None]
    inputs: dict[str, Any] = {"attention_mask": whole}
    if mask.device.type == "cpu":  # elsewhere many small products are slower than one large one
        edges = [*map(int, starts), len(mask)]
        groups = [AttentionGroup(start, end, mask) for start, end in pairwise(edges)]
        inputs["attention_groups"] = AttentionGroups(whole, groups)
    return inputs


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    attention_groups: AttentionGroups | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot product attention by groups, or over the whole mask where there are none of it.

    Args:
        module: The attention layer.
        query: (1, n_heads, n_tokens, head_size).
        key: (1, n_key_heads, n_keys, head_size).
        value: As `key`.
        attention_mask: What each token may see: (1, 1, n_tokens, n_keys).
        attention_groups: What `attention_inputs` made; passed over by a layer that has a mask of its own.
        **kwargs: As transformers gives them.

    Returns:
        (1, n_tokens, n_heads, head_size), and no weights.
    """
    own_bias = kwargs.get("position_bias") is not None
    if attention_groups is None or own_bias or not attention_groups.are_of(attention_mask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    outputs = [
        sdpa_attention_forward(
            module,
            query[:, :, group.rows],
            group.seen(key),
            group.seen(value),
            group.bias(query.dtype),
            **kwargs,
        )[0]
        for group in attention_groups.groups
    ]
    return torch.cat(outputs, dim=1), None


def use_grouped_attention(network: PreTrainedModel) -> None:
    """Let a network heed `attention_groups`; without them it computes as ever."""
    network.set_attn_implementation(GROUPED_ATTENTION)


AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)
