"""Tuning an adapter with Hugging Face `Trainer` and peft, on the packed sequences of one or several schemas.

Everything here is about instances; where they come from and what becomes of the adapter is the business of
`spacy_slmre.training`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from spacy_slmre.models.causal_lm.lora import LoraSettings, round_lora
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.training.data import TuningData, TuningSet
from spacy_slmre.training.settings import DTYPES, LEAST_ROOM, TuningError, TuningSettings
from spacy_slmre.training.trainer import PackedTrainer, last_checkpoint
from spacy_slmre.util.io import atomic_write

logger = logging.getLogger("spacy")

BUDGET_FILE = "budget.json"
SEQUENCES_FOR_ROUNDING = 24
"""So many show how large the inputs of layers are, where LoRA weights make up for rounding."""


@dataclass
class TuningResult:
    """What came out of tuning.

    Attributes:
        scores: Scores on the dev instances, taken after the adapter was rounded.
        best_step: The step that the adapter is from.
        steps: Steps that were made.
        seconds: Time that tuning took, with what an interrupted run took until its last checkpoint.
        max_tokens: Tokens of a sequence; fewer than asked for where memory did not suffice.
        sequences_per_step: Sequences of an optimizer step; more than asked for where that was so.
        tokens_per_epoch: Tokens of all sequences together.
        pairs_per_epoch: Training instances.
        shortened: Instances whose context was shortened to fit, in training and dev.
        dropped: Instances whose arguments stand too far apart to fit.
        history: What was logged, step by step.
    """

    scores: dict[str, Any]
    best_step: int
    steps: int
    seconds: float
    max_tokens: int
    sequences_per_step: int
    tokens_per_epoch: int
    pairs_per_epoch: int
    shortened: int
    dropped: int
    history: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def tune(
    lm: SmallLM,
    sets: Sequence[TuningSet],
    settings: TuningSettings,
    lora: LoraSettings,
    folder: Path,
    *,
    resume: bool = False,
) -> TuningResult:
    """Tune a model's adapter; it is then the adapter that `lm.save` writes.

    Args:
        lm: The model. One that has an adapter already goes on with that.
        sets: The instances, by schema.
        settings: How to tune.
        lora: Size of a new adapter.
        folder: Where checkpoints go.
        resume: Go on from the last checkpoint in the folder, where there is one.

    Raises:
        TuningError: There is nothing to train or evaluate on, a loss is no number, or memory does not
            suffice for the smallest sequences.
    """
    for one in sets:
        for split, instances in (("training", one.train), ("dev", one.dev)):
            if not instances:
                raise TuningError(f"{one.name} has no {split} instances. Is the right split configured?")
    if not sets:
        raise TuningError("There are no training instances: the training corpus is empty.")
    folder.mkdir(parents=True, exist_ok=True)
    settings = _budget(folder, settings) if resume else settings
    is_new = lm.adapter is None
    peft_model = lm.begin_training({one.name: one.schema for one in sets}, lora, seed=settings.seed)
    data = TuningData(lm, sets, settings)
    if lora.init_lora == "qera" and is_new and not (resume and last_checkpoint(folder)):
        order = np.random.default_rng(settings.seed).permutation(len(data))
        batches = (data.batch(int(position)) for position in order[:SEQUENCES_FOR_ROUNDING])
        try:
            lm.init_lora_with_qera(batches)
        except torch.OutOfMemoryError as error:
            raise TuningError(
                "The device's memory does not suffice for the base model in 4 bits and with plain weights at "
                'once, which lora.init_lora = "qera" takes. Set lora.init_lora = "default".'
            ) from error
    untrained = [parameter.detach().clone() for parameter in lm.trainable_parameters()]
    while True:
        trainer = PackedTrainer(lm, data, settings, folder, model=peft_model)
        try:
            trainer.run(resume)
        except torch.OutOfMemoryError as error:
            if trainer.args.world_size > 1:
                raise TuningError(
                    f"The memory of one of {trainer.args.world_size} devices does not suffice for sequences "
                    f"of {settings.max_tokens} tokens. Set a smaller training.max_tokens, or "
                    "training.gradient_checkpointing = true."
                ) from error
            smaller = replace(
                settings,
                max_tokens=settings.max_tokens // 2,
                sequences_per_step=2 * settings.sequences_per_step,
            )
            if smaller.max_tokens < data.longest_prefix + LEAST_ROOM:
                raise TuningError(
                    f"The device's memory does not suffice for sequences of {settings.max_tokens} tokens, "
                    "and shorter ones would hold no text behind the instruction. Set "
                    "training.gradient_checkpointing = true, take a smaller base model, or drop definitions "
                    "or demonstrations."
                ) from error
            logger.warning(
                "Out of memory with sequences of %d tokens: beginning again with %d tokens, and twice as "
                "many sequences a step.",
                settings.max_tokens,
                smaller.max_tokens,
            )
            settings, resume = smaller, False
            for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):  # of other steps than those to come
                shutil.rmtree(checkpoint)
            budget = {name: getattr(settings, name) for name in ("max_tokens", "sequences_per_step")}
            atomic_write(folder / BUDGET_FILE, json.dumps(budget))
            data = TuningData(lm, sets, settings)
            del trainer
            with torch.no_grad():
                for parameter, before in zip(lm.trainable_parameters(), untrained, strict=True):
                    parameter.copy_(before)
                    parameter.grad = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        break
    seconds = trainer.seconds
    dtype = DTYPES[settings.adapter_dtype]
    round_lora(lm.network, dtype)
    scores = trainer.scores()
    lm.export_adapter(dtype)
    best = trainer.state.best_global_step or trainer.state.global_step
    return TuningResult(
        scores,
        best,
        trainer.state.global_step,
        seconds,
        settings.max_tokens,
        settings.sequences_per_step,
        sum(data.size(position) for position in range(len(data))),
        sum(len(one.train) for one in data.sets),
        data.shortened,
        data.dropped,
        trainer.state.log_history,
    )


def _budget(folder: Path, settings: TuningSettings) -> TuningSettings:
    """The settings with the budget that an interrupted run had to come down to."""
    file = folder / BUDGET_FILE
    return replace(settings, **json.loads(file.read_text())) if file.exists() else settings
