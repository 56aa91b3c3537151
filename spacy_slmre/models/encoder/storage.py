"""Loading encoders, and saving and reading trained classifiers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.checkpoint import (
    WEIGHTS_FILE,
    belongs_to,
    check_folder,
    explain_errors,
    is_buffer,
    load_config,
    load_network,
    load_tokenizer,
)
from spacy_slmre.models.encoder.bert import Bert, is_plain_bert, load_bert
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.hub import quiet_loading, use_one_thread_in_forks
from spacy_slmre.models.thinc_shim import cpu_tensors
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.json_files import check_fields, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

MODEL_FILE = "classifier.json"
RUNTIME_FILE = "openvino.xml"
# Settings that determine the shape of the weights.
SHAPE = ("markers", "type_embedding")


def load_encoder(
    folder: Path, *, weights: bool = True, dropout: float | None = None, packed: bool = False
) -> tuple[Bert | PreTrainedModel, PreTrainedTokenizerFast]:
    """Load an encoder in float32 and its tokenizer from a checked folder.

    Args:
        folder: Result of `locate_base`, or the folder of a saved classifier.
        weights: Load the weights; otherwise they are initialized randomly.
        dropout: Replaces the dropout rates in the encoder's config.
        packed: The encoder reads packed sequences, whose attention has no dropout.

    Raises:
        ModelError: It is not an encoder, its weights are incomplete, or its tokenizer is not supported.
    """
    use_one_thread_in_forks()
    config, tokenizer = load_config(folder), load_tokenizer(folder)
    for name, value in list(vars(config).items()):
        rate = 0.0 if packed and "attention" in name else dropout
        if "dropout" in name and type(value) in (int, float) and rate is not None:
            setattr(config, name, rate)
    encoder: Bert | PreTrainedModel | None = None
    if is_plain_bert(config):
        encoder = load_bert(folder, config) if weights else Bert(config)
    if encoder is None:
        encoder = _load_with_transformers(folder, config, weights)
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder} contains a {type(encoder).__name__}, which is not a plain encoder.")
    if not tokenizer.is_fast or tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(
            f"The tokenizer in {folder} is not supported: it needs character offsets (a tokenizer.json) and special "
            "tokens for the beginning and end of a text."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder, cast("PreTrainedTokenizerFast", tokenizer)


def _load_with_transformers(folder: Path, config: PreTrainedConfig, weights: bool) -> PreTrainedModel:
    from transformers import AutoModel

    with quiet_loading():
        if weights:
            return load_network(AutoModel, folder, is_optional=_is_unused, config=config, dtype=torch.float32)
        with explain_errors(folder):
            return AutoModel.from_config(config, dtype=torch.float32)


def _is_unused(encoder: PreTrainedModel, name: str) -> bool:
    # The pooling layer, heads for other tasks, and position ids, which older versions of transformers saved.
    return "pooler" in name or not belongs_to(encoder, name) or is_buffer(encoder, name)


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

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return self.folder / WEIGHTS_FILE


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
    trained, labels, types, shape = read_record(folder / MODEL_FILE, _parse, ModelError)
    if not trained:
        return None
    check_folder(folder, str(folder))
    runtime = folder / RUNTIME_FILE
    return StoredEncoder(folder, labels, types, shape, runtime if runtime.exists() else None)


def _parse(data: dict[str, Any]) -> tuple[bool, tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    check_fields(data, trained=bool, labels=list, types=list, shape=dict)
    shape = {name: data["shape"][name] for name in SHAPE}
    return data["trained"], tuple(map(str, data["labels"])), tuple(map(str, data["types"])), shape


def load_weights(network: torch.nn.Module, file: Path, *, not_stored: Collection[str] = ()) -> None:
    """Load saved weights into a network, in which those that are `not_stored` keep their values.

    Raises:
        ModelError: They are damaged, or belong to another network.
    """
    try:
        missing, unknown = network.load_state_dict(load_file(file), strict=False)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The weights in {file} are damaged or incomplete ({reason}).") from error
    if wrong := [*unknown, *(name for name in missing if name not in not_stored)]:
        raise ModelError(f"The weights in {file} are damaged or incomplete (wrong or missing: {wrong[0]}).")
