"""A run of domain-adaptive pretraining: texts in, a base model out that `tune` takes, complete or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spacy_slmre.models import hub
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.q4_1 import Q4_1
from spacy_slmre.models.hub import PACKAGED_BASE
from spacy_slmre.study.pretraining import PretrainingSettings, make_blocks, pretrain
from spacy_slmre.training.folders import (
    METRICS_FILE,
    RUN_FILE,
    alone_at,
    check_output,
    check_same,
    finished,
    part_of,
    publish,
    writing_to,
)
from spacy_slmre.util.system import hardware, peak_memory, versions


def run_pretraining(
    texts: Sequence[str],
    output: Path,
    settings: PretrainingSettings,
    *,
    base: str = PACKAGED_BASE,
    revision: str | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Pretrain a base model further and write it as one, with plain weights in bfloat16.

    Args:
        texts: The documents.
        output: The folder to write: model, tokenizer with its chat template, `metrics.json`, `run.json`.
        settings: How.
        base: "smollm2-135m-instruct", a folder or a hub id. A 4-bit base is brought back to plain weights.
        revision: Commit or tag on the hub.
        device: "cpu", "cuda", or "auto".
        resume: Go on with an interrupted run; where the same run is complete, there is nothing to do.
        overwrite: Replace the output, and what an interrupted run has left.
        say: Tells the person at the terminal what happens.

    Returns:
        What stands in `metrics.json`.

    Raises:
        TuningError: The run cannot begin or go on.
        ModelError: The base model cannot be had.
    """
    with alone_at(output):
        check_output(output, resume=resume, overwrite=overwrite)
        folder = hub.locate_base(base, revision)
        model, tokenizer = loading.load_base(
            folder, quantization=None, dtype=torch.float32, device=hub.resolve_device(device)
        )
        if loading.quant_method(folder) not in (None, Q4_1):  # Q4_1 is plain once it is loaded
            if getattr(model, "is_quantized", False):  # on a GPU, 4-bit weights stay so when they are loaded
                model = model.dequantize(dtype=torch.float32)
            model = loading.as_full_model(model, torch.float32)
        say("Reading the texts …")
        blocks = make_blocks(texts, tokenizer, settings)
        say(f"{blocks.tokens:,} tokens: {len(blocks.train):,} blocks, {len(blocks.held_out)} held out.")
        part = part_of(output)
        record = {
            "data": hashlib.sha256(blocks.train.tobytes() + blocks.held_out.tobytes()).hexdigest(),
            "base": hub.identify(folder, base, revision).to_dict(),
            "config": asdict(settings),
            "versions": versions(),
        }
        if resume and (done := finished(output, record)) is not None:
            say(f"{output} is complete already: there is nothing to go on with.")
            return done
        check_same(part, record)
        with writing_to(part):
            model, metrics = pretrain(model, blocks, settings, part / "checkpoints", resume=resume)
            metrics |= {
                "tokens": blocks.tokens,
                "blocks": len(blocks.train),
                "held_out_blocks": len(blocks.held_out),
                "hardware": f"{hardware(model.device)}, {model.dtype}",
                "peak_memory_gb": peak_memory(model.device),
            }
            aside = part / "output"
            shutil.rmtree(aside, ignore_errors=True)
            with hub.quiet_loading():
                torch.nn.Module.to(model, torch.bfloat16)
                model.save_pretrained(aside)
                tokenizer.save_pretrained(aside)
            (aside / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
            (aside / METRICS_FILE).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
            publish(aside, output)
        return metrics
