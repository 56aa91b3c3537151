"""The encoder classifier as an architecture of spaCy's configs."""

from __future__ import annotations

from spacy_slmre.models.encoder.loading import PACKAGED_ENCODER
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.models.encoder.settings import EncoderSettings


def make_encoder_classifier(
    base: str = PACKAGED_ENCODER,
    revision: str | None = None,
    markers: str = "typed",
    type_embedding: bool = False,
    dropout: float | None = None,
    frozen_layers: int | None = None,
    head_learn_rate: float = 1.0,
    mixed_precision: bool = True,
    dtype: str = "auto",
    device: str = "auto",
    runtime: str = "torch",
    max_batch_tokens: int = 4096,
    seed: int = 0,
) -> EncoderClassifier:
    """Registered as `@architectures = "spacy-slmre.EncoderClassifier.v1"`. No weights are read here.

    Args:
        base: "all-minilm-l6-v2" (the packaged encoder, the default), a folder, or a hub id.
        revision: Commit or tag on the hub.
        markers: What stands around the arguments: "typed" (new tokens that name side and entity type),
            "plain" (new tokens that name the side) or "punctuation" (signs and the type in words).
        type_embedding: Give the label head an embedding of both entity types beside the marker states.
        dropout: Dropout inside the encoder; null keeps what its own config says. The dropout before the label
            head is spaCy's `training.dropout`.
        frozen_layers: Keep the embeddings and this many lower layers as they are; null trains everything.
        head_learn_rate: The learning rate of the label head and of new marker tokens, as a multiple of the
            encoder's.
        mixed_precision: Train in bfloat16 where the hardware computes in it; the weights stay in float32.
        dtype: Of inference: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware computes
            in it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU where there is one.
        runtime: What predicts: "torch", or "openvino" on CPUs (needs `spacy-slmre[openvino]`).
        max_batch_tokens: Tokens computed together, padding included.
        seed: Of new weights.

    Raises:
        ModelError: A setting is out of its range.
    """
    settings = EncoderSettings(
        base=base,
        revision=revision,
        markers=markers,
        type_embedding=type_embedding,
        dropout=dropout,
        frozen_layers=frozen_layers,
        head_learn_rate=head_learn_rate,
        mixed_precision=mixed_precision,
        dtype=dtype,
        device=device,
        runtime=runtime,
        max_batch_tokens=max_batch_tokens,
        seed=seed,
    )
    return EncoderClassifier(settings)
