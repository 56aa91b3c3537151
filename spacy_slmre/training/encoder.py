"""Train the encoder that answers together with a tuned language model."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from thinc.api import Adam, warmup_linear

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.universal import UniversalEncoder, make_universal_encoder
from spacy_slmre.models.hub import locate_base
from spacy_slmre.training.config import EncoderTuningSettings, TuningError
from spacy_slmre.training.data import TuningSet
from spacy_slmre.training.trainer import SCORE, score_sets
from spacy_slmre.util.io import remove

BATCH_SIZE = 32
"""Minimum number of pairs of a step; all pairs of a context are in one."""
# As in configs/rel_classifier_universal.cfg.
_WARMUP_STEPS = 20
_DROPOUT = 0.1
_HEAD_LEARN_RATE = 5.0


def describe_shipped_encoder() -> Any:
    """Describe the files that training starts from. Raises ModelError if the encoder is not installed."""
    encoder = make_universal_encoder()
    try:
        locate_base(encoder.base_name)
    except ModelError as error:
        raise ModelError(f"{error}\nOr tune the language model alone, with --encoder.weight 0.") from error
    return encoder.describe_files()


def load_shipped_encoder(device: torch.device) -> UniversalEncoder:
    """Load the encoder that training starts from. Raises ModelError if it is not available."""
    return make_universal_encoder(device=str(device), head_learn_rate=_HEAD_LEARN_RATE).load()


def train_encoder(
    encoder: UniversalEncoder,
    data: TuningSet,
    settings: EncoderTuningSettings,
    folder: Path,
    *,
    seed: int,
    log: Callable[[str], None] = print,
) -> UniversalEncoder:
    """Train an encoder, and return it as it was at its best step on the dev instances.

    Args:
        encoder: The encoder; its weights change.
        data: Training and dev instances that fit the encoder.
        settings: How long to train.
        folder: Folder for the weights. If it exists, it is the result of an interrupted run.
        seed: Seed of the order and of dropout.
        log: Reports the dev scores.

    Raises:
        TuningError: The loss is not finite.
    """
    if not folder.exists():
        temporary = folder.with_suffix(".part")
        remove(temporary)
        _train(encoder, data, settings, temporary, seed, log)
        shutil.move(temporary, folder)
    return encoder.restore(folder).load()


def _train(
    encoder: UniversalEncoder,
    data: TuningSet,
    settings: EncoderTuningSettings,
    folder: Path,
    seed: int,
    log: Callable[[str], None],
) -> None:
    """Train, and save the weights with the best micro-F1 in a folder."""
    log("Training the encoder …")
    torch.manual_seed(seed)
    schedule = warmup_linear(settings.learning_rate, _WARMUP_STEPS, settings.max_steps)
    optimizer = Adam(  # a schedule is a generator, which Thinc's annotation does not say
        schedule,  # type: ignore[arg-type]
        L2=0.01,
        L2_is_weight_decay=True,
        grad_clip=1.0,
        use_averages=False,
    )
    steps = list(islice(_batches(data.train, settings.num_train_epochs, seed), settings.max_steps))
    encoder.save(folder, embed=False)  # kept if there are no steps, because no pair fits
    best_score, n_without_improvement = -1.0, 0
    losses: list[float] = []  # since the last evaluation
    for step, batch in enumerate(steps, 1):
        loss = encoder.update(batch, data.schema, drop=_DROPOUT)
        if not math.isfinite(loss):
            raise TuningError(f"The encoder's loss at step {step} is {loss}. Lower encoder.learning_rate.")
        encoder.finish_update(optimizer)
        optimizer.step_schedules()
        losses.append(loss)
        if step % settings.eval_steps == 0 or step == len(steps):
            score = score_sets(encoder, [data])[SCORE]
            log(f"  step {step}: micro-F1 {score:.3f} on dev")
            # As in spaCy, the last of equal checkpoints is kept, but does not count as an improvement.
            if score >= best_score:
                encoder.save(folder, embed=False)
            n_without_improvement = 0 if score > best_score else n_without_improvement + 1
            best_score = max(score, best_score)
            is_stuck = 0 < settings.early_stopping_patience <= n_without_improvement
            if is_stuck or fmean(losses) < settings.target_loss:
                break
            losses.clear()


def _batches(instances: Sequence[RelationInstance], n_epochs: int, seed: int) -> Iterator[list[RelationInstance]]:
    """Yield the instances of each epoch in random order, those of a context together."""
    by_context: dict[int, list[RelationInstance]] = {}
    for instance in instances:
        by_context.setdefault(id(instance.context), []).append(instance)
    groups = list(by_context.values())
    rng = random.Random(seed)
    for _ in range(n_epochs):
        rng.shuffle(groups)
        batch: list[RelationInstance] = []
        for group in groups:
            batch += group
            if len(batch) >= BATCH_SIZE:
                yield batch
                batch = []
        if batch:
            yield batch
