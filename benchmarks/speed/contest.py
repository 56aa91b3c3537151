"""Compare packed label scoring with common alternatives on the same pairs, each in its own process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoTokenizer

from spacy_slmre.models.causal_lm.loading import as_full_model, load_base
from spacy_slmre.models.hub import PACKAGED_BASE, locate_base, quiet_loading, resolve_device, resolve_dtype
from spacy_slmre.models.packaged import find_gguf
from speed import worker
from speed.options import Options
from speed.timing import alternated, console, median, ratios
from speed.workload import NEGATIVE, Sentence, first_pairs, make_prompts, make_schema, make_sentences

NEW_TOKENS = 8
"""Maximum tokens that `generate` and llama.cpp write; labels have fewer."""
TOKENS_A_RELATION = 24
"""Maximum tokens that REL writes per pair: a line of JSON with two numbers and a label."""
SLM, CLASSIFIER = "`slm_relations`", "`rel_classifier`"
BATCH_8 = "Hugging Face `generate`, batch 8"


@dataclass(frozen=True)
class Contestant:
    """A system and how it is measured.

    Attributes:
        title: Name in the table.
        part: Name for `--only`.
        system: Name in worker.py.
        settings: Settings of the worker.
        pairs: Maximum pairs of a workload, because slow systems would take hours; 0 for all.
        warm: Warm up with a whole sentence rather than with one of its pairs.
        module: Module that must be installed.
        beside: Our system that it is compared with.
        note: Note for the table.
    """

    title: str
    part: str
    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pairs: int = 0
    warm: bool = False
    module: str = "transformers"
    beside: str = SLM
    note: str = ""


ContestantT = TypeVar("ContestantT", bound=Contestant)

CONTESTANTS = (
    Contestant(SLM, "ours", "ours", warm=True),
    Contestant("Hugging Face `generate`, one by one", "generate", "generate", {"batch": 1}, 6),
    Contestant(BATCH_8, "generate", "generate", {"batch": 8}, 16),
    Contestant("Hugging Face `generate`, batch 32", "generate", "generate", {"batch": 32}, 32),
    Contestant("spacy-llm `spacy.REL.v1`, batch 8", "rel", "rel", {"batch": 8}, 96),
    Contestant("llama.cpp, Q4_1", "llama.cpp", "llama_cpp", {"repack": True}, 24, module="llama_cpp"),
    Contestant(
        CLASSIFIER, "encoder", "encoder", {"runtime": "torch", "markers": "typed"}, warm=True, beside=CLASSIFIER
    ),
    Contestant(
        f"{CLASSIFIER}, levitated markers",
        "encoder",
        "encoder",
        {"runtime": "torch", "markers": "levitated"},
        warm=True,
        beside=CLASSIFIER,
    ),
    Contestant(
        f"{CLASSIFIER}, OpenVINO",
        "encoder",
        "encoder",
        {"runtime": "openvino", "markers": "typed"},
        warm=True,
        module="openvino",
        beside=CLASSIFIER,
        note="loading includes the conversion, which a saved pipeline does not need",
    ),
    Contestant(
        "Hugging Face text-classification, same encoder", "encoder", "classification", warm=True, beside=CLASSIFIER
    ),
    Contestant("GLiREL", "glirel", "glirel", {}, 24, warm=True, module="glirel"),
)
PARTS = (*dict.fromkeys(one.part for one in CONTESTANTS), "flair")
# No worker: it cannot be installed together with this package.
FLAIR = "flair 0.15.1 needs transformers < 5, and this package 5.23 or later"


def contest(options: Options, chosen: Sequence[str]) -> dict[str, Any]:
    """Measure the chosen systems and ours in alternating rounds.

    Returns:
        "works": the workloads; "systems": a row for each; "skipped": reasons for missing rows.
    """
    schema = make_schema(40)
    works = {
        f"{pairs} pair{'s' * (pairs > 1)} a sentence": make_sentences(count, pairs)
        for pairs, count in ((12, options.scaled(8)), (1, options.scaled(32)))
    }
    running = [one for one in CONTESTANTS if one.part in chosen or one.title == SLM]
    with tempfile.TemporaryDirectory() as folder:
        tasks = _Tasks(options, Path(folder), works, schema.names)
        rows, skipped = run_rounds(running, options, tasks.run)
    if "flair" in chosen:
        skipped["flair"] = FLAIR
    return {
        "labels": len(schema.labels),
        "works": {name: _describe(work) for name, work in works.items()},
        "systems": [_row(one, rows[one.title], rows, options) for one in running if one.title in rows],
        "skipped": skipped,
    }


def run_rounds(
    contestants: Sequence[ContestantT], options: Options, run: Callable[[ContestantT], dict[str, Any]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Measure systems in alternating rounds.

    Args:
        contestants: The systems.
        options: The options of the benchmark.
        run: Measures a system once; raises CalledProcessError if it fails.

    Returns:
        The measurements of each system by round, and the reasons for missing systems, both by title.
    """
    skipped = {one.title: reason for one in contestants if (reason := _missing(one, options))}
    rows: dict[str, list[dict[str, Any]]] = {one.title: [] for one in contestants if one.title not in skipped}
    for number in range(options.rounds):
        for one in alternated(contestants, number):
            if one.title in skipped:
                continue
            console.print(f"round {number + 1} of {options.rounds}: {one.title}")
            try:
                rows[one.title].append(run(one))
            except subprocess.CalledProcessError as error:
                if one.title == one.beside:
                    raise SystemExit(f"Our own {one.title} failed:\n{error.stderr}") from error
                skipped[one.title] = _reason(error)
                del rows[one.title]
    return rows, skipped


class _Tasks:
    """The inputs of workers: models in the format of each system, and the workloads."""

    def __init__(
        self, options: Options, folder: Path, works: Mapping[str, Sequence[Sentence]], labels: Sequence[str]
    ) -> None:
        self.options = options
        self.folder = folder
        self.works = works
        self.labels = labels
        device = resolve_device(options.device)
        dtype = resolve_dtype(options.dtype, device)
        self.tokenizer = AutoTokenizer.from_pretrained(locate_base(options.base))
        gguf = find_gguf() if options.base == PACKAGED_BASE else None
        self.settings = {
            "base": options.base,
            "plain": str(plain_copy(options.base, folder / "plain", dtype)),
            "gguf": str(gguf) if gguf else None,
            "encoder": str(locate_base(options.encoder)),
            "glirel": options.glirel,
            "size": "tiny" if options.quick else "large",
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "new_tokens": NEW_TOKENS,
            "negative": NEGATIVE,
        }

    def run(self, one: Contestant) -> dict[str, Any]:
        """Return the measurements of a worker.

        Raises:
            CalledProcessError: It failed.
        """
        try:
            return self._run(one)
        except subprocess.CalledProcessError as error:
            if one.system != "llama_cpp" or error.returncode >= 0:
                raise
            found = self._run(one, repack=False)
            return {**found, "note": "without repacking of weights, which crashes this build"}

    def _run(self, one: Contestant, **settings: Any) -> dict[str, Any]:
        schema = make_schema(40)
        labels = [name for name in self.labels if name != NEGATIVE or one.system not in ("rel", "glirel")]
        works = {}
        for name, sentences in self.works.items():
            asked = self._asked(one, sentences)
            pairs = len(sentences[0]["pairs"])
            new_tokens = max(32, TOKENS_A_RELATION * pairs)
            works[name] = {"sentences": asked, "new_tokens": 8 if self.options.quick else new_tokens}
            warm_up = asked[:1] if one.warm else first_pairs(asked, 1)
            works[name]["warm_up"] = {**works[name], "sentences": warm_up}
            for work in (works[name], works[name]["warm_up"]):
                work["prompts"] = make_prompts(self.tokenizer, work["sentences"], schema)
        task = {**self.settings, **one.settings, **settings, "system": one.system, "labels": labels}
        task["works"] = works
        first = next(iter(works.values()))
        sentences = first_pairs(first["sentences"], 1)
        task["first"] = {
            "sentences": sentences,
            "prompts": make_prompts(self.tokenizer, sentences, schema),
            "new_tokens": first["new_tokens"],
        }
        python: str | None = self.options.pythons.get(one.part, sys.executable)
        if self.options.quick and one.title != BATCH_8:
            python = None  # starting processes takes a minute in total; one of them is enough for a test
        return run_worker(task, self.folder, python, offline=not self.options.glirel)

    def _asked(self, one: Contestant, sentences: Sequence[Sentence]) -> list[Sentence]:
        """Return the sentences that a system answers."""
        if not one.pairs:
            return list(sentences)
        asked = first_pairs(sentences, self.options.scaled(one.pairs))
        if one.system in ("rel", "glirel") and len(asked[-1]["pairs"]) < len(sentences[0]["pairs"]):
            return asked[:-1] or [sentences[0]]  # they process whole sentences
        return asked


def run_worker(task: Mapping[str, Any], folder: Path, python: str | None, *, offline: bool = True) -> dict[str, Any]:
    """Return the measurements of a worker in its own process, or in this one without an interpreter.

    Raises:
        CalledProcessError: The process failed.
    """
    task = {**task, "started": time.time()}
    if python is None:
        return worker.measure(task)
    file = folder / "task.json"
    file.write_text(json.dumps(task), encoding="utf-8")
    done = subprocess.run(
        [python, worker.__file__, str(file)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"} if offline else None,
    )
    return json.loads(done.stdout.splitlines()[-1])


def plain_copy(base: str, folder: Path, dtype: torch.dtype) -> Path:
    """Return the base model in full precision, as users of transformers have it."""
    source = locate_base(base)
    config = AutoConfig.from_pretrained(source)
    if not hasattr(config, "quantization_config"):
        return source
    loaded, tokenizer = load_base(source, quantization=None, dtype=dtype, device=torch.device("cpu"))
    with quiet_loading():
        as_full_model(loaded, dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _missing(one: Contestant, options: Options) -> str:
    """Return why a system cannot be measured, or an empty string."""
    if one.part not in options.pythons and importlib.util.find_spec(one.module) is None:
        return f"{one.module} is not installed"
    if one.system == "llama_cpp" and (options.base != PACKAGED_BASE or find_gguf() is None):
        return "this model has no GGUF file"
    return ""


def _reason(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in error.stderr.splitlines() if line.strip()]
    return f"failed with status {error.returncode}: {lines[-1].strip() if lines else 'no message'}"


def _describe(work: Sequence[Sentence]) -> dict[str, Any]:
    return {"sentences": len(work), "pairs": sum(len(one["pairs"]) for one in work), "text": work[0]["text"]}


def _row(
    one: Contestant,
    rounds: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    options: Options,
) -> dict[str, Any]:
    """Return medians over the rounds, with ratios of time and memory by round."""
    works = {}
    for name in rounds[0]["works"]:
        speed = [run["works"][name]["pairs"] / run["works"][name]["seconds"] for run in rounds]
        ours = [run["works"][name]["pairs"] / run["works"][name]["seconds"] for run in rows[one.beside]]
        pairs = rounds[0]["works"][name]["pairs"]
        works[name] = {
            "pairs": pairs,
            "pairs_s": median(speed),
            "ms_a_pair": 1000 / median(speed),
            "tokens_a_pair": median([run["works"][name]["tokens"] for run in rounds]) / pairs,
            "times": median(ratios(ours, speed)),
            "times_by_round": ratios(ours, speed),
        }
    key = "peak_gpu_gb" if "peak_gpu_gb" in rounds[0] else "peak_gb"
    memory = {"peak_gb": median([run[key] for run in rounds]), "memory_of": key}
    batch_8 = rows.get(BATCH_8)
    if batch_8 and key in batch_8[0]:
        memory["to_batch_8"] = median(ratios([run[key] for run in rounds], [run[key] for run in batch_8]))
    cold = {stage: median([run["cold"][stage] for run in rounds]) for stage in ("import", "load", "first")}
    cold["all"] = median([sum(run["cold"].values()) for run in rounds])
    note = rounds[0].get("note", one.note)
    if one.part == "glirel" and not options.glirel:
        note = "random weights of the published size: speed only"
    return {"title": one.title, "part": one.part, "works": works, **memory, "cold": cold, "note": note}
