"""A run of domain-adaptive pretraining: texts in, a base model out that `tune` takes, complete or absent."""

from __future__ import annotations

import hashlib
import json
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
from spacy_slmre.training.trainer import last_checkpoint
from spacy_slmre.util.io import remove
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE, RunFolder, check_not_input, read_json
from spacy_slmre.util.system import hardware, peak_memory, versions


def run_pretraining(
    texts: Sequence[str],
    output: Path,
    settings: PretrainingSettings,
    *,
    base: str = PACKAGED_BASE,
    revision: str | None = None,
    device: str = "auto",
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
        overwrite: Discard an interrupted run and replace an existing output.
        say: Tells the person at the terminal what happens.

    Returns:
        What stands in `metrics.json`.

    Raises:
        TuningError: The run cannot begin or go on.
        ModelError: The base model cannot be had.
    """
    with RunFolder(output, overwrite=overwrite) as run:
        folder = hub.locate_base(base, revision)
        check_not_input(output, [str(folder)])
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
        key = {
            "data": hashlib.sha256(blocks.train.tobytes() + blocks.held_out.tobytes()).hexdigest(),
            "base": hub.identify(folder, base, revision).to_dict(),
            "config": asdict(settings),
        }
        if run.completed(key) is not None:
            say(f"{output} is complete, with the same settings, texts and base model: nothing to do.")
            return read_json(output / METRICS_FILE)
        checkpoints = run.partial / "checkpoints"
        if last_checkpoint(checkpoints) is None:
            run.discard()  # without results, another run key is no reason to refuse
        run.begin(key)
        with run.explain_disk_errors():
            model, metrics = pretrain(model, blocks, settings, checkpoints)
            metrics |= {
                "tokens": blocks.tokens,
                "blocks": len(blocks.train),
                "held_out_blocks": len(blocks.held_out),
                "hardware": f"{hardware(model.device)}, {model.dtype}",
                "peak_memory_gb": peak_memory(model.device),
            }
            temporary = run.partial / "output"
            remove(temporary)
            with hub.quiet_loading():
                torch.nn.Module.to(model, torch.bfloat16)
                model.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
            record = {"key": key, "versions": versions()}
            (temporary / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
            (temporary / METRICS_FILE).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
            run.publish(temporary)
        return metrics
