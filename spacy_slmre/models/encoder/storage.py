"""A trained encoder classifier in a folder: weights as safetensors, tokenizer, labels, runtime model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from spacy_slmre.models.causal_lm.loading import ModelError, check_folder, quiet_loading
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.thinc_shim import tensors_of
from spacy_slmre.util.io import atomic_replace

MODEL_FILE = "classifier.json"
WEIGHTS_FILE = "model.safetensors"
RUNTIME_FILE = "openvino.xml"
# Settings that decide which weights there are.
SHAPE = ("markers", "type_embedding")


@dataclass(frozen=True)
class Weights:
    """What of a trained model is written.

    Attributes:
        network: The network in float32.
        tokenizer: The encoder's tokenizer.
        runtime: The network as a runtime has it, with a method `write(file)`; None for none.
    """

    network: RelationNetwork
    tokenizer: PreTrainedTokenizerFast
    runtime: Any = None


@dataclass(frozen=True)
class StoredEncoder:
    """What `read` found.

    Attributes:
        folder: The folder, which also holds the encoder's config and its tokenizer.
        labels: The labels, in the order of the outputs.
        types: The entity types of training.
        shape: The settings that decide which weights there are.
        runtime: The model of the runtime, where it was written.
    """

    folder: Path
    labels: tuple[str, ...]
    types: tuple[str, ...]
    shape: dict[str, Any]
    runtime: Path | None


def write(
    folder: Path,
    settings: EncoderSettings,
    labels: Sequence[str],
    types: Sequence[str],
    weights: Weights | None,
) -> None:
    """Write a model; the folder is replaced when all is written.

    Args:
        folder: Where to. It may be the folder that the model was read from.
        settings: Its settings.
        labels: Its labels.
        types: The entity types of its training.
        weights: Its weights; None where it was not trained.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as name:
        aside = Path(name) / "model"
        aside.mkdir()
        if weights is not None:
            with quiet_loading():
                weights.network.encoder.config.save_pretrained(aside)
                weights.tokenizer.save_pretrained(aside)
            save_file(tensors_of(weights.network), aside / WEIGHTS_FILE)
            if weights.runtime is not None:
                weights.runtime.write(aside / RUNTIME_FILE)
        data = {
            "base": settings.base,
            "revision": settings.revision,
            "trained": weights is not None,
            "labels": list(labels),
            "types": list(types),
            "shape": {name: getattr(settings, name) for name in SHAPE},
        }
        (aside / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")
        atomic_replace(aside, folder)


def read(folder: Path) -> StoredEncoder | None:
    """Read what `write` wrote, all but the weights; None where it was not trained.

    Raises:
        ModelError: The folder is incomplete or damaged.
    """
    try:
        data = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        trained, labels, types = data["trained"], tuple(data["labels"]), tuple(data["types"])
        shape = {name: data["shape"][name] for name in SHAPE}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is missing or damaged: save the pipeline again.") from error
    if not trained:
        return None
    check_folder(folder, str(folder))
    runtime = folder / RUNTIME_FILE
    return StoredEncoder(folder, labels, types, shape, runtime if runtime.exists() else None)


def load_weights(network: torch.nn.Module, stored: StoredEncoder) -> None:
    """Put the saved weights into a network.

    Raises:
        ModelError: They are damaged, or those of another network.
    """
    file = stored.folder / WEIGHTS_FILE
    try:
        network.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The weights in {file} are damaged or incomplete ({reason}).") from error
