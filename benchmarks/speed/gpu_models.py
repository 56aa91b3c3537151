"""Checks of models on a GPU: equal scores, tuning, scoring, 4 bits and spaCy's training; see `benchmarks/gpu.py`."""

from __future__ import annotations

import json
import math
import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel

from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.encoder.model import EncoderClassifier, make_encoder_classifier
from spacy_slmre.models.hub import PACKAGED_BASE, packaged_encoder, packaged_folder
from speed.gpu_run import SHAPES, SPECIAL, Row, Run, labeled_instances
from speed.workload import make_instances, make_schema, make_sentences


def equality(run: Run) -> None:
    """Compare probabilities on the GPU with those on the CPU in float32."""
    instances = make_instances(make_sentences(run.scaled(4, 1), run.scaled(12, 4)))
    bases = {"random 135M": (run.base("135M"), None)}
    if not run.dry and (packaged_folder() / "config.json").exists():
        bases[PACKAGED_BASE] = (PACKAGED_BASE, None)
        bases["shipped adapter"] = (PACKAGED_BASE, "auto")
    else:
        run.rows.append({"model": PACKAGED_BASE, "compared": "not measured (not installed, or a dry run)"})
    for name, (base, adapter) in bases.items():
        load = partial(run.lm, base, adapter=adapter)
        expected = {
            kind: run.probabilities(load(device="cpu", dtype="float32", quantization=kind), instances)
            for kind in (None, "nf4")
        }
        for dtype, quantization, tolerance in (
            ("float32", None, 1e-3),
            ("bfloat16", None, 0.25),
            ("float32", "nf4", 0.05),
            ("bfloat16", "nf4", 0.25),
        ):
            lm = load(dtype=dtype, quantization=quantization, keep_4bit=quantization is not None)
            kind = f"{dtype}, 4 bits" if quantization else dtype
            found = run.probabilities(lm, instances)
            run.rows.append({"model": name, **run.compare(kind, found, expected[quantization], tolerance)})
            del lm
            run.free()


def tune(run: Run, name: str) -> None:
    """Tune a model on generated sentences as `slmre tune` does, with the settings of the study."""
    from spacy_slmre.cli import slmre_cli
    from spacy_slmre.training.config import read_config, resolve_config
    from spacy_slmre.training.tune import tune

    shape, steps = SHAPES[name], run.scaled(40, 20)
    folder = run.folder / "corpora"
    folder.mkdir(exist_ok=True)
    for split, start, count in (("dev", 0, run.scaled(4, 2)), ("train", 4, run.scaled(500, 12))):
        rows = _documents(start + count)[start:]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        files = [str(folder / f"{split}.{ending}") for ending in ("jsonl", "spacy")]
        slmre_cli(["convert", files[0], "--format", "json", "-o", files[1], "-F"], standalone_mode=False)
    file = folder / "tune.cfg"
    file.write_text(f"""
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = "{run.base(name)}"
adapter = null
quantization = "nf4"
device = "{run.device}"

[lora]
rank = {run.scaled(shape.rank, 4)}
alpha = {2 * run.scaled(shape.rank, 4)}
init_lora = "{shape.init_lora}"

[training]
max_tokens = {run.scaled(2048, 512)}
gradient_accumulation_steps = 1
num_train_epochs = 1000
max_steps = {steps}
eval_steps = {steps}
gradient_checkpointing = {json.dumps(shape.checkpointing)}

[corpora]

[corpora.train]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{folder}/train.spacy"

[corpora.dev]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{folder}/dev.spacy"
""")
    started = time.perf_counter()
    with run.memory({}):
        metrics = tune(resolve_config(read_config(file), name), run.folder / f"tuned-{name}", overwrite=True)
    logs = [entry for entry in metrics["history"] if "loss" in entry]
    first, last = logs[0], logs[-1]
    seconds, done = last["seconds"] - first["seconds"], last["step"] - first["step"]
    run.expect(math.isfinite(last["loss"]), f"the loss at step {last['step']} is {last['loss']}")
    run.expect(last["loss"] < first["loss"], f"the loss rises from {first['loss']} to {last['loss']}")
    run.rows.append(
        {
            "model": name,
            "activation checkpointing": "yes" if shape.checkpointing else "no",
            "steps": metrics["steps"],
            "steps/s": done / seconds,
            "tokens/s": (last["epoch"] - first["epoch"]) * metrics["tokens_per_epoch"] / seconds,
            "pairs/s": (last["epoch"] - first["epoch"]) * metrics["pairs_per_epoch"] / seconds,
            "peak GB": metrics["peak_memory_gb"],
            "first loss": first["loss"],
            "last loss": last["loss"],
            "s, whole run": time.perf_counter() - started,
        }
    )


def scoring(run: Run, name: str) -> None:
    """Measure pairs per second and memory by precision and size of a packed sequence."""
    instances = make_instances(make_sentences(run.scaled(40, 2), 12))
    schema = make_schema()
    for kind in ("nf4", None):
        lm = run.lm(run.base(name), quantization=kind, keep_4bit=True)
        for tokens in (512,) if run.dry else (1024, 2048, 4096, 8192):
            sized = SmallLM(
                replace(lm.settings, max_batch_tokens=tokens), lm.resolved, network=(lm.network, lm.prompts.tokenizer)
            )
            row: Row = {"model": name, "weights": "4 bits" if kind else "bfloat16", "max_batch_tokens": tokens}
            with run.memory(row):
                score = partial(sized.top_k, instances, schema)
                score()
                row["pairs/s"] = 1000 * len(instances) / run.milliseconds(score)
            run.rows.append(row)
        del lm, sized


def keep_4bit(run: Run) -> None:
    """Compare 4-bit weights with and without `keep_4bit`, saved and restored, and weights that are not quantized."""
    instances = make_instances(make_sentences(run.scaled(4, 1), 12))
    base = run.base("0.5B")
    expected = None
    for name, settings in {
        "keep_4bit = true": {"quantization": "nf4", "keep_4bit": True},
        "keep_4bit = false": {"quantization": "nf4"},
        "saved in 4 bits": {"quantization": "nf4", "keep_4bit": True},
        "quantization = null": {"quantization": None},
    }.items():
        row: Row = {}
        with run.memory(row):
            lm = run.lm(base, **settings)
            if name == "saved in 4 bits":
                lm.save(run.folder / "saved", embed=True)
                lm = lm.restore(run.folder / "saved").load()
            found = run.probabilities(lm, instances)
            row["pairs/s"] = 1000 * len(instances) / run.milliseconds(lambda lm=lm: lm.top_k(instances, make_schema()))
        weights = sum(one.numel() * one.element_size() for one in lm.network.parameters()) / 1e9
        expected = found if expected is None else expected
        # On a CPU, `keep_4bit` also changes how products are computed; without quantization, weights differ.
        tolerance = math.inf if settings["quantization"] is None else 1e-3
        run.rows.append({**run.compare(name, found, expected, tolerance), "weights GB": weights, **row})
        del lm


def updates(run: Run) -> None:
    """Train with spaCy's optimizer, as `nlp.update` does, and compare scores of the encoder with the CPU's."""
    from thinc.api import Adam

    instances, schema, base = labeled_instances(run.scaled(8, 2)), make_schema(), _encoder(run)
    encoders = {
        f"rel_classifier, {markers} markers": make_encoder_classifier(
            base=base, markers=markers, device=str(run.device), dtype=run.dtype
        )
        for markers in ("typed", "levitated")
    }
    trained: dict[str, Any] = {"slm_relations": run.lm(run.base("135M")), **encoders}
    for name, model in trained.items():
        row: Row = {"component": name}
        with run.memory(row):
            model.initialize(schema, instances)
            optimizer = Adam(1e-3)
            start, losses = time.perf_counter(), []
            for _ in range(run.scaled(20, 3)):
                losses.append(model.update(instances, schema))
                model.finish_update(optimizer)
            row["updates/s"] = len(losses) / (time.perf_counter() - start)
        run.expect(losses[-1] < losses[0], f"{name}: the loss rises from {losses[0]:.3g} to {losses[-1]:.3g}")
        found = np.exp(model.log_probs(instances, schema))
        restored = deepcopy(model)  # as a worker process receives it
        run.rows.append(row | run.compare("copied", np.exp(restored.log_probs(instances, schema)), found, 1e-2))
    for name, encoder in encoders.items():
        folder = run.folder / name
        encoder.save(folder, embed=True)
        settings = replace(encoder.settings, device="cpu", dtype="float32")
        expected = np.exp(EncoderClassifier(settings).restore(folder).log_probs(instances, schema))
        found = np.exp(encoder.log_probs(instances, schema))
        row = {"component": name, **run.compare("float32 on the CPU", found, expected, 0.25)}
        with run.memory(row):
            seconds = run.milliseconds(partial(encoder.top_k, instances, schema)) / 1000
        run.rows.append({**row, "pairs/s": len(instances) / seconds})


def _encoder(run: Run) -> str:
    """Return the folder of the packaged encoder, or of a tiny one if it is not installed."""
    if not run.dry and (packaged := packaged_encoder()) is not None:
        return str(packaged)
    folder = run.folder / "encoder-base"
    tokenizer = deepcopy(run.tokenizer)
    tokenizer.add_special_tokens({"cls_token": SPECIAL[1], "sep_token": SPECIAL[2]})
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _documents(count: int) -> list[dict[str, Any]]:
    """Return documents in our JSON form with the labels of `labeled_instances`."""
    documents: dict[str, dict[str, Any]] = {}
    for one in labeled_instances(count):
        text = one.context.text
        mentions = [
            {"start": m.start, "end": m.end, "text": text[m.start : m.end], "type": m.type}
            for m in one.context.mentions
        ]
        document = documents.setdefault(text, {"id": str(len(documents)), "text": text, "entities": mentions})
        relation = {"head": mentions[one.head], "tail": mentions[one.tail], "label": one.label, "score": 1.0}
        document.setdefault("relations", []).append(relation)
    return list(documents.values())
