"""Compare our components with today's local relation extractors, from given entities and from raw text."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spacy_slmre.models.hub import locate_base, resolve_device, resolve_dtype
from speed import random_weights
from speed.contest import CLASSIFIER, SLM, Contestant, run_rounds, run_worker
from speed.options import Options
from speed.timing import median, ratios
from speed.workload import GIVEN, NEGATIVE, RAW, Sentence, first_pairs, make_schema, make_sentences, work_name

LABELS = (5, 20, 50, 100)
ENTITIES, PAIRS = 4, 12
"""Entities and ordered pairs of a sentence."""
SENTENCES = 4
NEW_TOKENS = 50
"""Tokens that REBEL writes per sentence; four triplets of two names, a label and three markers take 43."""
SECONDS, COLD = ("cpu_seconds", "cpu_cold") if torch.get_num_threads() == 1 else ("seconds", "cold")
"""Other programs disturb the CPU time of one thread less than its time."""
TYPES = ("PER", "LOC", "ORG", "PERSON", "GPE", "DATE")


@dataclass(frozen=True)
class Peer(Contestant):
    """A system of this comparison.

    Attributes:
        size: Size of the random weights, a name in random_weights.py; ours have their own weights.
        given: Whether it takes given entities.
        any_labels: Whether it takes labels; otherwise it has its own, and is measured once.
    """

    size: str = ""
    given: bool = False
    any_labels: bool = True


def _ours(title: str, component: str, architecture: str, **model: Any) -> Peer:
    """Return a row for one of our components with settings of its model."""
    settings = {"component": component, "model": {"@architectures": f"spacy-slmre.{architecture}.v1", **model}}
    return Peer(title, "ours", "component", settings, warm=True, beside=title, given=True)


SPANS_ONLY = "the entities that it finds are computed all the same; given ones only limit what it returns"
PEERS = (
    _ours(SLM, "slm_relations", "SmallLM"),
    _ours(CLASSIFIER, "rel_classifier", "EncoderClassifier"),
    _ours(f"{CLASSIFIER}, levitated markers", "rel_classifier", "EncoderClassifier", markers="levitated"),
    Peer("GLiNER2, base", "gliner2", "gliner2", {"maker": "gliner2"}, 12, module="gliner2", size="base"),
    Peer("GLiNER2.5, base", "gliner2", "gliner2", {"maker": "gliner25"}, 12, module="gliner2", size="base"),
    Peer("GLiNER2.5, small", "gliner2", "gliner2", {"maker": "gliner25"}, 12, module="gliner2", size="xsmall"),
    Peer(
        "GLiNER-Relex, base",
        "relex",
        "relex",
        {"maker": "relex", "types": ("person", "location", "organization")},
        24,
        module="gliner",
        size="base",
        given=True,
        note=SPANS_ONLY,
    ),
    Peer(
        "REBEL",
        "rebel",
        "rebel",
        {"maker": "rebel"},
        size="large",
        any_labels=False,
        note=f"it has its own labels, so it was measured once, writing {NEW_TOKENS} tokens per sentence with 3 beams",
    ),
)
PARTS = tuple(dict.fromkeys(one.part for one in PEERS if one.part != "ours"))


def peers(options: Options) -> dict[str, Any]:
    """Measure all installed systems in alternating rounds.

    Returns:
        "labels": numbers of labels; "text": a sentence; "seconds": the kind of time; "systems": a row for each;
        "skipped": reasons for missing rows.
    """
    sentences = make_sentences(options.scaled(SENTENCES), PAIRS, entities=ENTITIES)
    with tempfile.TemporaryDirectory() as folder:
        tasks = _Tasks(options, Path(folder), sentences)
        rows, skipped = run_rounds(PEERS, options, tasks.run)
    return {
        "labels": list(LABELS),
        "text": sentences[0]["text"],
        "seconds": SECONDS,
        "systems": [_row(one, rows) for one in PEERS if one.title in rows],
        "skipped": skipped,
    }


class _Tasks:
    """The inputs of workers: saved models and the workloads."""

    def __init__(self, options: Options, folder: Path, sentences: Sequence[Sentence]) -> None:
        self.options = options
        self.folder = folder
        self.sentences = sentences
        self.encoder, self.base = str(locate_base(options.encoder)), str(locate_base(options.base))
        names = [*make_schema(40).names, *make_schema(96).names]
        self.labels = [name for name in dict.fromkeys(names) if name != NEGATIVE][: max(LABELS)]
        device = resolve_device(options.device)
        self.settings = {
            "ner": options.ner,
            "device": str(device),
            "dtype": str(resolve_dtype(options.dtype, device)).removeprefix("torch."),
            "types": TYPES,
            "negative": NEGATIVE,
            "entities": ENTITIES,
            "new_tokens": 8 if options.quick else NEW_TOKENS,
        }

    def run(self, one: Peer) -> dict[str, Any]:
        """Return the measurements of a worker. Raises CalledProcessError if it or making its weights fails."""
        python = self.options.pythons.get(one.part)
        if python is None and not self.options.quick:
            python = sys.executable
        asked = first_pairs(self.sentences, one.pairs) if one.pairs else list(self.sentences)
        works: dict[str, dict[str, Any]] = {}
        for source in (GIVEN, RAW)[not one.given :]:
            for count in LABELS if one.any_labels else LABELS[:1]:
                work = {"given": source == GIVEN, "labels": self.labels[:count], "sentences": asked}
                warm_up = {"warm_up": {**work, "sentences": asked[:1]}} if one.warm else {}
                works[work_name(source, count)] = work | warm_up
        first = {**next(iter(works.values())), "sentences": asked[:1]}
        task = {**self.settings, **one.settings, "system": one.system, "works": works, "first": first}
        if one.size:
            task["weights"] = self._weights(one, python)
        else:
            base = self.options.base if one.title == SLM else self.options.encoder
            task["model"] = {"base": base, **one.settings["model"]}
        return run_worker(task, self.folder, python)

    def _weights(self, one: Peer, python: str | None) -> str:
        """Return the folder of a system's random weights, which its own package makes and loads."""
        size = "tiny" if self.options.quick else one.size
        folder = self.folder / f"{one.settings['maker']}-{size}"
        if not folder.exists():
            tokenizer = self.base if one.part == "rebel" else self.encoder
            command = [
                python or sys.executable,
                random_weights.__file__,
                one.settings["maker"],
                size,
                tokenizer,
                str(folder),
            ]
            subprocess.run(command, capture_output=True, text=True, check=True)
        return str(folder)


def _row(one: Peer, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return medians over the rounds, and the time relative to each of ours by round."""
    rounds = rows[one.title]
    works = {}
    for source in (GIVEN, RAW):
        for count in LABELS:
            name = work_name(source, count)
            own = name if one.any_labels else work_name(source, LABELS[0])
            if own not in rounds[0]["works"]:
                continue
            speed = _speeds(rounds, own)
            works[name] = {
                "sentences": rounds[0]["works"][own]["sentences"],
                "sentences_s": median(speed),
                "pairs_a_sentence": rounds[0]["works"][own]["pairs"] / rounds[0]["works"][own]["sentences"],
                "times_by_round": {ours: ratios(_speeds(rows[ours], name), speed) for ours in (SLM, CLASSIFIER)},
            }
    cold = {stage: median([run[COLD][stage] for run in rounds]) for stage in ("import", "load", "first")}
    cold["all"] = median([sum(run[COLD].values()) for run in rounds])
    peak = median([run["peak_gb"] for run in rounds])
    return {"title": one.title, "works": works, "peak_gb": peak, "cold": cold, "note": one.note, "rounds": rounds}


def _speeds(rounds: Sequence[Mapping[str, Any]], work: str) -> list[float]:
    """Return sentences per second by round."""
    return [run["works"][work]["sentences"] / run["works"][work][SECONDS] for run in rounds]
