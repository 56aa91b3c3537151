"""Hugging Face `Trainer` with the packed loss, relation scores and resumable runs."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from spacy_slmre.decoding import Decoding, Directions, decode, incomplete_rows, mention_keys
from spacy_slmre.metrics import PRF, count
from spacy_slmre.models.base import RelationModel
from spacy_slmre.models.causal_lm.loss import packed_loss
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.data import TrainingData, TuningSet
from spacy_slmre.training.frozen_layers import MAX_BYTES, FrozenLayers
from spacy_slmre.util.io import atomic_write

SCORE = "micro_f1"
BEST_SCORE = f"best_{SCORE}"
LOGGING_STEPS = 10
_MIN_THRESHOLD = 0.1
THRESHOLDS = [None, *(round(0.05 * step, 2) for step in range(round(_MIN_THRESHOLD / 0.05), 20))]
# With the lowest threshold, the two most probable labels include the best positive one.
_N_LABELS = 2
_REMEDY = "Start over with a lower training.learning_rate or, if model.dtype is float16, with another data type."


class TargetLossCallback(TrainerCallback):
    """Evaluates and stops when the mean training loss since the last log entry is below a target."""

    def __init__(self, target: float) -> None:
        self.target = target

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the loss of a log entry; entries of evaluations have none."""
        if (logs or {}).get("loss", self.target) < self.target:
            control.should_evaluate = control.should_save = control.should_training_stop = True


class ResumableTrainer(Trainer):
    """A `Trainer` that resumes from the last checkpoint in its output folder, even if the folder was moved."""

    _is_complete = False
    _seconds_before = 0.0
    _start = 0.0

    def __init__(self, *, model: Any, args: TrainingArguments, **kwargs: Any) -> None:
        if args.world_size == 1:
            check_device(model.device, args.device)
        # Without a launcher, `Trainer` would split each batch among all GPUs, but a batch is one sequence.
        args._n_gpu = min(args.n_gpu, 1)
        super().__init__(model=model, args=args, **kwargs)

    def run(self) -> None:
        """Train, starting from the last complete checkpoint if there is one."""
        checkpoint = last_checkpoint(Path(str(self.args.output_dir)))
        if checkpoint:
            state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
            callbacks: Any = state.stateful_callbacks
            # The run may have been interrupted after its last step, while scoring or writing.
            self._is_complete = callbacks["TrainerControl"]["args"]["should_training_stop"]
            self._seconds_before = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self._start = time.perf_counter()
        self.train(resume_from_checkpoint=checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # `Trainer` would take one more step before checking whether to stop.
        if not self._is_complete:
            super()._run_epoch(*args, **kwargs)

    @property
    def seconds(self) -> float:
        """Training time in seconds, including an interrupted run up to its last checkpoint."""
        return self._seconds_before + time.perf_counter() - self._start

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log metrics with the training time, which checkpoints store in their log history."""
        super().log({**logs, "seconds": round(self.seconds, 1)}, *args, **kwargs)


class PackedTrainer(ResumableTrainer):
    """A `Trainer` for packed sequences that keeps the weights with the best positive-class micro-F1.

    It is that of the most probable labels or, for an adapter with a threshold, that with the best common threshold.
    Call `lm.begin_training` first. Checkpoints are written to `folder`.
    """

    def __init__(
        self, lm: SmallLM, data: TrainingData, settings: TrainingSettings, folder: Path, **kwargs: Any
    ) -> None:
        self.lm = lm
        self.data = data
        network = lm.network
        on_gpu = network.device.type == "cuda"
        default_optim = "paged_adamw_8bit" if on_gpu else "adamw_torch"
        strategy = "steps" if settings.eval_steps else "epoch"
        args = TrainingArguments(
            output_dir=str(folder.resolve()),
            num_train_epochs=settings.num_train_epochs,
            max_steps=settings.max_steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_ratio,  # a value below 1 is a ratio
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            optim=default_optim if settings.optim == "auto" else settings.optim,
            activation_checkpointing=settings.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            bf16=network.dtype == torch.bfloat16,
            fp16=network.dtype == torch.float16,
            use_cpu=not on_gpu,
            eval_strategy=strategy,
            eval_steps=settings.eval_steps or None,
            save_strategy=strategy,
            save_steps=settings.eval_steps or 500,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model=SCORE,
            greater_is_better=True,
            restore_callback_states_from_checkpoint=True,
            logging_steps=LOGGING_STEPS,
            logging_nan_inf_filter=False,
            disable_tqdm=not sys.stderr.isatty(),
            report_to=settings.report_to or "none",
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=on_gpu,
        )
        super().__init__(args=args, train_dataset=data, eval_dataset=data, data_collator=_single, **kwargs)
        self._frozen_layers = FrozenLayers(network, MAX_BYTES if data.repeats else 0)
        # compute_loss divides by the number of items of the whole step.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        if settings.early_stopping_patience:
            self.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
        if settings.target_loss:
            self.add_callback(TargetLossCallback(settings.target_loss))

    def run(self) -> None:
        """Train; on a GPU, try the longest sequence first, so that a lack of memory is noticed at once."""
        if self.args.device.type == "cuda":
            self.try_longest_sequence()
        with self._frozen_layers.installed():
            super().run()

    def try_longest_sequence(self) -> None:
        """Compute the gradients of the longest sequence, and discard them."""
        model: Any = self.model
        if self.args.activation_checkpointing:  # `Trainer` enables it only when training starts
            model.activation_checkpointing_enable(self.args.activation_checkpointing_kwargs)
        model.train()
        batch = self._prepare_inputs(_single([self.data[self.data.longest()]]))
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.compute_loss_context_manager():
            packed_loss(model, batch).backward()
        model.zero_grad()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss over the instances of a step.

        Raises:
            TuningError: The loss is not finite.
        """
        with self._frozen_layers.of_sequence(int(inputs["position"])):
            loss = packed_loss(model, inputs) / num_items_in_batch
        if not torch.isfinite(loss):
            doc_ids = self.data.doc_ids(int(inputs["position"]))
            raise TuningError(
                f"The loss at step {self.state.global_step} is {loss.item()}. Documents in the batch: "
                f"{', '.join(doc_ids)}. {_REMEDY}"
            )
        return loss * self.accelerator.num_processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the dev instances.

        Raises:
            TuningError: A weight is not finite, or memory is insufficient.
        """
        if not all(torch.isfinite(weights).all() for weights in self.lm.trainable_parameters()):
            raise TuningError(f"Some weights of the adapter at step {self.state.global_step} are not finite. {_REMEDY}")
        start = time.perf_counter()
        scores = self.scores()
        best = scores[BEST_SCORE if self.data.has_threshold else SCORE]
        metrics = {f"eval_{SCORE}": best, "eval_runtime": time.perf_counter() - start}
        if len(scores["sets"]) > 1:
            metrics |= {f"eval_{name}": score["f"] for name, score in scores["sets"].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def scores(self) -> dict[str, Any]:
        """Return the dev scores of the current weights, as `score_sets` does.

        Raises:
            TuningError: The device is out of memory.
        """
        self.lm.clear_cache()  # optimizers of bitsandbytes change weights without raising torch's counter of changes
        limit = self.lm.settings.max_batch_tokens
        remedy = f"Set model.max_batch_tokens below {limit}, or use a smaller base model."
        with explain_out_of_memory("while the dev set was scored", remedy), self.accelerator.autocast():
            return score_sets(self.lm, self.data.sets)


def check_device(loaded: torch.device, used: torch.device) -> None:
    """Raise TuningError if a model was loaded to another GPU than the one that `Trainer` uses, which is the first."""
    if loaded.type == used.type == "cuda" and loaded.index not in (None, used.index):
        raise TuningError(
            f"The model is on {loaded}, but a single process trains on the first GPU. Set the environment variable "
            f'CUDA_VISIBLE_DEVICES={loaded.index}, and model.device = "cuda" or --gpu-id 0.'
        )


@contextmanager
def explain_out_of_memory(when: str, remedy: str) -> Iterator[None]:
    """Turn out-of-memory errors into a TuningError that suggests a remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TuningError(f"The device ran out of memory {when}. {remedy}") from error


def score_sets(model: RelationModel, sets: Sequence[TuningSet]) -> dict[str, Any]:
    """Score a model on the dev instances of label sets.

    Returns:
        "sets": positive-class precision "p", recall "r", F1 "f" and number of "instances" by name of the set;
        "micro_f1": the unweighted mean of F1 over the sets; "best_micro_f1": the same with the best common threshold
        of a label; "threshold": the one with the best mean of F0.5, in which precision is twice as important as recall
        (None for the most probable label); "micro_f1_at_threshold": the mean of F1 with it. Each pair has one label.
    """
    counts = {data.name: _counts_by_threshold(model, data) for data in sets}
    means = np.mean([[one.f1 for one in of_set] for of_set in counts.values()], axis=0)
    best = int(np.mean([[one.f_beta(0.5) for one in of_set] for of_set in counts.values()], axis=0).argmax())
    return {
        SCORE: float(means[0]),
        BEST_SCORE: float(means.max()),
        "sets": {data.name: {**counts[data.name][0].to_dict(), "instances": len(data.dev)} for data in sets},
        "threshold": THRESHOLDS[best],
        f"{SCORE}_at_threshold": float(means[best]),
    }


def _counts_by_threshold(model: RelationModel, data: TuningSet) -> list[PRF]:
    """Return the counts with each threshold, decoded as the components do."""
    schema = data.schema
    # A pair with several labels is predicted once.
    keys = mention_keys(data.dev)
    pairs = dict(zip(keys, data.dev, strict=True))
    mentions, instances = list(pairs), list(pairs.values())
    decodings = [Decoding(threshold) for threshold in THRESHOLDS]
    directions = Directions.of_mentions(mentions, schema)
    log_probs = model.log_probs(instances, schema, k=_N_LABELS, min_prob=_MIN_THRESHOLD)
    rows = {row for one in decodings[:2] for row in incomplete_rows(log_probs, directions, schema, one).tolist()}
    for row, complete in zip(rows, model.log_probs([instances[row] for row in rows], schema), strict=True):
        log_probs[row] = complete
    gold = [(key, str(instance.label)) for key, instance in zip(keys, data.dev, strict=True)]
    gold = [item for item in gold if item[1] != schema.negative_label]
    counts = []
    for decoding in decodings:
        found = decode(log_probs, directions, mentions, schema, decoding)
        counts.append(count(gold, [(mentions[row], schema.names[column]) for row, column, _ in found]))
    return counts


def last_checkpoint(folder: Path) -> str | None:
    """Return the last complete checkpoint in a folder, and remove incomplete later ones.

    Its path of the best checkpoint is updated, since the folder may have been moved.
    """
    while folder.is_dir() and (checkpoint := get_last_checkpoint(str(folder))):
        file = Path(checkpoint, TRAINER_STATE_NAME)  # written last, so a checkpoint with it is complete
        try:
            state = TrainerState.load_from_json(str(file))
        except (OSError, ValueError, TypeError):
            shutil.rmtree(checkpoint)
            continue
        if (best := state.best_model_checkpoint) is not None:
            state.best_model_checkpoint = str(folder.resolve() / Path(best).name)
            if state.best_model_checkpoint != best:
                atomic_write(file, json.dumps(vars(state), indent=2))
        return checkpoint
    return None


def _single(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    (item,) = items
    return item
