from __future__ import annotations

from pathlib import Path

import pytest

from spacy_slmre.models.encoder.universal import UniversalEncoder, UniversalEncoderSettings
from spacy_slmre.training.config import EncoderTuningSettings, TuningError
from spacy_slmre.training.data import TuningSet
from spacy_slmre.training.encoder import train_encoder
from tests.models.encoder.test_model import INSTANCES, SCHEMA


@pytest.mark.parametrize(("target_loss", "steps"), [(100.0, [25]), (0.0, [25, 50, 60])])
def test_training_stops_at_the_target_loss(
    target_loss: float, steps: list[int], tiny_encoder: Path, tmp_path: Path
) -> None:
    exact = UniversalEncoderSettings(dtype="float32", device="cpu")
    encoder = UniversalEncoder.from_base(exact, str(tiny_encoder))
    data = TuningSet("own", SCHEMA, list(INSTANCES), list(INSTANCES), ["doc"] * len(INSTANCES), {})
    settings = EncoderTuningSettings(num_train_epochs=60, target_loss=target_loss)
    messages: list[str] = []
    trained = train_encoder(encoder, data, settings, tmp_path / "encoder", seed=0, log=messages.append)
    assert [message.split(":")[0].strip() for message in messages[1:]] == [f"step {step}" for step in steps]
    assert trained.log_probs(INSTANCES, SCHEMA).shape == (len(INSTANCES), len(SCHEMA.names))


def test_training_without_improvement_stops(tiny_encoder: Path, tmp_path: Path) -> None:
    # Scores that are equal to the best do not count as improvements, although the last of them is kept.
    exact = UniversalEncoderSettings(dtype="float32", device="cpu")
    encoder = UniversalEncoder.from_base(exact, str(tiny_encoder))
    data = TuningSet("own", SCHEMA, list(INSTANCES), list(INSTANCES), ["doc"] * len(INSTANCES), {})
    settings = EncoderTuningSettings(eval_steps=2, early_stopping_patience=3, target_loss=0.0, learning_rate=1e-12)
    messages: list[str] = []
    train_encoder(encoder, data, settings, tmp_path / "encoder", seed=0, log=messages.append)
    assert [message.split(":")[0].strip() for message in messages[1:]] == ["step 2", "step 4", "step 6", "step 8"]


def test_a_negative_target_loss_is_refused() -> None:
    with pytest.raises(TuningError, match=r"encoder\.target_loss = -1"):
        EncoderTuningSettings(target_loss=-1.0)
