"""Loading encoders, and saving and reading trained classifiers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.hub import check_folder, quiet_loading, use_one_thread_in_forks
from spacy_slmre.models.thinc_shim import cpu_tensors
from spacy_slmre.util.io import temporary_output

MODEL_FILE = "classifier.json"
WEIGHTS_FILE = "model.safetensors"
RUNTIME_FILE = "openvino.xml"
# Settings that determine the shape of the weights.
SHAPE = ("markers", "type_embedding")


def load_encoder(
    folder: Path, *, weights: bool = True, dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load an encoder in float32 and its tokenizer from a checked folder.

    Args:
        folder: Result of `locate_base`, or the folder of a saved classifier.
        weights: Load the weights; otherwise they are initialized randomly.
        dropout: Replaces the dropout rates in the encoder's config.

    Raises:
        ModelError: It is not an encoder, its weights are incomplete, or its tokenizer is not supported.
    """
    use_one_thread_in_forks()
    options = {"local_files_only": True, "trust_remote_code": False}
    missing: list[str] = []
    with quiet_loading():
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            for name in list(vars(config)) if dropout is not None else ():
                if "dropout" in name and type(getattr(config, name)) in (int, float):
                    setattr(config, name, dropout)
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            if weights:
                encoder, report = AutoModel.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    **options,
                )
                # The pooling layer is not used.
                missing = [key for key in report["missing_keys"] if "pooler" not in key]
            else:
                encoder = AutoModel.from_config(config, dtype=torch.float32)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise ModelError(f"{folder} is not an encoder that transformers can load ({error}).") from error
    if missing:
        raise ModelError(
            f"{folder} has no weights for {', '.join(sorted(missing)[:3])}, … of a {type(encoder).__name__}: its "
            "config belongs to another model, or the copy is incomplete."
        )
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder} contains a {type(encoder).__name__}, which is not a plain encoder.")
    if not tokenizer.is_fast or tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(
            f"The tokenizer in {folder} is not supported: it needs character offsets (a tokenizer.json) and special "
            "tokens for the beginning and end of a text."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder, cast(PreTrainedTokenizerFast, tokenizer)


@dataclass(frozen=True)
class TrainedWeights:
    """The parts of a trained classifier that are saved."""

    network: RelationNetwork  # in float32
    tokenizer: PreTrainedTokenizerFast
    runtime: Any = None  # the converted network, with a method `write(file)`


@dataclass(frozen=True)
class StoredEncoder:
    """The content of a saved classifier's folder, except for the weights.

    Attributes:
        folder: The folder, which also contains the encoder's config and tokenizer.
        labels: The labels, in the order of the outputs.
        types: The entity types of the training data.
        shape: The settings that determine the shape of the weights.
        runtime: The converted network of a runtime, if it was saved.
    """

    folder: Path
    labels: tuple[str, ...]
    types: tuple[str, ...]
    shape: dict[str, Any]
    runtime: Path | None


def write(
    folder: Path, settings: EncoderSettings, labels: Sequence[str], types: Sequence[str], weights: TrainedWeights | None
) -> None:
    """Write a classifier; the folder, which may be the one that it was read from, is replaced atomically."""
    with temporary_output(folder) as temporary:
        temporary.mkdir()
        if weights is not None:
            with quiet_loading():
                weights.network.encoder.config.save_pretrained(temporary)
                weights.tokenizer.save_pretrained(temporary)
            save_file(cpu_tensors(weights.network), temporary / WEIGHTS_FILE)
            if weights.runtime is not None:
                weights.runtime.write(temporary / RUNTIME_FILE)
        data = {
            "base": settings.base,
            "revision": settings.revision,
            "trained": weights is not None,
            "labels": list(labels),
            "types": list(types),
            "shape": {name: getattr(settings, name) for name in SHAPE},
        }
        (temporary / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")


def read(folder: Path) -> StoredEncoder | None:
    """Read a folder written by `write`; None if the classifier was not trained.

    Raises:
        ModelError: The folder is incomplete or damaged.
    """
    try:
        data = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        trained, labels, types = data["trained"], tuple(data["labels"]), tuple(data["types"])
        shape = {name: data["shape"][name] for name in SHAPE}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is missing or damaged. Save the pipeline again.") from error
    if not trained:
        return None
    check_folder(folder, str(folder))
    runtime = folder / RUNTIME_FILE
    return StoredEncoder(folder, labels, types, shape, runtime if runtime.exists() else None)


def load_weights(network: torch.nn.Module, stored: StoredEncoder) -> None:
    """Load the saved weights into a network.

    Raises:
        ModelError: They are damaged, or belong to another network.
    """
    file = stored.folder / WEIGHTS_FILE
    try:
        network.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The weights in {file} are damaged or incomplete ({reason}).") from error
