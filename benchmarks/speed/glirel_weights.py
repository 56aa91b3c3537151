"""GLiREL with random weights, to measure speed when its published weights are not available.

The sizes are those of the training config in its repository: DeBERTa-v3-large, projected to 768. The tokenizer is that
of our encoder, because its own is part of the weights.
"""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import torch
from glirel import GLiREL
from glirel.modules import transformer_embeddings
from transformers import AutoModel, DebertaV2Config

LARGE = {
    "vocab_size": 128_100,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
SMALL = {
    "vocab_size": 2_000,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
DEBERTA_V3: dict[str, Any] = {
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}


def make_glirel(tokenizer: str, small: bool) -> GLiREL:
    """Make the model.

    Args:
        tokenizer: Folder of an encoder whose tokenizer is used.
        small: Make a tiny model, for tests.
    """
    torch.manual_seed(0)
    config = DebertaV2Config(**DEBERTA_V3, **(SMALL if small else LARGE))
    transformer_embeddings.AutoModel = SimpleNamespace(from_pretrained=lambda name: AutoModel.from_config(config))
    return GLiREL(
        Namespace(
            model_name=tokenizer,
            hidden_size=768,
            max_width=12,
            fine_tune=False,
            subtoken_pooling="first",
            scorer="dot",
            rel_mode="marker",
            span_marker_mode="markerv1",
            refine_prompt=False,
            refine_relation=False,
            ffn_mul=4,
            dropout=0.4,
            label_embed_strategy="both",
            loss_func="binary_cross_entropy_loss",
            num_train_rel_types=25,
            random_drop=False,
            max_len=512,
            max_types=25,
            max_entity_pair_distance=None,
            fixed_relation_types=True,
            coref_classifier=False,
        )
    )
