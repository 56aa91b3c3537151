"""The network: an encoder, embeddings of new marker tokens, and a label head over the two marker states."""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

TYPE_SIZE = 16
"""Size of a type embedding."""


class RelationNetwork(nn.Module):
    """Computes label logits from marked texts.

    Args:
        encoder: Any encoder of transformers that accepts `inputs_embeds`.
        n_labels: Number of outputs.
        n_markers: Number of new marker tokens, whose ids follow the encoder's vocabulary.
        n_types: Number of entity types with an embedding; 0 for none.
    """

    def __init__(self, encoder: PreTrainedModel, n_labels: int, n_markers: int, n_types: int = 0) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        spread = getattr(encoder.config, "initializer_range", 0.02)
        self.encoder = encoder
        known = cast(nn.Embedding, encoder.get_input_embeddings())
        # In some encoders, embeddings and layers have different sizes.
        self.markers = nn.Embedding(n_markers, known.embedding_dim) if n_markers else None
        self.types = nn.Embedding(n_types, TYPE_SIZE) if n_types else None
        self.dropout = nn.Dropout(0.0)
        self.dense = nn.Linear(2 * (width + (TYPE_SIZE if n_types else 0)), width)
        self.output = nn.Linear(width, n_labels)
        for layer in (self.dense, self.output):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    @cached_property
    def max_tokens(self) -> int:
        """Maximum number of tokens that the encoder reads."""
        positions = int(getattr(self.encoder.config, "max_position_embeddings", None) or 2**31)
        # In RoBERTa, positions start after the padding index.
        for name, module in self.encoder.named_modules():
            padding = getattr(module, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                positions -= padding + 1
        return positions

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, types: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute logits (n, n_labels).

        Args:
            tokens: Token ids (n, length).
            mask: 1 for tokens, 0 for padding (n, length).
            positions: Positions of the head's and the tail's opening marker (n, 2).
            types: Entity types of head and tail (n, 2), if they have embeddings.
        """
        hidden = self.encoder(inputs_embeds=self.embed(tokens), attention_mask=mask).last_hidden_state
        states = hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[-1]))
        if self.types is not None and types is not None:
            states = torch.cat([states, self.types(types)], dim=-1)
        pair = self.dropout(states.flatten(1))
        return self.output(self.dropout(F.gelu(self.dense(pair))))

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens, including new ones: (n, length, width)."""
        known = cast(nn.Embedding, self.encoder.get_input_embeddings())
        if self.markers is None:
            return known(tokens)
        beyond = tokens - known.num_embeddings
        embedded = known(tokens.clamp(max=known.num_embeddings - 1))
        return torch.where((beyond >= 0)[:, :, None], self.markers(beyond.clamp(min=0)), embedded)

    def add_outputs(self, number: int) -> None:
        """Add outputs for more labels; the logits of existing labels do not change."""
        old = self.output
        self.output = nn.Linear(old.in_features, old.out_features + number).to(old.weight)
        with torch.no_grad():
            nn.init.normal_(self.output.weight, std=0.02)
            self.output.weight[: old.out_features] = old.weight
            self.output.bias.zero_()
            self.output.bias[: old.out_features] = old.bias

    def freeze(self, layers: int) -> None:
        """Freeze the embeddings and the lowest layers, but not new marker tokens.

        Raises:
            ValueError: The encoder has no list of layers, or too few.
        """
        stacks = [module for module in self.encoder.modules() if isinstance(module, nn.ModuleList)]
        depth = getattr(self.encoder.config, "num_hidden_layers", 0)
        stack = next((stack for stack in stacks if len(stack) == depth), None)
        if stack is None:
            raise ValueError(
                f"model.frozen_layers = {layers}, but the layers of a {type(self.encoder).__name__} cannot "
                "be frozen one by one."
            )
        if layers > depth:
            raise ValueError(f"model.frozen_layers = {layers}, but the encoder has {depth} layers.")
        lower: list[nn.Module] = [self.encoder.get_input_embeddings(), *stack[:layers]]
        if (embeddings := getattr(self.encoder, "embeddings", None)) is not None:
            lower.append(embeddings)
        for module in lower:
            module.requires_grad_(False)
