"""The study's published results: figures from Christou and Tsoumakas, arXiv 2606.22606 (June 2026)."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_slmre.evaluation.results import Reference

SOURCE = "Christou & Tsoumakas, arXiv 2606.22606"
GENERAL = ("tacred", "semeval2010_task8", "conll04", "nyt", "gids", "re_docred", "rebel")
LITERARY = ("biographical", "pg_fiction")
GROUPS: Mapping[str, tuple[str, ...]] = {"general": GENERAL, "literary": LITERARY}
"""The benchmarks that the study averages over."""

TEST_PAIRS: Mapping[str, int] = {
    "tacred": 15509,
    "semeval2010_task8": 2717,
    "conll04": 422,
    "nyt": 8616,
    "gids": 5663,
    "re_docred": 12693,
    "rebel": 7503,
    "biographical": 31492,
    "pg_fiction": 8144,
}
"""Number of test instances in the study."""

DAPT_GAIN = 0.001
"""Gain of continued pretraining on literary text, in the one case that the study reports."""

FLAGS = {
    "think": "failed in the study: thinking tokens were taken as the label",
    "schema": "failed in the study: answers from another label set",
}


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """A row of the study's results.

    Attributes:
        system: The model.
        params: Number of parameters; None if unpublished.
        regime: What it was tuned on: "GenTune", "LitTune", "MixTune", "in-domain" or "none".
        style: "0-shot" or "2-shot" prompts, or "classifier".
        scores: Positive-class micro-F1 by benchmark.
        averages: Published means by group.
        flag: Why a configuration failed, or empty.
    """

    system: str
    params: float | None
    regime: str
    style: str
    scores: Mapping[str, float]
    averages: Mapping[str, float]
    flag: str

    @property
    def kind(self) -> str:
        """Kind of the system as in evaluation runs: "slm", "encoder" or "llm"."""
        if self.style == "classifier":
            return "encoder"
        return "llm" if self.params is None else "slm"

    @property
    def name(self) -> str:
        """The model with its configuration, if it has one."""
        return f"{self.system} {self.regime} {self.style}" if self.kind == "slm" else self.system


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return all rows in the study's order."""
    text = (files("spacy_slmre.study") / "data" / "published_results.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedResult(
            row["system"],
            float(row["params_b"]) * 1e9 if row["params_b"] else None,
            row["regime"],
            row["style"],
            {name: float(row[name]) for name in TEST_PAIRS if row[name]},
            {group: float(row[f"{group}_avg"]) for group in GROUPS if row[f"{group}_avg"]},
            FLAGS.get(row["flag"] or "", ""),
        )
        for row in csv.DictReader(text.splitlines())
    )


# "gpt-5.4-mini" is another model than "GPT-5.4".
_VARIANTS = {"mini", "nano", "micro", "tiny", "small", "medium", "large", "xl", "pro", "turbo"}


def closest_results(info: Mapping[str, Any]) -> list[Reference]:
    """Return the published results closest to a run on its benchmark, if it is one of the study's.

    For a language model, this is its own base model or the one closest in size, preferably with the same
    regime and style; for an encoder, RoBERTa; for an LLM, the frontier models; for predictions of another
    program, a model of that name.
    """
    benchmark, kind = info["corpus"], info["kind"]
    rows = [one for one in published_results() if benchmark in one.scores]
    if kind == "external":
        rows = [one for one in rows if _has_same_base(one, info)]
    else:
        rows = [one for one in rows if one.kind == kind]
    if kind == "slm" and rows:
        rows = [min(rows, key=lambda one: _distance(one, info))]
    return [Reference(one.name, one.scores[benchmark], _reason(one, info), one.flag) for one in rows]


def _distance(one: PublishedResult, info: Mapping[str, Any]) -> tuple:
    size = math.log(info["params"] / one.params) if info["params"] and one.params else 0.0
    # The study recommends 2-shot prompts, so they are the default for runs that do not record a style.
    style = info["style"] or "2-shot"
    return (not _has_same_base(one, info), abs(size), not _has_same_regime(one, info), one.style != style)


def _has_same_base(one: PublishedResult, info: Mapping[str, Any]) -> bool:
    base, name = (re.findall(r"[a-z]+|[0-9]+", text.lower()) for text in (one.system, Path(info["system"]).name))
    return name[: len(base)] == base and not {*name[len(base) :]} & _VARIANTS


def _has_same_regime(one: PublishedResult, info: Mapping[str, Any]) -> bool:
    return one.regime.casefold() == info["regime"].casefold()


def _reason(one: PublishedResult, info: Mapping[str, Any]) -> str:
    if info["kind"] == "external":
        return "same name"
    if one.kind != "slm":
        return "one classifier per benchmark" if one.kind == "encoder" else "not tuned"
    checks = {
        "base model": _has_same_base(one, info),
        "regime": _has_same_regime(one, info),
        "style": one.style == info["style"],
    }
    same = [name for name, is_same in checks.items() if is_same]
    parts = [] if checks["base model"] else ["closest in size"]
    if same:
        parts.append("same " + (", ".join(same[:-1]) + " and " if len(same) > 1 else "") + same[-1])
    return ", ".join(parts)
