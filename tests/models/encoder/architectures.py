"""Small encoders of other architectures than the packaged one."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, ElectraConfig, ModernBertConfig, RobertaConfig

ENCODERS = {
    # A padding id outside the vocabulary, and embeddings narrower than the layers.
    "modernbert": lambda size: ModernBertConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=60, pad_token_id=200, cls_token_id=2, sep_token_id=3,
    ),
    "electra": lambda size: ElectraConfig(
        vocab_size=size, embedding_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=60,
    ),
    "roberta": lambda size: RobertaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=62, pad_token_id=1,
    ),
}  # fmt: skip


def save_encoder(kind: str, tokenizer_folder: Path, folder: Path) -> None:
    """Save an encoder with random weights and the tokenizer of another one."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(ENCODERS[kind](len(tokenizer))).save_pretrained(folder)
