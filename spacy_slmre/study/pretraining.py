"""Domain-adaptive pretraining: a base model reads on in raw text before it is tuned.

Plain causal language modelling over blocks of tokens, with full weights or with LoRA weights that are merged
into the base in the end.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from spacy_slmre.models.causal_lm.lora import LoraSettings, add_lora
from spacy_slmre.training.config import TuningError
from spacy_slmre.training.trainer import ResumableTrainer

# From so many documents on, some of them are held out whole.
_HOLD_OUT_WHOLE = 10


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """How to pretrain; the defaults are the study's, which took 5,000 steps.

    Attributes:
        block_size: Tokens of a block.
        blocks_per_step: Blocks of one optimizer step.
        epochs: Times through the text.
        max_steps: Stop after this many steps; 0 sets no limit.
        learning_rate: At its highest; it rises and then falls linearly.
        warmup: Share of the steps in which it rises.
        weight_decay: Of AdamW.
        lora_rank: Train LoRA weights of this rank and merge them in the end; 0 trains all weights.
        holdout: Share of the text that perplexity is measured on.
        eval_blocks: Most blocks that it is measured on.
        save_every: Steps between checkpoints.
        gradient_checkpointing: Compute activations twice to keep fewer of them.
        seed: Of order and held-out documents.

    Raises:
        TuningError: A value is out of its range.
    """

    block_size: int = 1024
    blocks_per_step: int = 16
    epochs: float = 1.0
    max_steps: int = 0
    learning_rate: float = 2e-5
    warmup: float = 0.03
    weight_decay: float = 0.1
    lora_rank: int = 0
    holdout: float = 0.05
    eval_blocks: int = 100
    save_every: int = 250
    gradient_checkpointing: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        least = {"block_size": 8, "blocks_per_step": 1, "max_steps": 0, "lora_rank": 0}
        for name, value in {**least, "eval_blocks": 1, "save_every": 1, "weight_decay": 0}.items():
            if getattr(self, name) < value:
                raise TuningError(f"{_option(name)} {getattr(self, name)}: it must be at least {value}.")
        for name in ("epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise TuningError(f"{_option(name)} {getattr(self, name)}: it must be more than 0.")
        for name in ("warmup", "holdout"):
            if not 0 <= getattr(self, name) < 1:
                raise TuningError(f"{_option(name)} {getattr(self, name)}: it is a share (0 to 1).")
        if self.holdout == 0:
            raise TuningError("--holdout 0: perplexity needs some text that is not trained on.")


@dataclass(frozen=True)
class Blocks:
    """Text as token ids: (n_blocks, block_size) each.

    Attributes:
        train: What is trained on.
        held_out: What perplexity is measured on.
        tokens: Tokens of all text.
    """

    train: np.ndarray
    held_out: np.ndarray
    tokens: int


def make_blocks(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, settings: PretrainingSettings
) -> Blocks:
    """Cut texts into blocks; each text ends with the end token, and a block may hold parts of several.

    Held out are whole documents where there are ten or more, and some of a size that makes up the share;
    otherwise the last part of each.

    Raises:
        TuningError: There is too little text for a block to train on and one to hold out.
    """
    end = tokenizer.eos_token_id
    encoded = []
    for text in texts:
        # Piece by piece: tokenizers warn about texts longer than the model reads.
        ids = [i for line in text.splitlines(keepends=True) for i in _encode(tokenizer, line)]
        if ids:
            encoded.append(np.array([*ids, *([end] if end is not None else [])], dtype=np.int64))
    total = sum(map(len, encoded))
    train: list[np.ndarray] = []
    held: list[np.ndarray] = []
    if len(encoded) >= _HOLD_OUT_WHOLE:
        missing = settings.holdout * total
        for position in np.random.default_rng(settings.seed).permutation(len(encoded)):
            # A document that is too large for the share would take the text that is to be learnt.
            fits = len(encoded[position]) <= missing
            (held if fits else train).append(encoded[position])
            missing -= fits * len(encoded[position])
    if sum(map(len, held)) < settings.holdout * total / 2:
        train, held = [], []
        for document in encoded:
            cut = len(document) - math.ceil(settings.holdout * len(document))
            train.append(document[:cut])
            held.append(document[cut:])
    blocks = [_cut(parts, settings.block_size) for parts in (train, held)]
    if not all(map(len, blocks)):
        raise TuningError(
            f"{total:,} tokens of text are too few for blocks of {settings.block_size} to train on and, with "
            f"--holdout {settings.holdout}, to measure perplexity on. Give more text or a smaller "
            "--block-size."
        )
    return Blocks(blocks[0], blocks[1][: settings.eval_blocks], total)


def pretrain(
    model: PreTrainedModel,
    blocks: Blocks,
    settings: PretrainingSettings,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a model on blocks of text.

    Args:
        model: A model with plain weights in float32; it is changed.
        blocks: The text.
        settings: How.
        folder: Folder of the checkpoints; training resumes from the last of them.
        dtype: What the weights will be saved in: perplexity is that of the rounded weights.

    Returns:
        The model, its weights rounded, and "perplexity_before", "perplexity_after", "steps" and "seconds".

    Raises:
        TuningError: The loss is no number, or memory does not suffice.
    """
    before = perplexity(model, blocks.held_out)
    trained: Any = model
    if settings.lora_rank:
        lora = LoraSettings(rank=settings.lora_rank, alpha=2 * settings.lora_rank)
        trained = add_lora(model, lora, settings.seed)
    on_gpu = model.device.type == "cuda"
    args = TrainingArguments(
        output_dir=str(folder.resolve()),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.blocks_per_step,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        save_steps=settings.save_every,
        save_total_limit=1,
        logging_steps=10,
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        dataloader_pin_memory=on_gpu,
        seed=settings.seed,
    )
    trainer = _Trainer(model=trained, args=args, train_dataset=_BlockData(blocks.train))
    try:
        trainer.run()
    except torch.OutOfMemoryError as error:
        raise TuningError(
            f"The device's memory does not suffice for a block of {settings.block_size} tokens. Give "
            "--gradient-checkpointing, --lora-rank 16, a smaller --block-size, or a smaller --base."
        ) from error
    plain: PreTrainedModel = trained.merge_and_unload() if settings.lora_rank else model
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(parameter.to(dtype))
    return plain, {
        "perplexity_before": before,
        "perplexity_after": perplexity(plain, blocks.held_out),
        "steps": trainer.state.global_step,
        "seconds": trainer.seconds,
    }


def perplexity(model: PreTrainedModel, blocks: np.ndarray) -> float:
    """The exponential of the mean loss a token, over blocks (n_blocks, block_size)."""
    model.eval()
    with torch.inference_mode():
        losses = []
        for block in blocks:
            ids = torch.from_numpy(block)[None].to(model.device)
            losses.append(float(model(input_ids=ids, labels=ids, use_cache=False).loss))
    return math.exp(sum(losses) / len(losses))


class _BlockData(Dataset):
    def __init__(self, blocks: np.ndarray) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.blocks[position])
        return {"input_ids": ids, "labels": ids}


class _Trainer(ResumableTrainer):
    """Stops where the loss is no number."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss):
            raise TuningError(
                f"The loss at step {self.state.global_step} is no number: begin anew with a lower "
                "--learning-rate."
            )
        return loss


def _encode(tokenizer: PreTrainedTokenizerBase, line: str) -> Sequence[int]:
    return tokenizer(line, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _cut(parts: Sequence[np.ndarray], size: int) -> np.ndarray:
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    return joined[: len(joined) // size * size].reshape(-1, size)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
