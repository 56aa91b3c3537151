"""Other systems with random weights, to measure speed when their published weights are not available.

Usage: python random_weights.py SYSTEM SIZE TOKENIZER FOLDER   (started by peers.py in the environment of the system)

The architectures are those that each system publishes; see docs/speed.md. The tokenizers are those of our models,
because their own are part of the weights.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    DebertaV2Config,
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from glirel import GLiREL

VOCABULARY = 128_000
"""Tokens of DeBERTa-v3."""


def _size(hidden: int, layers: int, heads: int) -> dict[str, int]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "vocab_size": VOCABULARY, "intermediate_size": 4 * hidden}


SIZES = {"tiny": _size(32, 2, 2), "xsmall": _size(384, 12, 6), "base": _size(768, 12, 12), "large": _size(1024, 24, 16)}
"""The sizes of DeBERTa-v3, and a tiny one for tests."""
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


def make_glirel(tokenizer: str, size: str) -> GLiREL:
    """Make GLiREL with the training config of its repository: DeBERTa-v3-large, projected to 768.

    Args:
        tokenizer: Folder of an encoder whose tokenizer is used.
        size: A name in SIZES.
    """
    from glirel import GLiREL
    from glirel.modules import transformer_embeddings

    torch.manual_seed(0)
    config = DebertaV2Config(**DEBERTA_V3, **SIZES[size])
    transformer_embeddings.AutoModel = Namespace(from_pretrained=lambda name: AutoModel.from_config(config))
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


def save_gliner2(size: str, tokenizer: str, folder: str) -> None:
    """Save GLiNER2 (a grid of spans) with the settings of its package."""
    from gliner2 import ExtractorConfig, GLiNER2

    config = ExtractorConfig(model_name="random")
    model = GLiNER2(config, DebertaV2Config(**DEBERTA_V3, **SIZES[size]), _full_tokenizer(tokenizer))
    with torch.no_grad():
        model.count_pred[-1].bias[1] = 1e4  # one relation of each label, where random weights would find ten
    model.save_pretrained(folder)


def save_gliner25(size: str, tokenizer: str, folder: str) -> None:
    """Save GLiNER2.5 (pairs of boundaries) with the settings of its package and one pool of 192 candidates."""
    from gliner2 import BoundaryExtractor, ExtractorConfig

    head = {"candidate_pool": "shared", "pool_size": 192}
    config = ExtractorConfig(model_name="random", architecture="boundary", boundary_head=head)
    model = BoundaryExtractor(config, DebertaV2Config(**DEBERTA_V3, **SIZES[size]), _full_tokenizer(tokenizer))
    model.save_pretrained(folder)


def save_relex(size: str, tokenizer: str, folder: str) -> None:
    """Save GLiNER-Relex with the training config of its repository, scoring all pairs of the entities."""
    from gliner import GLiNER

    _full_tokenizer(tokenizer).save_pretrained(folder)
    encoder = {"model_type": "deberta-v2", **DEBERTA_V3, **SIZES[size]}
    config = {"model_name": folder, "encoder_config": encoder, "hidden_size": encoder["hidden_size"]}
    config |= {"max_len": 512, "max_types": 100, "dropout": 0.3, "relations_layer": "none"}
    GLiNER.from_config(config, backbone_from_pretrained=False).save_pretrained(folder)


def save_rebel(size: str, tokenizer: str, folder: str) -> None:
    """Save REBEL, which is BART-large with a few more tokens."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if size == "tiny" else {}
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    BartForConditionalGeneration(BartConfig(vocab_size=50_267, **sizes)).save_pretrained(folder)


def _full_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer with as many tokens as DeBERTa-v3, of which text uses only its own."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    known = data["model"]["vocab"]
    known |= {f"[filler {number}]": number for number in range(len(known), VOCABULARY)}
    full = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=full, **tokenizer.special_tokens_map)


MAKERS = {"gliner2": save_gliner2, "gliner25": save_gliner25, "relex": save_relex, "rebel": save_rebel}

if __name__ == "__main__":
    torch.manual_seed(0)
    MAKERS[sys.argv[1]](*sys.argv[2:])
