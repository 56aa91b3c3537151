"""Hugging Face `Trainer` with our loss and our scores."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from spacy_slmre.slm.model import SmallLM
from spacy_slmre.slm.objective import packed_loss
from spacy_slmre.slm.tuning_data import SCORE, TuningData, evaluate
from spacy_slmre.slm.tuning_settings import TuningError, TuningSettings

_REMEDY = "Begin anew with a lower training.learning_rate or, where model.dtype is float16, with another one."


class PackedTrainer(Trainer):
    """`Trainer` with our loss, and evaluation by positive-class micro-F1."""

    def __init__(
        self, lm: SmallLM, data: TuningData, settings: TuningSettings, folder: Path, **kwargs: Any
    ) -> None:
        self.lm = lm
        self.data = data
        self.folder = folder
        network = lm.network
        on_gpu = network.device.type == "cuda"
        optimizer = "paged_adamw_8bit" if on_gpu else "adamw_torch"
        strategy = "steps" if settings.evaluate_every else "epoch"
        args = TrainingArguments(
            output_dir=str(folder),
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
        """Train, from the last complete checkpoint where that is wanted, and keep the best weights."""
        if self.args.device.type == "cuda":
            self._try_longest()
        checkpoint = last_checkpoint(self.folder) if resume else None
        self._spent = _seconds_of(checkpoint) if checkpoint else 0.0
        self._started = time.perf_counter()
        self.train(resume_from_checkpoint=checkpoint)

    @property
    def seconds(self) -> float:
        """What training took so far, with what an interrupted run took until its checkpoint."""
        return self._spent + time.perf_counter() - self._started

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As ever, with the time, which checkpoints keep."""
        super().log({**logs, "seconds": round(self.seconds, 1)}, *args, **kwargs)

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
        """Scores of the weights as they are now."""
        with self.accelerator.autocast():
            return evaluate(self.lm, self.data.sets)


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end; what a killed process left is removed."""
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        if (Path(found) / "trainer_state.json").exists():
            return found
        shutil.rmtree(found)
    return None


def _seconds_of(checkpoint: str) -> float:
    """What training took until a checkpoint."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    return max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)


def _single(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    (item,) = items
    return item
