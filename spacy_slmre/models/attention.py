"""Attention over a packed sequence, one group of tokens at a time.

The attention mask of a packed sequence is quadratic in its length and mostly empty: contexts and queries only attend
to the prefix and themselves. Since CPUs compute masked positions too, each group of tokens only gets the keys and
values that any of its tokens may attend to. Heads that share keys are computed together, without copying these. Up to
rounding, results equal those of the full mask.

All groups except the last have the same number of tokens, and their numbers of keys are rounded up, because torch
prepares and caches a kernel for every new shape, which can take hundreds of MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUPED_ATTENTION = "slmre_grouped"
"""Name of this attention in transformers (`attn_implementation`)."""
GROUP_SIZE = 64
"""Tokens per group: small products are slow, and large groups compute too many masked positions."""
KEYS_ROUND_TO = 32
"""The number of keys of a group is a multiple of this."""


class AttentionGroup:
    """Tokens that attend together.

    Args:
        mask: Which of the group's keys each token may attend to: bool (n_rows, n_seen).
        parts: Indices of the key parts that the group attends to.
    """

    def __init__(self, mask: torch.Tensor, parts: Sequence[int]) -> None:
        self._hidden = ~mask
        self._parts = parts
        self._bias: torch.Tensor | None = None

    def attend(
        self, query: torch.Tensor, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], scaling: float | None
    ) -> torch.Tensor:
        """Compute the attention of these tokens.

        Args:
            query: Their queries, (1, n_heads, n_rows, head_size).
            keys: All keys of the forward pass in parts, each (1, n_key_heads, n_keys, head_size).
            values: Like `keys`.
            scaling: Scale of the scores; None for 1 / sqrt(head_size).

        Returns:
            (1, n_rows, n_heads, head_size).
        """
        key, value = (torch.cat([one[part] for part in self._parts], dim=2) for one in (keys, values))
        _, n_heads, n_rows, size = query.shape
        n_sharing = n_heads // key.shape[1]
        # Stack the heads that share keys: (1, n_key_heads, n_sharing * n_rows, head_size).
        stacked = query.reshape(1, -1, n_sharing * n_rows, size)
        bias = self._stacked_bias(query.dtype, n_sharing)
        if query.dtype == torch.float32:
            mixed = F.scaled_dot_product_attention(stacked, key, value, attn_mask=bias, scale=scaling)
        else:
            # In half precision, torch's CPU kernel is up to three times slower than plain products.
            scale = size**-0.5 if scaling is None else scaling
            scores = torch.baddbmm(bias, stacked[0], key[0].transpose(1, 2), alpha=scale)
            mixed = torch.bmm(scores.softmax(dim=-1), value[0])
        return mixed.reshape(1, n_heads, n_rows, -1).transpose(1, 2)

    def _stacked_bias(self, dtype: torch.dtype, times: int) -> torch.Tensor:
        """Return the bias of the scores: 0 or -inf, (times * n_rows, n_seen)."""
        shape = (times * len(self._hidden), self._hidden.shape[1])
        if self._bias is None or self._bias.dtype != dtype or self._bias.shape != shape:
            # Shared by all layers of a forward pass.
            zeros = torch.zeros(shape, dtype=dtype, device=self._hidden.device)
            self._bias = zeros.masked_fill_(self._hidden.repeat(times, 1), -torch.inf)
        return self._bias


class AttentionGroups:
    """The tokens of a forward pass in groups.

    Args:
        mask: Which keys each token may attend to: bool (n_tokens, n_keys).
    """

    def __init__(self, mask: torch.Tensor) -> None:
        rows = [*range(0, len(mask), GROUP_SIZE), len(mask)]
        self._row_sizes = [end - start for start, end in pairwise(rows)]
        n_computed = mask.shape[1] - len(mask)
        seen = torch.stack([_round_up(mask[start:end].any(dim=0), n_computed + start) for start, end in pairwise(rows)])
        # Split keys where the visible range of any group begins or ends, once for all groups: a separate slice for each
        # group would need a gradient of full length.
        cuts = [0, *((seen[:, 1:] != seen[:, :-1]).any(dim=0).nonzero().flatten() + 1).tolist(), mask.shape[1]]
        self._key_sizes = [end - start for start, end in pairwise(cuts)]
        parts = [[part for part, cut in enumerate(cuts[:-1]) if own[cut]] for own in seen]
        self._groups = [
            AttentionGroup(mask[start:end, own], parts[number])
            for number, ((start, end), own) in enumerate(zip(pairwise(rows), seen, strict=True))
        ]
        self._made_from = mask

    def are_of(self, mask: torch.Tensor | None) -> bool:
        """Return whether a layer uses the mask that these groups were made from, not its own."""
        own = self._made_from
        return mask is not None and mask.data_ptr() == own.data_ptr() and mask.shape == (1, 1, *own.shape)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """Compute the attention of all tokens; arguments as in `grouped_attention`."""
        queries = query.split(self._row_sizes, dim=2)
        keys, values = (one.split(self._key_sizes, dim=2) for one in (key, value))
        outputs = [group.attend(own, keys, values, scaling) for group, own in zip(self._groups, queries, strict=True)]
        return torch.cat(outputs, dim=1)


def _round_up(seen: torch.Tensor, place: int) -> torch.Tensor:
    """Return the visible keys, bool (n_keys,), padded to a round number with the nearest other keys."""
    others = (~seen).nonzero().flatten()
    nearest = (others - place).abs().argsort(stable=True)[: -int(seen.sum()) % KEYS_ROUND_TO]
    return seen.index_fill(0, others[nearest], True)


def attention_inputs(mask: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of a forward pass for a mask, bool (n_tokens, n_keys), on the network's device."""
    inputs: dict[str, Any] = {"attention_mask": mask[None, None]}
    if mask.device.type == "cpu":  # on GPUs many small products are slower than one large one
        inputs["attention_groups"] = AttentionGroups(mask)
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
    """Compute scaled dot-product attention by groups, or with the full mask if there are no groups.

    Args:
        module: The attention layer.
        query: (1, n_heads, n_tokens, head_size).
        key: (1, n_key_heads, n_keys, head_size).
        value: Like `key`.
        attention_mask: Which keys each token may attend to: (1, 1, n_tokens, n_keys).
        attention_groups: Result of `attention_inputs`; ignored in layers that use another mask.
        **kwargs: Other arguments of transformers' attention functions.

    Returns:
        (1, n_tokens, n_heads, head_size), and None for the weights.
    """
    # Transformers handles everything that groups do not support.
    unsupported = kwargs.get("dropout") or any(kwargs.get(rule) is not None for rule in ("position_bias", "softcap"))
    if attention_groups is None or unsupported or not attention_groups.are_of(attention_mask):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attention_groups.attend(query, key, value, kwargs.get("scaling")), None


def use_grouped_attention(network: PreTrainedModel) -> None:
    """Make a network use `attention_groups`; without this argument it computes as usual."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
    AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)
    network.set_attn_implementation(GROUPED_ATTENTION)
