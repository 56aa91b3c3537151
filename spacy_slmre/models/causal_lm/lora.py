"""LoRA weights in a base model: creating, merging and exporting them."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spacy_slmre.models.base import ModelError
from spacy_slmre.util.settings import check_choice, check_maximum, check_minimum, check_probability, check_types

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

MAX_RANK = 1024
"""Maximum rank of LoRA weights; a higher one takes more memory than the layers that it adapts."""
# Settings of peft's `LoraConfig` that plain LoRA weights may have, and those that have no effect on them.
_PLAIN_SETTINGS = {"peft_type", "task_type", "r", "lora_alpha", "target_modules", "layers_to_transform"} | {
    *("base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_dropout", "megatron_core"),
    *("peft_version", "qalora_group_size", "revision"),
}


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Size and placement of LoRA weights (arXiv 2106.09685).

    Attributes:
        alpha: The weights are scaled by alpha / rank.
        dropout: Dropout rate of their inputs in training.
        top_layers: Train only the weights of this many upper layers; 0 trains all. A new adapter has no others.
        init_lora: "default" starts at zero, so that the model is unchanged before tuning; "qera" compensates for
            the quantization of the base model (`spacy_slmre.models.causal_lm.qera`).

    Raises:
        ModelError: A value is out of range.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    top_layers: int = 0
    init_lora: str = "default"

    def __post_init__(self) -> None:
        check_types(self, "lora", ModelError)
        check_choice(self, "lora", ModelError, init_lora=("default", "qera"))
        check_minimum(self, "lora", ModelError, rank=1, alpha=1, top_layers=0)
        check_maximum(self, "lora", ModelError, rank=MAX_RANK)
        check_probability(self, "lora", ModelError, names=["dropout"], below_1=True)


def add_lora(network: PreTrainedModel, settings: LoraSettings, seed: int = 0) -> PeftModel:
    """Add new LoRA weights to all linear layers in place; they have no effect until they are trained.

    Raises ModelError if the model has fewer layers than `top_layers`.
    """
    from peft import LoraConfig

    chosen = _trained_layers(network, settings)
    linear = {
        name.rpartition(".")[2]
        for name, module in network.get_decoder().named_modules()
        if isinstance(module, nn.Linear)  # 4-bit layers are subclasses
    }
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(linear),
        layers_to_transform=list(chosen) if settings.top_layers else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = network.training
        return wrap_with_peft(network, config).train(training)  # new layers start in training mode


def wrap_with_peft(network: PreTrainedModel, config: PeftConfig, **settings: Any) -> PeftModel:
    """Return `get_peft_model` without the name of the base model, which peft would look up on the hub when saving."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        # peft uses a deprecated attribute of transformers.
        warnings.simplefilter("ignore", FutureWarning)
        peft_model = get_peft_model(network, config, **settings)
    # The base model is identified by its fingerprint.
    config.base_model_name_or_path = ""
    return peft_model


def unfreeze_lora(network: PreTrainedModel, settings: LoraSettings) -> None:
    """Make only the LoRA weights of the upper layers trainable, and convert all LoRA weights to float32.

    Raises ModelError if the model has fewer layers than `top_layers`.
    """
    chosen = _trained_layers(network, settings)
    for name, parameter in network.named_parameters():
        number = _layer_number(name)
        parameter.requires_grad_(is_lora(name) and (number is None or number in chosen))
        if is_lora(name):
            parameter.data = parameter.data.float()


def _trained_layers(network: PreTrainedModel, settings: LoraSettings) -> range:
    n_layers = network.config.get_text_config().num_hidden_layers
    if settings.top_layers > n_layers:
        raise ModelError(f"lora.top_layers = {settings.top_layers}, but the model has {n_layers} layers.")
    return range(n_layers - settings.top_layers if settings.top_layers else 0, n_layers)


def _layer_number(name: str) -> int | None:
    """Return the number of the layer that a module or parameter belongs to, given its name."""
    found = re.search(r"\.(\d+)\.", name)
    return None if found is None else int(found[1])


def merge_lora(network: PreTrainedModel, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bool:
    """Merge LoRA weights into their layers, without peft, whose import takes seconds; return whether they were merged.

    Scoring is 20 to 25 % faster with merged weights. Nothing is merged into 4-bit weights or weights shared by two
    layers (a head tied to the embeddings), if the adapter is not plain LoRA, or if its weights do not fit the layers.
    The sum is rounded to the type of the weights. In bfloat16 this changes scores no more than computing in bfloat16
    does: on CoNLL04, the mean difference from the float32 probabilities was 0.0020 either way.

    Args:
        network: The base model.
        config: peft's configuration.
        tensors: The weights by peft's names.
    """
    if not _is_plain(config):
        return False
    n_uses = Counter(id(own) for module in network.modules() for own in module.parameters(recurse=False))
    weights = {}
    for name, layer in network.named_modules():
        if _is_adapted(name, config):
            if type(layer) is not nn.Linear or n_uses[id(layer.weight)] > 1:
                return False
            weights[name] = layer.weight
    return merge_into_weights(weights, config, tensors)


def merge_into_weights(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> bool:
    """Merge LoRA weights into the weights of linear layers by name; see `merge_lora`."""
    if not _is_plain(config):
        return False
    updates = {}
    for name, weight in weights.items():
        if _is_adapted(name, config):
            down, up = (tensors.get(f"base_model.model.{name}.lora_{side}.weight") for side in "AB")
            if down is None or up is None:
                return False
            if down.shape != (config["r"], weight.shape[1]) or up.shape != (weight.shape[0], config["r"]):
                return False
            updates[name] = (down, up)
    if not updates or len(tensors) != 2 * len(updates):
        return False
    with torch.no_grad():
        for name, (down, up) in updates.items():
            weight = weights[name]
            update = up.float() @ down.float() * (config["lora_alpha"] / config["r"])
            weight.copy_(weight.float() + update.to(weight.device))
    return True


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Return whether peft's configuration describes LoRA weights of one rank, and nothing else."""
    used = {name for name, value in config.items() if value not in (None, False, "none", {}, [])}
    plain = config.get("peft_type") == "LORA" and config.get("init_lora_weights", True) in (True, False)
    return plain and used <= _PLAIN_SETTINGS and isinstance(config.get("target_modules"), list)


def _is_adapted(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether peft adapts the layer with this name; see `_is_plain`."""
    chosen = config.get("layers_to_transform")
    in_chosen = chosen is None or _layer_number(name) in np.atleast_1d(chosen)
    return in_chosen and name.rpartition(".")[2] in config["target_modules"]


def set_dropout(network: nn.Module, rate: float) -> None:
    """Set the dropout rate of the inputs of all LoRA weights."""
    from peft.tuners.lora import LoraLayer

    for module in network.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if getattr(dropout, "p", 0.0) != rate:
                    new = nn.Dropout(rate) if rate else nn.Identity()
                    module.lora_dropout[name] = new.train(module.training)


def is_lora(name: str) -> bool:
    """Return whether a parameter belongs to LoRA."""
    return "lora_" in name


def round_lora(network: nn.Module, dtype: torch.dtype) -> None:
    """Round LoRA weights to a type in place, so that scores equal those of the saved file."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if is_lora(name):
                parameter.copy_(parameter.to(dtype))


def read_lora(peft_model: PeftModel, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], bytes]:
    """Return peft's configuration as plain data, and the weights, converted to `dtype`, as a safetensors file."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in get_peft_model_state_dict(peft_model).items()
    }
    config = peft_model.peft_config["default"].to_dict()
    # The names of target layers are a set. The local path of the base model is omitted.
    plain = json.loads(json.dumps(config, default=lambda value: sorted(value), sort_keys=True))
    return {**plain, "base_model_name_or_path": None, "inference_mode": True}, save(tensors)
