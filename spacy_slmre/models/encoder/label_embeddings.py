"""Embeddings of labels: their wordings and definitions as a sentence encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from spacy_slmre.models.encoder.bert import Bert
from spacy_slmre.schema import RelationLabel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MAX_TOKENS = 48
"""Longer wordings and definitions are truncated."""
MAX_TEXTS = 10_000
"""Number of embeddings that are kept."""


class LabelEmbeddings:
    """Embeds labels, each text once.

    Args:
        encoder: A sentence encoder whose embeddings are means over tokens, such as all-MiniLM-L6-v2.
        tokenizer: Its tokenizer.
    """

    def __init__(self, encoder: Bert | PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encoder = encoder.eval()
        self._tokenizer = tokenizer
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, labels: Sequence[RelationLabel]) -> torch.Tensor:
        """Return the embeddings of wordings and definitions, (n, 2 * width); wordings replace missing definitions."""
        texts = [text for label in labels for text in (label.wording, label.definition or label.wording)]
        if len(self._known) > MAX_TEXTS:
            self._known.clear()
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known |= zip(new, self._embed(new), strict=True)
        return torch.stack([self._known[text] for text in texts]).reshape(len(labels), -1)

    # Training uses the embeddings, too, so they must not be tensors of inference mode.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt", verbose=False
        )
        words = cast(torch.nn.Embedding, self._encoder.get_input_embeddings())
        ids, mask = (inputs[name].to(words.weight.device) for name in ("input_ids", "attention_mask"))
        states = self._encoder(inputs_embeds=words(ids), attention_mask=mask).last_hidden_state
        own = mask[:, :, None].to(states)
        return F.normalize((states * own).sum(dim=1) / own.sum(dim=1), dim=-1)
