"""Hugging Face `Trainer` with our loss and our scores."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from spacy_slmre.models.causal_lm.loss import packed_loss
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.training.data import SCORE, TuningData, evaluate
from spacy_slmre.training.settings import LEAST_ROOM, TuningError, TuningSettings
from spacy_slmre.util.io import atomic_write

logger = logging.getLogger("spacy")

_REMEDY = "Begin anew with a lower training.learning_rate or, where model.dtype is float16, with another one."


class ResumableTrainer(Trainer):
    """`Trainer` whose interrupted runs go on wherever they were interrupted, and wherever they lie by now."""

    _at_end = False
    _spent = 0.0
    _started = 0.0

    def run(self, resume: bool) -> None:
        """Train, from the last complete checkpoint where that is wanted and there is one."""
        checkpoint = last_checkpoint(Path(str(self.args.output_dir))) if resume else None
        if checkpoint:
            state = _read_state(checkpoint)
            kept: Any = state.stateful_callbacks
            # What comes behind the last step (scoring, writing) may be all that is missing.
            self._at_end = kept["TrainerControl"]["args"]["should_training_stop"]
            self._spent = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self._started = time.perf_counter()
        self.train(resume_from_checkpoint=checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Trainer would make one step before it asks whether to stop.
        if not self._at_end:
            super()._run_epoch(*args, **kwargs)

    @property
    def seconds(self) -> float:
        """What training took so far, with what an interrupted run took until its checkpoint."""
        return self._spent + time.perf_counter() - self._started

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As ever, with the time, which checkpoints keep."""
        super().log({**logs, "seconds": round(self.seconds, 1)}, *args, **kwargs)


class PackedTrainer(ResumableTrainer):
    """With our loss, and evaluation by positive-class micro-F1; the best weights are kept."""

    def __init__(
        self, lm: SmallLM, data: TuningData, settings: TuningSettings, folder: Path, **kwargs: Any
    ) -> None:
        self.lm = lm
        self.data = data
        network = lm.network
        on_gpu = network.device.type == "cuda"
        optimizer = "paged_adamw_8bit" if on_gpu else "adamw_torch"
        strategy = "steps" if settings.evaluate_every else "epoch"
        args = TrainingArguments(
            output_dir=str(folder.resolve()),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=settings.sequences_per_step,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim=optimizer if settings.optimizer == "auto" else settings.optimizer,
            activation_checkpointing=settings.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            bf16=network.dtype == torch.bfloat16,
            fp16=network.dtype == torch.float16,
            use_cpu=not on_gpu,
            eval_strategy=strategy,
            eval_steps=settings.evaluate_every or None,
            save_strategy=strategy,
            save_steps=settings.evaluate_every or 500,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model=SCORE,
            greater_is_better=True,
            restore_callback_states_from_checkpoint=True,
            logging_steps=10,
            logging_nan_inf_filter=False,
            disable_tqdm=not sys.stderr.isatty(),
            report_to=settings.trackers or "none",
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=on_gpu,
            seed=settings.seed,
        )
        super().__init__(args=args, train_dataset=data, eval_dataset=data, data_collator=_single, **kwargs)
        # Our losses are divided by what a whole step counts.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        if settings.patience:
            self.add_callback(EarlyStoppingCallback(settings.patience))

    def run(self, resume: bool) -> None:
        """As ever; on a GPU the longest sequence goes first."""
        if self.args.device.type == "cuda":
            self._try_longest()
        super().run(resume)

    def _try_longest(self) -> None:
        """Compute the longest sequence once, so that too little memory shows at once."""
        longest = max(range(len(self.data)), key=self.data.size)
        batch = self._prepare_inputs(_single([self.data[longest]]))
        assert self.model is not None
        self.model.train()
        with torch.random.fork_rng(), self.compute_loss_context_manager():
            packed_loss(self.model, batch).backward()
        self.model.zero_grad()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss over the instances of a step.

        Raises:
            TuningError: It is no number.
        """
        loss = packed_loss(model, inputs) / num_items_in_batch
        if not torch.isfinite(loss):
            ids = self.data.ids(int(inputs["position"]))
            raise TuningError(
                f"The loss at step {self.state.global_step} is {loss.item()}. Batch of: {', '.join(ids)}. "
                f"{_REMEDY}"
            )
        return loss * self.accelerator.num_processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the dev instances.

        Raises:
            TuningError: The weights are no numbers any more.
        """
        if not all(torch.isfinite(weights).all() for weights in self.lm.trainable_parameters()):
            raise TuningError(
                f"The adapter's weights at step {self.state.global_step} are not all numbers. {_REMEDY}"
            )
        start = time.perf_counter()
        scores = self.scores()
        metrics = {f"eval_{SCORE}": scores[SCORE], "eval_runtime": time.perf_counter() - start}
        if len(scores["sets"]) > 1:
            metrics |= {f"eval_{name}": one["f"] for name, one in scores["sets"].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def scores(self) -> dict[str, Any]:
        """Scores of the weights as they are now; with shorter sequences where memory does not suffice.

        Raises:
            TuningError: It does not suffice for short ones either.
        """
        while True:
            try:
                with self.accelerator.autocast():
                    return evaluate(self.lm, self.data.sets)
            except torch.OutOfMemoryError as error:
                tokens = self.lm.settings.max_batch_tokens
                if tokens < 2 * LEAST_ROOM:
                    raise TuningError(
                        f"The device's memory does not suffice for scoring {tokens} tokens at once: take a "
                        "smaller base model, or drop definitions or demonstrations."
                    ) from error
            logger.warning(
                "Out of memory while %d tokens were scored at once: going on with %d. Set "
                "model.max_batch_tokens for where the model is used.",
                tokens,
                tokens // 2,
            )
            self.lm.settings = replace(self.lm.settings, max_batch_tokens=tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end; what a killed process or a full disk left is removed.

    Where the best checkpoint lies is corrected in it: the folder may have been moved, or named differently.
    """
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        try:
            state = _read_state(found)
        except (OSError, ValueError, TypeError):
            shutil.rmtree(found)
            continue
        if (best := state.best_model_checkpoint) is not None:
            state.best_model_checkpoint = str(folder.resolve() / Path(best).name)
            if state.best_model_checkpoint != best:
                atomic_write(_state_file(found), json.dumps(vars(state), indent=2))
        return found
    return None


def _state_file(checkpoint: str) -> Path:
    """What is written last of a checkpoint."""
    return Path(checkpoint) / "trainer_state.json"


def _read_state(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(str(_state_file(checkpoint)))


def _single(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    (item,) = items
    return item
