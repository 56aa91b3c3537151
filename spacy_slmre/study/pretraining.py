"""Continued pretraining: a base model is trained on raw text of a domain before it is tuned.

This is plain causal language modeling over blocks of tokens, with full weights or with LoRA weights that are merged
into the base at the end. The result is a base model that `slmre tune` accepts.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from spacy_slmre.models import hub
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.lora import LoraSettings, add_lora
from spacy_slmre.models.causal_lm.q4_1 import Q4_1
from spacy_slmre.training import config as tuning_config
from spacy_slmre.training.config import TuningError, check_schedule
from spacy_slmre.training.trainer import ResumableTrainer, explain_out_of_memory
from spacy_slmre.util.io import remove
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE, RunFolder, read_json
from spacy_slmre.util.settings import check_minimum, validate_section
from spacy_slmre.util.system import hardware, peak_memory, versions

# With at least this many documents, whole documents are held out.
_MIN_DOCUMENTS_TO_HOLD_OUT = 10
_SAVED_DTYPE = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class BaseModelSettings:
    """The section [model] of a config.

    Attributes:
        base: "smollm2-135m-instruct", a folder or a hub id. A 4-bit base is expanded to plain weights.
        revision: Commit or tag on the hub.
        device: "cpu", "cuda" or "auto".
    """

    base: str = hub.PACKAGED_BASE
    revision: str | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """The section [training] of a config; the defaults are those of the study, which trained for 5,000 steps.

    Attributes:
        block_size: Tokens in a block.
        gradient_accumulation_steps: Blocks per optimizer step.
        num_train_epochs: Passes over the text.
        max_steps: Stop after this many steps; -1 sets no limit.
        learning_rate: Peak learning rate, with linear warmup and linear decay.
        warmup_ratio: Fraction of the steps used for learning rate warmup.
        weight_decay: Weight decay of AdamW.
        lora_rank: Train LoRA weights of this rank and merge them at the end; 0 trains all weights.
        holdout: Fraction of the text held out to measure perplexity on.
        max_eval_blocks: Maximum number of blocks to measure perplexity on.
        save_steps: Steps between checkpoints.
        gradient_checkpointing: Recompute activations to save memory.
        seed: Random seed for the data order and for the choice of held-out documents.

    Raises:
        TuningError: A value is out of range.
    """

    block_size: int = 1024
    gradient_accumulation_steps: int = 16
    num_train_epochs: float = 1.0
    max_steps: int = -1
    learning_rate: float = 2e-5
    warmup_ratio: float = 0.03
    weight_decay: float = 0.1
    lora_rank: int = 0
    holdout: float = 0.05
    max_eval_blocks: int = 100
    save_steps: int = 250
    gradient_checkpointing: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        minimum = {"block_size": 8, "lora_rank": 0, "weight_decay": 0}
        counts = ("gradient_accumulation_steps", "max_eval_blocks", "save_steps")
        check_minimum(self, "training", TuningError, **minimum, **dict.fromkeys(counts, 1))
        check_schedule(self)
        if not 0 < self.holdout < 1:
            raise TuningError(
                f"training.holdout = {self.holdout}, but it must be between 0 and 1: perplexity is measured "
                "on text that is not trained on."
            )


def read_config(
    path: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[BaseModelSettings, PretrainingSettings]:
    """Read a config with the sections [model] and [training].

    Raises:
        TuningError: The file cannot be read, or a setting is unknown or invalid.
    """
    config = tuning_config.read_config(path, overrides)
    if unknown := sorted(set(config) - {"model", "training"}):
        raise TuningError(f"{path}: unknown section [{unknown[0]}]. The sections are [model] and [training].")
    sections = {"model": {}, "training": {}, **config}
    return (
        validate_section(BaseModelSettings, sections, "model", str(path), TuningError),
        validate_section(PretrainingSettings, sections, "training", str(path), TuningError),
    )


def run_pretraining(
    texts: Sequence[str],
    output: Path,
    model_settings: BaseModelSettings,
    settings: PretrainingSettings,
    *,
    inputs: Iterable[str] = (),
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Continue pretraining a base model, and save it with plain weights in bfloat16.

    Args:
        texts: The documents.
        output: The folder to write: model, tokenizer with its chat template, `metrics.json`, `run.json`.
        model_settings: The base model.
        settings: How to train.
        inputs: Files that the documents are read from, which the output must not replace.
        overwrite: Discard partial results and replace an existing output.
        log: Receives messages for the user.

    Returns:
        The content of `metrics.json`.

    Raises:
        OutputError: The output cannot be written, or belongs to another run.
        TuningError: The run cannot be started or resumed.
        ModelError: The base model is not available.
    """
    with RunFolder(output, inputs=[*inputs, model_settings.base], kind="folder", overwrite=overwrite) as run:
        folder = hub.locate_base(model_settings.base, model_settings.revision)
        model, tokenizer = _load_plain(folder, model_settings.device)
        log("Reading the texts …")
        blocks = make_blocks(texts, tokenizer, settings)
        log(f"{blocks.tokens:,} tokens: {len(blocks.train):,} blocks, {len(blocks.held_out)} held out.")
        base = hub.identify(folder, model_settings.base, model_settings.revision)
        key = {
            "config": asdict(settings),
            "data": hashlib.sha256(blocks.train.tobytes() + blocks.held_out.tobytes()).hexdigest(),
            "base": base.to_dict(),
        }
        if run.completed(key) is not None:
            log(f"{output} is already complete.")
            return read_json(output / METRICS_FILE)
        run.begin(key)
        with run.explain_disk_errors():
            model, metrics = pretrain(model, blocks, settings, run.partial / "checkpoints")
            metrics |= {
                "tokens": blocks.tokens,
                "blocks": len(blocks.train),
                "held_out_blocks": len(blocks.held_out),
                "hardware": f"{hardware(model.device)}, {model.dtype}",
                "peak_memory_gb": peak_memory(model.device),
            }
            result = run.partial / "output"
            remove(result)
            with hub.quiet_loading():
                torch.nn.Module.to(model, _SAVED_DTYPE)
                model.save_pretrained(result)
                tokenizer.save_pretrained(result)
            for name, content in ((RUN_FILE, {"key": key, "versions": versions()}), (METRICS_FILE, metrics)):
                (result / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
            run.publish(result)
        return metrics


def _load_plain(folder: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer = loading.load_base(
        folder, quantization=None, dtype=torch.float32, device=hub.resolve_device(device)
    )
    if loading.quant_method(folder) not in (None, Q4_1):  # Q4_1 is expanded when it is loaded
        if getattr(model, "is_quantized", False):  # on a GPU, 4-bit weights are kept when they are loaded
            model = model.dequantize(dtype=torch.float32)
        model = loading.as_full_model(model, torch.float32)
    return model, tokenizer


@dataclass(frozen=True)
class TokenBlocks:
    """Text as token ids of shape (n_blocks, block_size).

    Attributes:
        train: Blocks to train on.
        held_out: Blocks to measure perplexity on.
        tokens: Total number of tokens.
    """

    train: np.ndarray
    held_out: np.ndarray
    tokens: int


def make_blocks(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, settings: PretrainingSettings) -> TokenBlocks:
    """Cut texts into blocks; each text ends with the end token, and a block may contain parts of several texts.

    With ten or more documents, whole documents are held out, if their sizes add up to at least half of the fraction;
    otherwise, the last part of each document is held out.

    Raises:
        TuningError: There is not enough text for a block to train on and one to hold out.
    """
    end = tokenizer.eos_token_id
    encoded = []
    for text in texts:
        # Line by line, because tokenizers warn about texts longer than the model's context.
        ids = [
            token
            for line in text.splitlines(keepends=True)
            for token in tokenizer(line, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ]
        if ids:
            encoded.append(np.array([*ids, *([end] if end is not None else [])], dtype=np.int64))
    total = sum(map(len, encoded))
    train: list[np.ndarray] = []
    held: list[np.ndarray] = []
    if len(encoded) >= _MIN_DOCUMENTS_TO_HOLD_OUT:
        missing = settings.holdout * total
        for position in np.random.default_rng(settings.seed).permutation(len(encoded)):
            # Skip documents larger than what is still missing: they would take too much text from training.
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
            f"{total:,} tokens of text are not enough for blocks of {settings.block_size} tokens to train on "
            f"and, with training.holdout = {settings.holdout}, to measure perplexity on. Use more text or a "
            "smaller training.block_size."
        )
    return TokenBlocks(blocks[0], blocks[1][: settings.max_eval_blocks], total)


def _cut(parts: Sequence[np.ndarray], size: int) -> np.ndarray:
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    return joined[: len(joined) // size * size].reshape(-1, size)


def pretrain(
    model: PreTrainedModel, blocks: TokenBlocks, settings: PretrainingSettings, folder: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a model on blocks of text.

    Args:
        model: A model with plain weights in float32; it is changed in place.
        blocks: The text.
        settings: How to train.
        folder: Folder of the checkpoints; training resumes from the last one.

    Returns:
        The model with weights rounded to the type in which they are saved, and "perplexity_before", "perplexity_after"
        (with these weights), "steps" and "seconds".

    Raises:
        TuningError: The loss is not finite, or memory is exhausted.
    """
    before = perplexity(model, blocks.held_out)
    trained: Any = model
    if settings.lora_rank:
        lora = LoraSettings(rank=settings.lora_rank, alpha=2 * settings.lora_rank)
        trained = add_lora(model, lora, settings.seed)
    on_gpu = model.device.type == "cuda"
    args = TrainingArguments(
        output_dir=str(folder.resolve()),
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        bf16=on_gpu and hub.resolve_dtype("auto", model.device) == torch.bfloat16,
        use_cpu=not on_gpu,
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=10,
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        dataloader_pin_memory=on_gpu,
        seed=settings.seed,
    )
    trainer = BlockTrainer(model=trained, args=args, train_dataset=BlockDataset(blocks.train))
    remedy = (
        "Set training.gradient_checkpointing = true, training.lora_rank = 16, a smaller training.block_size or a "
        "smaller model.base."
    )
    with explain_out_of_memory(f"during training with blocks of {settings.block_size} tokens", remedy):
        trainer.run()
    plain: PreTrainedModel = trained.merge_and_unload() if settings.lora_rank else model
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(parameter.to(_SAVED_DTYPE))
    return plain, {
        "perplexity_before": before,
        "perplexity_after": perplexity(plain, blocks.held_out),
        "steps": trainer.state.global_step,
        "seconds": trainer.seconds,
    }


def perplexity(model: PreTrainedModel, blocks: np.ndarray) -> float:
    """Return the exponential of the mean loss per token over blocks of shape (n_blocks, block_size)."""
    model.eval()
    with torch.inference_mode():
        losses = []
        for block in blocks:
            ids = torch.from_numpy(block)[None].to(model.device)
            losses.append(float(model(input_ids=ids, labels=ids, use_cache=False).loss))
    return math.exp(sum(losses) / len(losses))


class BlockDataset(Dataset):
    """Blocks as examples for language modeling."""

    def __init__(self, blocks: np.ndarray) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.blocks[position])
        return {"input_ids": ids, "labels": ids}


class BlockTrainer(ResumableTrainer):
    """A trainer that stops if the loss is not finite."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss.

        Raises:
            TuningError: It is not finite.
        """
        loss = super().compute_loss(*args, **kwargs)
        if not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss):
            raise TuningError(
                f"The loss at step {self.state.global_step} is not finite. Start over with a lower "
                "training.learning_rate."
            )
        return loss
