"""Plain Llama models such as SmolLM2 for scoring, without transformers, whose model classes take seconds to import.

It is also slightly faster: layers that read the same input are one matrix product, and the last layer is only computed
for the tokens whose hidden states are needed. Up to rounding, results equal those of transformers. Other models,
training, and adapters that cannot be merged use `spacy_slmre.models.causal_lm.decoder.NetworkDecoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spacy_slmre.models.attention import attention_inputs
from spacy_slmre.models.causal_lm.adapter import Adapter
from spacy_slmre.models.causal_lm.decoder import Decoder, KeyValues
from spacy_slmre.models.causal_lm.q4_1 import Q4_1, unpack_state
from spacy_slmre.models.checkpoint import explain_errors, read_model_config, read_weights
from spacy_slmre.models.hub import use_one_thread_in_forks
from spacy_slmre.models.packing import PackedInput

# What the computation below assumes, and transformers' names and defaults of it.
_PLAIN = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
_QKV, _OUT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",)
_GATE_UP, _DOWN = ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)
_NORMS = ("input_layernorm",), ("post_attention_layernorm",)


def load_llama(
    folder: Path, adapter: Adapter | None, method: str | None, dtype: torch.dtype, device: torch.device
) -> LlamaDecoder | None:
    """Load a plain Llama model and merge an adapter, if possible.

    Args:
        folder: A checked folder.
        adapter: The adapter, or None.
        method: The quantization of the loaded weights.
        dtype: Compute type.
        device: Device to load to.

    Returns:
        The model; None if it can only be loaded with transformers or peft, whose errors explain what is wrong with it.

    Raises:
        ModelError: A file is damaged.
    """
    config = read_model_config(folder, str(folder))
    shapes = _expected_shapes(config)
    if shapes is None or method not in (None, Q4_1):
        return None
    use_one_thread_in_forks()
    with explain_errors(folder):
        state = unpack_state(read_weights(folder), dtype)
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != shapes:
        return None
    if adapter is not None and not adapter.merge_into(
        {name.removesuffix(".weight"): state[name] for name in state if name.endswith("_proj.weight")}
    ):
        return None
    state = {name: tensor.to(device) for name, tensor in state.items()}
    return LlamaDecoder(config, state)


def _expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the weights by name; None if a config does not describe a plain Llama model."""
    rope = config.get("rope_parameters") or {}
    is_plain = all(config.get(name, value) == value for name, value in _PLAIN.items())
    if not is_plain or rope.get("rope_type") != "default" or rope.keys() - {"rope_type", "rope_theta"}:
        return None
    try:
        hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
        n_layers, vocabulary, tied = config["num_hidden_layers"], config["vocab_size"], config["tie_word_embeddings"]
        float(rope["rope_theta"]), float(config["rms_norm_eps"])
    except (KeyError, TypeError, ValueError):
        return None
    names = (*_QKV, *_OUT, *_GATE_UP, *_DOWN, *_NORMS[0], *_NORMS[1])
    layer: list[tuple[int, ...]] = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    layer += [(inner, hidden), (inner, hidden), (hidden, inner), (hidden,), (hidden,)]
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (vocabulary, hidden), "norm": (hidden,)}
    for number in range(n_layers):
        shapes |= {f"layers.{number}.{name}": shape for name, shape in zip(names, layer, strict=True)}
    head = {} if tied else {"lm_head.weight": (vocabulary, hidden)}
    return {f"model.{name}.weight": shape for name, shape in shapes.items()} | head


class LlamaDecoder(Decoder):
    """A plain Llama model. Its weights never change.

    Args:
        config: The model's config.json.
        state: The weights by transformers' names, in the compute type; emptied, so that merged copies take no memory.
    """

    def __init__(self, config: Mapping[str, Any], state: dict[str, Tensor]) -> None:
        self._limit = config.get("max_position_embeddings")
        self._eps = config["rms_norm_eps"]
        self._n_heads, self._n_keys = config["num_attention_heads"], config["num_key_value_heads"]
        self._size = config["head_dim"]
        self._embeddings = state.pop("model.embed_tokens.weight")
        self._head = state.pop("lm_head.weight", self._embeddings)
        self._norm = state.pop("model.norm.weight")
        steps = torch.arange(0, self._size, 2).float() / self._size
        self._frequencies = (config["rope_parameters"]["rope_theta"] ** -steps).to(self._norm.device)  # (size / 2,)
        self._layers = [
            [
                torch.cat([state.pop(f"model.layers.{number}.{name}.weight") for name in names])
                for names in (_NORMS[0], _QKV, _OUT, _NORMS[1], _GATE_UP, _DOWN)
            ]
            for number in range(config["num_hidden_layers"])
        ]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._norm.device

    @property
    def n_parameters(self) -> int:
        """The number of parameters."""
        head = 0 if self._head is self._embeddings else self._head.numel()
        own = sum(weight.numel() for layer in self._layers for weight in layer)
        return own + head + self._embeddings.numel() + self._norm.numel()

    @property
    def max_positions(self) -> int | None:
        """The maximum number of tokens of a prompt, if there is one."""
        return self._limit

    @property
    def version(self) -> object:
        """A value that differs when the weights have changed."""
        return id(self)

    def forward(self, packed: PackedInput, computed: KeyValues, rows: Sequence[int]) -> tuple[Tensor, KeyValues]:
        """Compute the new tokens of a tree; see `Decoder.forward`."""
        device = self.device
        chosen = torch.tensor(rows, dtype=torch.long, device=device)
        mask = torch.from_numpy(packed.mask).to(device)  # (n_tokens, n_computed + n_tokens)
        groups = attention_inputs(mask).get("attention_groups")
        hidden = self._embeddings[torch.from_numpy(packed.tokens).to(device)]  # (n_tokens, hidden_size)
        rotation = self._rotation(torch.from_numpy(packed.positions).to(device))
        own: slice | Tensor = slice(None)
        n_queries = self._n_heads * self._size
        cache: KeyValues = []
        for number, (norm, qkv, out, mlp_norm, gate_up, down) in enumerate(self._layers):
            normed = self._rms_norm(hidden, norm)
            if number == len(self._layers) - 1:
                # Of the other tokens, only keys and values are needed.
                own = chosen
                keys_values = self._heads(F.linear(normed, qkv[n_queries:]))
                query = self._heads(F.linear(normed[own], qkv[:n_queries]))
                key, value = keys_values.split(self._n_keys, dim=1)
            else:
                heads = (self._n_heads, self._n_keys, self._n_keys)
                query, key, value = self._heads(F.linear(normed, qkv)).split(heads, dim=1)
            query, key = _rotate(query, *(part[own] for part in rotation)), _rotate(key, *rotation)
            if computed:
                key, value = (torch.cat(pair, dim=2) for pair in zip(computed[number], (key, value), strict=True))
            cache.append((key, value))
            if groups is None or own is chosen:
                mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[own], enable_gqa=True)
                mixed = mixed.transpose(1, 2)
            else:
                mixed = groups.attend(query, key, value, None)  # (1, n_tokens, n_heads, head_size)
            hidden = hidden[own] + F.linear(mixed.flatten(2)[0], out)
            gate, up = F.linear(self._rms_norm(hidden, mlp_norm), gate_up).chunk(2, dim=-1)
            hidden += F.linear(F.silu(gate).mul_(up), down)
        return self._rms_norm(hidden, self._norm), cache

    def logits(self, hidden: Tensor, tokens: Sequence[int]) -> Tensor:
        """Compute the logits of only these tokens, in float32: (n_rows, n_tokens)."""
        return F.linear(hidden.float(), self._head[list(tokens)].float())

    def _rms_norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self._eps)

    def _heads(self, states: Tensor) -> Tensor:
        """Split states into heads: (1, n_heads, n_tokens, head_size)."""
        return states.unflatten(1, (-1, self._size))[None].transpose(1, 2)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of rotary positions, each (n_tokens, head_size); half of the sines are negated."""
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        dtype = self._norm.dtype
        return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions (arXiv 2104.09864) to (1, n_heads, n_tokens, head_size)."""
    return states * cos + states.roll(states.shape[-1] // 2, dims=-1) * sin
