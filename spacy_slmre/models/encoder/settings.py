"""Settings of an encoder classifier."""

from __future__ import annotations

from dataclasses import dataclass

from spacy_slmre.models.causal_lm.loading import ModelError, resolve_device, resolve_dtype
from spacy_slmre.models.encoder.loading import PACKAGED_ENCODER
from spacy_slmre.models.encoder.markers import STYLES

RUNTIMES = ("torch", "openvino")


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of an `EncoderClassifier`; `make_encoder_classifier` says what each means.

    Raises:
        ModelError: A setting is out of its range.
    """

    base: str = PACKAGED_ENCODER
    revision: str | None = None
    markers: str = "typed"
    type_embedding: bool = False
    dropout: float | None = None
    frozen_layers: int | None = None
    head_learn_rate: float = 1.0
    mixed_precision: bool = True
    dtype: str = "auto"
    device: str = "auto"
    runtime: str = "torch"
    max_batch_tokens: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.base:
            raise ModelError(f'model.base is empty: give "{PACKAGED_ENCODER}", a folder or a hub id.')
        for name, choices in (("markers", STYLES), ("runtime", RUNTIMES)):
            if getattr(self, name) not in choices:
                allowed = ", ".join(f'"{choice}"' for choice in choices)
                raise ModelError(f'model.{name} = "{getattr(self, name)}": use one of {allowed}.')
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"model.dropout = {self.dropout}, but it must be at least 0 and below 1.")
        for name, least in (("frozen_layers", 0), ("max_batch_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ModelError(f"model.{name} = {value}, but it must be at least {least}.")
        if self.head_learn_rate <= 0:
            raise ModelError(f"model.head_learn_rate = {self.head_learn_rate}, but it must be above 0.")
        device = resolve_device(self.device)
        resolve_dtype(self.dtype, device)
        if self.runtime == "openvino" and self.device not in ("auto", "cpu"):
            raise ModelError(f'model.runtime = "openvino" runs on the CPU, not on "{self.device}".')
