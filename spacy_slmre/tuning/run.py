"""A tuning run: config and corpora in, a folder that `spacy.load` opens out, complete or absent."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
import torch
from safetensors import SafetensorError

from spacy_slmre.corpora.shards import write_aside
from spacy_slmre.slm.lora import LoraSettings
from spacy_slmre.slm.model import SmallLM
from spacy_slmre.slm.tuning import TuningResult, tune
from spacy_slmre.slm.tuning_data import TuningSet
from spacy_slmre.slm.tuning_settings import TuningError
from spacy_slmre.tuning.card import model_card
from spacy_slmre.tuning.config import TuningConfig
from spacy_slmre.tuning.data import data_hash, draw_demonstrations, read_sets

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
CONFIG_FILE = "tune.cfg"
PACKAGES = ("spacy-slmre", "spacy", "torch", "transformers", "peft", "bitsandbytes", "accelerate")


def run_tuning(
    config: TuningConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Tune as a config says and write the output.

    While tuning goes on, its state lies in `<output>.part`; the output appears when all is done.

    Args:
        config: The config.
        output: The folder to write: a pipeline with the adapter, `metrics.json`, `tune.cfg`, `run.json` and a
            model card.
        resume: Go on with an interrupted run.
        overwrite: Replace the output, and what an interrupted run has left.
        say: Tells the person at the terminal what happens.

    Returns:
        What stands in `metrics.json`.

    Raises:
        TuningError: The run cannot begin or go on.
    """
    part = output.with_name(f"{output.name}.part")
    main = int(os.environ.get("RANK", "0")) == 0
    _check_output(output, part, resume=resume, overwrite=overwrite, main=main)
    lm = _on_own_device(config.model)
    base = lm.identity()  # an absent model should show before the corpora are read
    say(f"Reading the corpora for {base.name} …")
    sets = read_sets(
        config.train,
        config.dev,
        lang=config.run.lang,
        schema=config.schema,
        holdout=config.run.holdout,
        seed=config.training.seed,
    )
    for one in sets:
        say(f"  {one.name}: {len(one.train):,} training and {len(one.dev):,} dev instances")
    record = {
        "data": {
            one.name: {
                split: {"instances": len(part_), "sha256": data_hash(part_)}
                for split, part_ in (("train", one.train), ("dev", one.dev))
            }
            for one in sets
        },
        "base": base.to_dict(),
        "config": config.text,
        "versions": _versions(),
    }
    if main:
        part.mkdir(parents=True, exist_ok=True)
    _check_same(part / RUN_FILE, record, main=main)
    shown = [
        demonstration
        for one in sets
        for demonstration in draw_demonstrations(one, config.run.shots, config.training.seed)
    ]
    if shown:
        lm.restyle(replace(lm.settings.style, demonstrations=tuple(shown)))
    result = _tune(lm, sets, config, part, resume)
    metrics = {**result.to_dict(), "hardware": hardware(lm), "peak_memory_gb": _peak_memory(lm)}
    if main:
        say("Writing the pipeline …")
        _write(config, lm, sets, metrics, record, part, output)
    return metrics


def _tune(
    lm: SmallLM, sets: Sequence[TuningSet], config: TuningConfig, part: Path, resume: bool
) -> TuningResult:
    lora: LoraSettings = config.lora
    try:
        return tune(lm, sets, config.training, lora, part / "checkpoints", resume=resume)
    except (RuntimeError, SafetensorError, OSError) as error:
        free = shutil.disk_usage(part).free
        if isinstance(error, OSError | SafetensorError) or "PytorchStreamWriter" in str(error):
            raise TuningError(
                f"A checkpoint could not be written to {part} ({error}); {free / 1e9:.2f} GB are free there. "
                "Make room and go on with --resume: the checkpoint before it is kept."
            ) from error
        raise


def _write(
    config: TuningConfig,
    lm: SmallLM,
    sets: Sequence[TuningSet],
    metrics: dict[str, Any],
    record: dict[str, Any],
    part: Path,
    output: Path,
) -> None:
    """Write everything aside, then put it in its place."""
    aside = part / "output"
    shutil.rmtree(aside, ignore_errors=True)
    nlp = spacy.blank(config.run.lang)
    component: Any = nlp.add_pipe("slm_relations", config={"model": config.model_block})
    component.model = lm
    if lm.schema is not None:
        component.schema, component.schema_given = lm.schema, True
    nlp.meta["description"] = f"Relations by {record['base']['name']} with an adapter tuned by spacy-slmre"
    nlp.meta["performance"] = {"rel_micro_f": metrics["scores"]["micro_f1"]}
    nlp.to_disk(aside)
    (aside / CONFIG_FILE).write_text(config.text, encoding="utf-8")
    (aside / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
    (aside / METRICS_FILE).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    (aside / "README.md").write_text(model_card(config, lm, sets, metrics, record), encoding="utf-8")
    if output.exists():
        shutil.rmtree(output)
    aside.rename(output)
    shutil.rmtree(part)


def _check_output(output: Path, part: Path, *, resume: bool, overwrite: bool, main: bool) -> None:
    if resume and overwrite:
        raise TuningError("Give either --resume or --overwrite.")
    if output.exists() and not overwrite:
        raise TuningError(
            f"{output} is there already. Give another --output, or replace it with --overwrite."
        )
    if part.exists() and overwrite and main:
        shutil.rmtree(part)
    if part.exists() and not resume and main:
        raise TuningError(
            f"{part} holds an interrupted run. Go on with it by --resume, or begin anew with --overwrite."
        )


def _check_same(file: Path, record: dict[str, Any], *, main: bool) -> None:
    """Resuming with another config or other data would give neither the one adapter nor the other."""
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for what, advice in (
            ("config", "Give the same config and the same settings"),
            ("data", "Have the corpora as they were"),
            ("base", "Have the base model as it was"),
        ):
            if before[what] != record[what]:
                raise TuningError(
                    f"The interrupted run in {file.parent} had another {what} than this one. {advice}, or "
                    "begin anew with --overwrite."
                )
    elif main:
        write_aside(file, json.dumps(record, indent=2))


def _on_own_device(lm: SmallLM) -> SmallLM:
    """With several processes (`accelerate launch`), each has a GPU of its own."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and torch.cuda.is_available() and lm.settings.device in ("auto", "cuda"):
        lm.settings = replace(lm.settings, device=f"cuda:{rank}")
    return lm


def hardware(lm: SmallLM) -> str:
    """The machine in words: the GPU, or the processor and its threads."""
    device = lm.network.device
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {lm.network.dtype}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}, {lm.network.dtype}"


def _peak_memory(lm: SmallLM) -> float:
    """Most memory held so far, in GB: of the GPU, or else of this process."""
    if lm.network.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
