"""Plain BERT networks such as MiniLM, without transformers, whose model classes take seconds to import.

Modules, weights and outputs are named as in transformers, and up to rounding, results are equal. Other encoders are
loaded with transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from spacy_slmre.models.attention import AttentionGroups
from spacy_slmre.models.checkpoint import read_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# What the computation below assumes.
_PLAIN = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
# Parts of files that an encoder does not use: the pooling layer, heads for other tasks, and position ids, which older
# versions of transformers saved.
_PREFIX = "bert."
_UNUSED = ("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids")


def is_plain_bert(config: PreTrainedConfig) -> bool:
    """Return whether `Bert` computes what a config describes."""
    return all(getattr(config, name, value) == value for name, value in _PLAIN.items())


def load_bert(folder: Path, config: PreTrainedConfig) -> Bert | None:
    """Load a plain BERT from a checked folder.

    Returns:
        The network in float32; None if the weights do not fit the config, which the errors of transformers explain.

    Raises:
        ModelError: A file is damaged.
    """
    state = {name.removeprefix(_PREFIX): tensor.float() for name, tensor in read_weights(folder).items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}
    with torch.random.fork_rng(devices=[]):  # the weights are replaced, and must not change what is drawn later
        network = Bert(config)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        return None
    network.load_state_dict(state)
    return network


class Bert(nn.Module):
    """The encoder of arXiv 1810.04805, without its pooling layer; dropout is applied in training.

    Args:
        config: A config for which `is_plain_bert` holds.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of the vocabulary."""
        return self.embeddings.word_embeddings

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        attention_groups: AttentionGroups | None = None,
    ) -> BaseModelOutput:
        """Compute the states of tokens, `last_hidden_state`: (n, length, width).

        Args:
            inputs_embeds: Embeddings of tokens, (n, length, width).
            attention_mask: 1 for tokens and 0 for padding, (n, length), or which tokens each token sees:
                bool (n or 1, 1, length, length).
            position_ids: Positions, (n or 1, length); by default in order.
            attention_groups: The same as a mask of four dimensions, by groups; replaces attention dropout.
        """
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        mask = attention_mask if attention_mask.dim() == 4 else attention_mask[:, None, None, :] != 0
        states = self.embeddings(inputs_embeds, position_ids)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            states = layer(states, mask, attention_groups)
        return BaseModelOutput(last_hidden_state=states)


class _Embeddings(nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, position_ids: Tensor) -> Tensor:
        first_type = self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(words + first_type + self.position_embeddings(position_ids)))


class _Layer(nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.attention = nn.ModuleDict({"self": _SelfAttention(config), "output": _AddAndNormalize(config, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _AddAndNormalize(config, inner)

    def forward(self, states: Tensor, mask: Tensor, groups: AttentionGroups | None) -> Tensor:
        states = self.attention["output"](self.attention["self"](states, mask, groups), states)
        return self.output(F.gelu(self.intermediate["dense"](states)), states)


class _SelfAttention(nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self._size = config.hidden_size // config.num_attention_heads
        self._dropout = config.attention_probs_dropout_prob

    def forward(self, states: Tensor, mask: Tensor, groups: AttentionGroups | None) -> Tensor:
        query, key, value = (
            layer(states).unflatten(-1, (-1, self._size)).transpose(1, 2)  # (n, n_heads, length, head_size)
            for layer in (self.query, self.key, self.value)
        )
        if groups is not None:
            mixed = groups.attend(query, key, value, None)
        else:
            rate = self._dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate).transpose(1, 2)
        return mixed.flatten(2)


class _AddAndNormalize(nn.Module):
    """Adds the output of a linear layer to the states before a sublayer, and normalizes the sum."""

    def __init__(self, config: PreTrainedConfig, n_inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(n_inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inputs: Tensor, states: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(inputs)) + states)
