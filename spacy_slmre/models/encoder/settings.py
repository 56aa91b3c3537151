"""The settings of an encoder classifier."""

from __future__ import annotations

from dataclasses import dataclass

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.markers import STYLES
from spacy_slmre.models.hub import PACKAGED_ENCODER, resolve_device, resolve_dtype
from spacy_slmre.util.settings import check_choice, check_minimum, check_positive, check_probability, check_types

LEVITATED = "levitated"
RUNTIMES = ("torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class PairEncoderSettings:
    """The settings that all encoders have; see `EncoderSettings`.

    Raises:
        ModelError: A value is out of range.
    """

    dropout: float | None = None
    head_learn_rate: float = 1.0
    mixed_precision: bool = True
    dtype: str = "auto"
    device: str = "auto"
    max_batch_tokens: int = 4096

    def __post_init__(self) -> None:
        check_types(self, "model", ModelError)
        check_minimum(self, "model", ModelError, max_batch_tokens=1)
        check_probability(self, "model", ModelError, names=["dropout"], below_1=True)
        check_positive(self, "model", ModelError, names=["head_learn_rate"])
        resolve_dtype(self.dtype, resolve_device(self.device))


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(PairEncoderSettings):
    """Settings of an encoder classifier: the arguments of `spacy-slmre.EncoderClassifier.v1`.

    Attributes:
        base: "all-minilm-l6-v2" (the packaged encoder, the default), a folder, or a hub id.
        revision: Commit or tag on the hub.
        markers: How arguments are marked: "typed" (new tokens for side and entity type in the text), "plain" (new
            tokens for the side), "punctuation" (punctuation marks, and the type as a word) or "levitated" (new tokens
            after the text, which all pairs of a context share: much faster with several pairs per sentence).
        type_embedding: Append embeddings of both entity types to the marker states; not with levitated markers, whose
            embeddings contain the types.
        dropout: Dropout rate inside the encoder; null keeps the rate of its config. With levitated markers, attention
            has no dropout. The rate before the label head is spaCy's `training.dropout`.
        frozen_layers: Freeze the embeddings and this many lower layers; null trains everything.
        head_learn_rate: Learning rate of the label head and new marker tokens, as a multiple of the encoder's.
        mixed_precision: Train in bfloat16 if the hardware supports it; weights remain in float32.
        dtype: Type for inference: "float32", "bfloat16", "float16", or "auto": bfloat16 if the hardware supports it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU if there is one.
        runtime: Runtime for inference: "torch", or "openvino" on CPUs (requires `spacy-slmre[openvino]`; not with
            levitated markers).
        max_batch_tokens: Tokens of a batch, including padding.
        seed: Seed of new weights.

    Raises:
        ModelError: A value is out of range, or does not fit another one.
    """

    base: str = PACKAGED_ENCODER
    revision: str | None = None
    markers: str = "typed"
    type_embedding: bool = False
    frozen_layers: int | None = None
    runtime: str = "torch"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "model", ModelError, markers=(*STYLES, LEVITATED), runtime=RUNTIMES)
        check_minimum(self, "model", ModelError, frozen_layers=0)
        if self.runtime == "openvino" and self.device not in ("auto", "cpu"):
            raise ModelError(f'model.runtime = "openvino" runs on the CPU, not on "{self.device}".')
        if self.markers == LEVITATED and self.runtime == "openvino":
            raise ModelError(
                'model.runtime = "openvino" does not support model.markers = "levitated": set model.runtime = "torch", '
                'or model.markers to "typed".'
            )
        if self.markers == LEVITATED and self.type_embedding:
            raise ModelError(
                'model.type_embedding is of no use with model.markers = "levitated", whose embeddings contain the '
                "entity types: remove it."
            )
