"""Trainable LoRA weights in a base model: made, found, read out."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from spacy_slmre.models.causal_lm.loading import ModelError

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Size and place of LoRA weights (arXiv 2106.09685).

    Attributes:
        rank: Their rank.
        alpha: Their scale is alpha / rank.
        dropout: Share of their inputs that is dropped in training.
        top_layers: Only the uppermost layers get some; 0 gives them to all.
        begin_with: "nothing", so that the model is as it was before it is tuned; or "rounding", the best of
            their rank for what rounding its weights to 4 bits has lost (`spacy_slmre.models.causal_lm.qera`).

    Raises:
        ModelError: A value is out of its range.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    top_layers: int = 0
    begin_with: str = "nothing"

    def __post_init__(self) -> None:
        if self.begin_with not in ("nothing", "rounding"):
            raise ModelError(f'lora.begin_with = "{self.begin_with}": use "nothing" or "rounding".')
        for name, least in (("rank", 1), ("alpha", 1), ("top_layers", 0)):
            if getattr(self, name) < least:
                raise ModelError(f"lora.{name} = {getattr(self, name)}, but it must be at least {least}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"lora.dropout = {self.dropout}, but it must be at least 0 and less than 1.")


def add_lora(network: PreTrainedModel, settings: LoraSettings, seed: int = 0) -> PeftModel:
    """Put new LoRA weights into all linear layers, in place; they change nothing before they are trained.

    Raises:
        ModelError: The model has fewer layers than `top_layers`.
    """
    from peft import LoraConfig, get_peft_model

    n_layers = network.config.get_text_config().num_hidden_layers
    if settings.top_layers > n_layers:
        raise ModelError(f"lora.top_layers = {settings.top_layers}, but the model has {n_layers} layers.")
    chosen = list(range(n_layers - settings.top_layers, n_layers)) if settings.top_layers else None
    linear = {
        name.rpartition(".")[2]
        for name, module in network.get_decoder().named_modules()
        if isinstance(module, nn.Linear)  # those in 4 bits are too
    }
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(linear),
        layers_to_transform=chosen,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for an attribute under its former name.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        training = network.training
        return get_peft_model(network, config).train(training)  # new layers begin in training mode


def unfreeze_lora(network: nn.Module) -> None:
    """Make LoRA weights, and nothing else, trainable; they are kept in float32, whatever the base has."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_lora(name))
        if is_lora(name):
            parameter.data = parameter.data.float()


def merge_lora(peft_model: PeftModel) -> bool:
    """Add LoRA weights to those that they stand beside, which makes scoring a fifth to a quarter faster.

    The sum is rounded to the weights' type. In bfloat16 that changes scores no more than computing in it
    does: with CoNLL04's pairs, the mean distance to float32's probabilities was 0.0020 either way.

    Returns:
        Whether it was done: weights in 4 bits would be rounded to something else, weights that two layers
        share (a head tied to the embeddings) would change both, and kinds of adapters other than plain LoRA
        have rules of their own.
    """
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    holders = Counter(id(own) for module in peft_model.modules() for own in module.parameters(recurse=False))

    def is_plain(layer: BaseTunerLayer) -> bool:
        base = layer.get_base_layer()
        plain = type(layer) is Linear and not layer.lora_variant and type(base) is nn.Linear
        return plain and holders[id(base.weight)] == 1

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    merged = bool(layers) and all(map(is_plain, layers))
    if merged:
        peft_model.merge_adapter()
    return merged


def set_dropout(network: nn.Module, share: float) -> None:
    """Set the dropout in front of all LoRA weights."""
    from peft.tuners.lora import LoraLayer

    for module in network.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if getattr(dropout, "p", 0.0) != share:
                    new = nn.Dropout(share) if share else nn.Identity()
                    module.lora_dropout[name] = new.train(module.training)


def is_lora(name: str) -> bool:
    """Whether a parameter of this name is one of LoRA's."""
    return "lora_" in name


def round_lora(network: nn.Module, dtype: torch.dtype) -> None:
    """Round LoRA weights to what a type can hold, in place, so that scores are those of the saved file."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if is_lora(name):
                parameter.copy_(parameter.to(dtype))


def read_lora(peft_model: PeftModel, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], bytes]:
    """Peft's configuration as plain data, and the weights as a safetensors file.

    Args:
        peft_model: The model.
        dtype: What the weights are written in.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in get_peft_model_state_dict(peft_model).items()
    }
    config = peft_model.peft_config["default"].to_dict()
    # Names of layers are a set; where the base lies on this machine is nobody's concern.
    plain = json.loads(json.dumps(config, default=lambda value: sorted(value), sort_keys=True))
    return {**plain, "base_model_name_or_path": None, "inference_mode": True}, save(tensors)
