"""Settings of tuning."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers.integrations import get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.sequences import OBJECTIVES

LEAST_ROOM = 64
"""Tokens behind the prefix, below which a sequence is of no use."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TuningError(ModelError):
    """Tuning cannot begin or go on; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How to tune.

    Attributes:
        objective: "trie" (the negative log of the label's probability) or "lm" (the study's plain loss).
        max_tokens: Tokens of a packed sequence, instruction included.
        sequences_per_step: Packed sequences of one optimizer step, on each device.
        epochs: Times through the training data.
        max_steps: Stop after this many steps; 0 sets no limit.
        learning_rate: At its highest.
        schedule: How it decays: "linear", "cosine" or "constant_with_warmup".
        warmup: Share of the steps in which it rises.
        weight_decay: Of AdamW.
        max_grad_norm: Longer gradients are shortened to this.
        optimizer: A name that `TrainingArguments.optim` knows; "auto" is paged 8-bit AdamW on a GPU, else
            AdamW.
        gradient_checkpointing: Compute activations twice to keep fewer of them.
        evaluate_every: Steps between evaluations, which also are when a checkpoint is written; 0 evaluates
            after every epoch.
        patience: Evaluations without a better score, after which tuning stops; 0 never stops early.
        adapter_dtype: What the adapter is saved in, "bfloat16" or "float32".
        seed: Of weights, order and dropout.
        trackers: Trackers that `TrainingArguments.report_to` knows ("tensorboard", "wandb", …) and whose
            packages are installed.

    Raises:
        TuningError: A value is out of its range, or a tracker is not installed.
    """

    objective: str = "trie"
    max_tokens: int = 1024
    sequences_per_step: int = 2
    epochs: float = 2.0
    max_steps: int = 0
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup: float = 0.03
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optimizer: str = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int = 0
    patience: int = 0
    adapter_dtype: str = "bfloat16"
    seed: int = 42
    trackers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        allowed = {
            "objective": OBJECTIVES,
            "schedule": ("linear", "cosine", "constant_with_warmup"),
            "adapter_dtype": tuple(DTYPES),
            "optimizer": ("auto", *(name.value for name in OptimizerNames)),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise TuningError(
                    f'training.{name} = "{getattr(self, name)}", but it must be one of {", ".join(values)}.'
                )
        least = {"max_tokens": LEAST_ROOM, "sequences_per_step": 1, "max_steps": 0, "evaluate_every": 0}
        for name, value in {**least, "patience": 0, "weight_decay": 0, "max_grad_norm": 0}.items():
            if getattr(self, name) < value:
                raise TuningError(
                    f"training.{name} = {getattr(self, name)}, but it must be at least {value}."
                )
        for name in ("epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise TuningError(f"training.{name} = {getattr(self, name)}, but it must be more than 0.")
        if not 0 <= self.warmup < 1:
            raise TuningError(f"training.warmup = {self.warmup}, but it is a share of the steps (0 to 1).")
        available = get_available_reporting_integrations()
        if self.trackers not in (["all"], ["none"]) and (absent := sorted({*self.trackers} - {*available})):
            raise TuningError(
                f"training.trackers: {', '.join(absent)} cannot be used here, since the package is not "
                f"installed or it is no tracker of transformers. There are: {', '.join(available) or 'none'}."
            )
