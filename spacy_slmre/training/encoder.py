"""Train the encoder that answers together with a tuned language model, with spaCy's training loop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import spacy
from confection import Config
from spacy import util
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_nlp

from spacy_slmre.models.encoder.universal import UniversalEncoder, make_universal_encoder
from spacy_slmre.models.hub import locate_base
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TuningConfig
from spacy_slmre.util.io import remove

COMPONENT = "rel_classifier"


def describe_shipped_encoder() -> Any:
    """Describe the files that training starts from. Raises ModelError if the encoder is not installed."""
    encoder = make_universal_encoder()
    locate_base(encoder.base_name)
    return encoder.describe_files()


def train_encoder(
    config: TuningConfig, schema: LabelSchema, folder: Path, log: Callable[[str], None] = print
) -> UniversalEncoder:
    """Train the shipped encoder on the corpora of a tuning config, and return it as it was at its best step.

    Args:
        config: The config.
        schema: The labels.
        folder: Folder for the trained pipeline. If it exists, it is the result of an interrupted run.
        log: Reports progress.
    """
    if not folder.exists():
        log("Training the encoder …")
        temporary = folder.with_suffix(".part")
        remove(temporary)
        temporary.mkdir(parents=True)
        train_nlp(init_nlp(_make_config(config, schema)), temporary)
        shutil.move(temporary / "model-best", folder)
        remove(temporary)
    model = spacy.load(folder).get_pipe(COMPONENT).model  # type: ignore[attr-defined]
    assert isinstance(model, UniversalEncoder)
    return model.load()


def _make_config(config: TuningConfig, schema: LabelSchema) -> Config:
    """Return the config of `spacy train` for a tuning config."""
    settings = config.encoder
    overrides = {
        "nlp.lang": config.tune.lang,
        "system.seed": config.training.seed,
        "training.max_epochs": settings.max_epochs,
        "training.max_steps": settings.max_steps,
        "training.patience": settings.patience,
        "training.optimizer.learn_rate.initial_rate": settings.learning_rate,
    }
    with as_file(files("spacy_slmre.training") / "encoder.cfg") as path:
        made = util.load_config(path, overrides=overrides, interpolate=False)
    made["components"][COMPONENT]["schema"] = schema.to_dict()
    made["corpora"] = Config().from_str(config.text)["corpora"]
    return made
