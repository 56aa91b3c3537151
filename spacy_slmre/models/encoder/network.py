"""The networks: an encoder, embeddings of new marker tokens, and a head over the states of the two markers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from spacy_slmre.models.attention import attention_inputs, use_grouped_attention
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.bert import Bert

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TYPE_SIZE = 16
"""Size of a type embedding."""
# Scale of the cosines of a new head, and a third of it for no relation, which is above those of most labels.
_FIRST_SCALE = 15.0


def first_position(encoder: Bert | PreTrainedModel) -> int:
    """Return the position id of the first token."""
    # In RoBERTa, positions start after the padding index.
    for name, module in encoder.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def max_tokens(encoder: Bert | PreTrainedModel) -> int:
    """Return the maximum number of tokens that an encoder reads."""
    return int(getattr(encoder.config, "max_position_embeddings", None) or 2**31) - first_position(encoder)


class LabelHead(nn.Module):
    """Computes the logit of each label that it was trained on.

    Args:
        n_inputs: Size of the states of a pair.
        width: Size of the hidden layer.
        n_labels: Number of outputs.
        std: Standard deviation of new weights.
    """

    def __init__(self, n_inputs: int, width: int, n_labels: int, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.dropout = nn.Dropout(0.0)
        self.dense = nn.Linear(n_inputs, width)
        self.output = nn.Linear(width, n_labels)
        for layer in (self.dense, self.output):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Compute logits, (n, n_labels), from the states of pairs."""
        return self.output(self.dropout(F.gelu(self.dense(self.dropout(states)))))

    def add_outputs(self, number: int) -> None:
        """Add outputs for more labels; the logits of existing labels do not change."""
        old = self.output
        self.output = nn.Linear(old.in_features, old.out_features + number).to(old.weight)
        with torch.no_grad():
            nn.init.normal_(self.output.weight, std=self.std)
            self.output.weight[: old.out_features] = old.weight
            self.output.bias.zero_()
            self.output.bias[: old.out_features] = old.bias


class MatchingHead(nn.Module):
    """Compares pairs with embeddings of labels: the logit of a label is a scaled cosine.

    Pairs start as the mean of their markers' states, and labels as the mean of the embeddings of their wording and of
    their definition, by the same sentence encoder. So they are comparable before any training.

    Args:
        n_inputs: Size of the states of a pair: twice `width`.
        width: Size of the vectors that are compared.
    """

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.0)
        self.pair = _MeanWithCorrection(n_inputs, width, self.dropout)
        self.label = _MeanWithCorrection(n_inputs, width, nn.Dropout(0.0))
        self.scale = nn.Parameter(torch.tensor([math.log(_FIRST_SCALE)]))  # Thinc needs a dimension
        self.none = nn.Linear(width, 1)
        nn.init.zeros_(self.none.weight)
        nn.init.constant_(self.none.bias, _FIRST_SCALE / 3)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Compute the scaled vectors of pairs, and the logit of no relation: (n, width + 1)."""
        pairs = self.pair(states)
        return torch.cat([self.scale.exp() * F.normalize(pairs, dim=-1), self.none(pairs)], dim=1)

    def label_vectors(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Compute the vectors of labels, (n_labels, width).

        Args:
            embeddings: Embeddings of the wording and of the definition of each label, (n_labels, 2 * width).
        """
        return F.normalize(self.label(embeddings), dim=-1)


class _MeanWithCorrection(nn.Module):
    """Adds the output of a hidden layer, at first zero, to a weighted mean of two vectors, at first the plain mean."""

    def __init__(self, n_inputs: int, width: int, dropout: nn.Dropout) -> None:
        super().__init__()
        self.dropout = dropout
        self.mean = nn.Linear(n_inputs, width, bias=False)
        self.dense = nn.Linear(n_inputs, width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.mean.weight.copy_(torch.cat([torch.eye(width)] * 2, dim=1) / 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.mean(inputs) + self.output(F.gelu(self.dense(self.dropout(inputs))))


MakeHead = Callable[[int, int], LabelHead | MatchingHead]


class RelationNetwork(nn.Module, ABC):
    """Computes the outputs of a head from the states of markers.

    Args:
        encoder: Any encoder that accepts `inputs_embeds`.
        make_head: Makes the head, given the sizes of its inputs and of the encoder's states. Its inputs are the states
            of both markers of each pair, (n, n_inputs), and it has a layer `dropout`.
        n_markers: Number of new marker tokens.
        n_types: Number of entity types with an embedding; 0 for none.
    """

    def __init__(self, encoder: Bert | PreTrainedModel, make_head: MakeHead, n_markers: int, n_types: int = 0) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        # In some encoders, embeddings and layers have different sizes.
        self.markers = nn.Embedding(n_markers, self.words.embedding_dim) if n_markers else None
        self.types = nn.Embedding(n_types, TYPE_SIZE) if n_types else None
        self.head = make_head(2 * (width + (TYPE_SIZE if n_types else 0)), width)

    @property
    def words(self) -> nn.Embedding:
        """The embeddings of the vocabulary."""
        return cast(nn.Embedding, self.encoder.get_input_embeddings())

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute the head's outputs for pairs, (n, n_outputs), from the inputs that `Markers.batches` yields."""
        return self.head(self.marker_states(*inputs))

    @abstractmethod
    def marker_states(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the states of each pair's markers, (n, 2 * width)."""

    def init_markers(self, ids: Sequence[list[int]]) -> None:
        """Initialize the embedding of each new token with the mean of those of words with these ids."""
        if self.markers is not None:
            with torch.no_grad():
                for row, words in enumerate(ids):
                    self.markers.weight[row] = self.words.weight[words].mean(dim=0)

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


class SolidNetwork(RelationNetwork):
    """Reads markers inside the text; each pair is a text of its own."""

    def marker_states(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, types: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the states of the opening markers, (n, 2 * width), and append those of entity types.

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
        return states.flatten(1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens, including new ones: (n, length, width)."""
        if self.markers is None:
            return self.words(tokens)
        beyond = tokens - self.words.num_embeddings
        embedded = self.words(tokens.clamp(max=self.words.num_embeddings - 1))
        return torch.where((beyond >= 0)[:, :, None], self.markers(beyond.clamp(min=0)), embedded)


class LevitatedNetwork(RelationNetwork):
    """Reads packed sequences of texts and markers after them; see `LevitatedMarkers`.

    Raises:
        ModelError: The encoder's positions are not embeddings, so that two tokens cannot have the same one, or it
            computes attention in a way of its own.
    """

    def __init__(self, encoder: Bert | PreTrainedModel, make_head: MakeHead, n_markers: int) -> None:
        super().__init__(encoder, make_head, n_markers)
        if getattr(encoder.config, "position_embedding_type", "absolute") != "absolute" or not any(
            name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
            for name, module in encoder.named_modules()
        ):
            raise ModelError(
                f"A {type(encoder).__name__} has no embeddings of absolute positions, so it cannot read levitated "
                'markers. Use an encoder such as BERT, RoBERTa or MiniLM, or model.markers = "typed".'
            )
        self._first_position = first_position(encoder)
        if not isinstance(encoder, Bert):
            use_grouped_attention(encoder)

    def marker_states(
        self,
        words: torch.Tensor,
        starts: torch.Tensor,
        markers: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        places: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the states of markers, (n, 2 * width).

        Args:
            words: Ids in the vocabulary, those of each token in turn.
            starts: Index in `words` of the first one of each token, (n_tokens,).
            markers: Index of a new token whose embedding is added, or -1, (n_tokens,).
            positions: Position ids, (1, n_tokens).
            mask: Which tokens each token sees: bool (n_tokens, n_tokens).
            places: Indices of the head's and the tail's marker, (n, 2).
        """
        assert self.markers is not None
        embedded = F.embedding_bag(words, self.words.weight, starts, mode="mean")
        added = self.markers(markers.clamp(min=0)).masked_fill((markers < 0)[:, None], 0.0)
        inputs: dict[str, Any] = attention_inputs(mask)
        hidden = self.encoder(
            inputs_embeds=(embedded + added)[None], position_ids=positions + self._first_position, **inputs
        ).last_hidden_state
        return hidden[0, places].flatten(1)
