"""A tuning run: config and corpora in, a folder that `spacy.load` opens out, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
import torch

from spacy_slmre.models.causal_lm.loading import check_architecture
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.training.card import model_card
from spacy_slmre.training.config import TuningConfig
from spacy_slmre.training.corpora import data_hash, draw_demonstrations, read_sets
from spacy_slmre.training.data import TuningSet
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
from spacy_slmre.training.tuning import tune
from spacy_slmre.util.system import hardware, peak_memory, versions

CONFIG_FILE = "tune.cfg"

Counting = AbstractContextManager[Callable[[int], None]]
"""Shows how many documents were read, until it is left."""


def run_tuning(
    config: TuningConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    counting: Callable[[], Counting] = lambda: nullcontext(lambda _: None),
) -> dict[str, Any]:
    """Tune as a config says and write the output.

    While tuning goes on, its state lies in `<output>.part`; the output appears when all is done.

    Args:
        config: The config.
        output: The folder to write: a pipeline with the adapter, `metrics.json`, `tune.cfg`, `run.json` and a
            model card.
        resume: Go on with an interrupted run; where the same run is complete, there is nothing to do.
        overwrite: Replace the output, and what an interrupted run has left.
        say: Tells the person at the terminal what happens.
        counting: Shows how many documents are read.

    Returns:
        What stands in `metrics.json`.

    Raises:
        TuningError: The run cannot begin or go on.
    """
    part = part_of(output)
    main = int(os.environ.get("RANK", "0")) == 0
    with alone_at(output, main=main):
        check_output(output, resume=resume, overwrite=overwrite, main=main)
        lm = _on_own_device(config.model)
        # What is wrong with the model should show before the corpora are read.
        base = lm.identity()
        check_architecture(lm.locate())
        say(f"Reading the corpora for {base.name} …")
        with counting() as progress:
            sets = read_sets(
                config.train,
                config.dev,
                lang=config.run.lang,
                schema=config.schema,
                holdout=config.run.holdout,
                seed=config.training.seed,
                say=say,
                progress=progress,
            )
        for one in sets:
            say(f"  {one.name}: {len(one.train):,} training and {len(one.dev):,} dev instances")
        record = {
            "data": {
                one.name: {
                    split: {"instances": len(instances), "sha256": data_hash(instances)}
                    for split, instances in (("train", one.train), ("dev", one.dev))
                }
                for one in sets
            },
            "base": base.to_dict(),
            "config": config.text,
            "versions": versions(),
        }
        if resume and (done := finished(output, record)) is not None:
            say(f"{output} is complete already: there is nothing to go on with.")
            return done
        check_same(part, record, main=main)
        shown = [
            demonstration
            for one in sets
            for demonstration in draw_demonstrations(one, config.run.shots, config.training.seed)
        ]
        if shown:
            lm.set_prompt_style(replace(lm.style, examples=tuple(shown)))
        with writing_to(part):
            result = tune(lm, sets, config.training, config.lora, part / "checkpoints", resume=resume)
            metrics = {
                **result.to_dict(),
                "hardware": f"{hardware(lm.network.device)}, {lm.network.dtype}",
                "peak_memory_gb": peak_memory(lm.network.device),
            }
            if main:
                say("Writing the pipeline …")
                _write(config, lm, sets, metrics, record, part, output)
        return metrics


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
        component.set_schema(lm.schema)
    nlp.meta["description"] = f"Relations by {record['base']['name']} with an adapter tuned by spacy-slmre"
    pretrained = lm.locate() / RUN_FILE
    nlp.meta["tuning"] = {"regime": config.run.regime, "shots": config.run.shots, "dapt": pretrained.exists()}
    nlp.meta["performance"] = {"rel_micro_f": metrics["scores"]["micro_f1"]}
    nlp.to_disk(aside)
    (aside / CONFIG_FILE).write_text(config.text, encoding="utf-8")
    (aside / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
    (aside / METRICS_FILE).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    (aside / "README.md").write_text(model_card(config, lm, sets, metrics, record), encoding="utf-8")
    publish(aside, output)


def _on_own_device(lm: SmallLM) -> SmallLM:
    """With several processes (`accelerate launch`), each has a GPU of its own."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and torch.cuda.is_available() and lm.settings.device in ("auto", "cuda"):
        lm.settings = replace(lm.settings, device=f"cuda:{rank}")
    return lm
