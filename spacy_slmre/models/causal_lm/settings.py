"""Settings of a small language model."""

from __future__ import annotations

from dataclasses import dataclass, field

from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.loading import PACKAGED_BASE, QUANTIZATIONS, ModelError
from spacy_slmre.models.prompts import PromptStyle


@dataclass(frozen=True)
class SmallLMSettings:
    """Settings of a `SmallLM`; `make_small_lm` says what each means.

    Raises:
        ModelError: A setting is out of its range.
    """

    base: str = PACKAGED_BASE
    revision: str | None = None
    quantization: str | None = "auto"
    keep_4bit: bool = False
    dtype: str = "auto"
    device: str = "auto"
    max_batch_tokens: int = 1024
    prefix_cache: bool = True
    lora_rank: int = 16
    style: PromptStyle = field(default_factory=PromptStyle)

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            raise ModelError(f'model.quantization = "{self.quantization}": use "auto", "nf4", or null.')
        if self.max_batch_tokens < 1:
            raise ModelError(f"model.max_batch_tokens = {self.max_batch_tokens}, but it must be at least 1.")
        if self.lora_rank < 1:
            raise ModelError(f"model.lora_rank = {self.lora_rank}, but it must be at least 1.")
        if not self.base:
            raise ModelError(f'model.base is empty: give "{PACKAGED_BASE}", a folder or a hub id.')
        loading.resolve_dtype(self.dtype, loading.resolve_device(self.device))
