"""The study's published results: figures only, of Christou and Tsoumakas, arXiv 2606.22606 (June 2026)."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SOURCE = "Christou & Tsoumakas, arXiv 2606.22606"
GENERAL = ("tacred", "semeval2010_task8", "conll04", "nyt11", "gids", "re_docred", "rebel")
LITERARY = ("biographical", "pg_fiction")
GROUPS: Mapping[str, tuple[str, ...]] = {"general": GENERAL, "literary": LITERARY}
"""The benchmarks that the study averages over."""

TEST_PAIRS: Mapping[str, int] = {
    "tacred": 15509,
    "semeval2010_task8": 2717,
    "conll04": 422,
    "nyt11": 8616,
    "gids": 5663,
    "re_docred": 12693,
    "rebel": 7503,
    "biographical": 31492,
    "pg_fiction": 8144,
}
"""How many test instances the study has."""

DAPT_GAIN = 0.001
"""What pretraining on literary text gained in the study's one case."""

FLAGS = {
    "think": "failed in the study: thinking tokens were taken for the label",
    "schema": "failed in the study: answers in another label set",
}

# Names of cards that the study calls otherwise.
_COLUMNS = {"nyt": "nyt11"}


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """A row of the study's results.

    Attributes:
        system: The model.
        params: Number of parameters; None where the study gives none.
        regime: What it was tuned on: "GenTune", "LitTune", "MixTune", "in-domain" or "none".
        style: "0-shot" or "2-shot" prompts, or "classifier".
        scores: Positive-class micro-F1 by benchmark, of those that it was tested on.
        averages: Plain means by group, as they were published.
        flag: Why a configuration failed; a key of `FLAGS`, or empty.
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
        """As evaluation runs have it: "slm", "encoder" or "llm"."""
        if self.style == "classifier":
            return "encoder"
        return "llm" if self.params is None else "slm"

    @property
    def name(self) -> str:
        """The model with its configuration, where it has one."""
        return f"{self.system} {self.regime} {self.style}" if self.kind == "slm" else self.system


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A published result beside which one of ours stands, on one benchmark.

    Attributes:
        result: The published row.
        score: Its micro-F1 on the benchmark.
        why: What the two have in common.
    """

    result: PublishedResult
    score: float
    why: str


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """All rows, in the study's order."""
    text = (files("spacy_slmre.study") / "data" / "published_results.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedResult(
            row["system"],
            float(row["params_b"]) * 1e9 if row["params_b"] else None,
            row["regime"],
            row["style"],
            {name: float(row[name]) for name in (*GENERAL, *LITERARY) if row[name]},
            {group: float(row[f"{group}_avg"]) for group in GROUPS if row[f"{group}_avg"]},
            row["flag"] or "",
        )
        for row in csv.DictReader(text.splitlines())
    )


def column_of(info: Mapping[str, Any]) -> str | None:
    """The study's name of a run's benchmark; None where it has none, or a stand-in was used."""
    name = _COLUMNS.get(info["benchmark"], info["benchmark"])
    return name if name in TEST_PAIRS and not info.get("substitute_for") else None


def card_name(column: str) -> str:
    """The card of one of the study's benchmarks."""
    return next((card for card, name in _COLUMNS.items() if name == column), column)


def neighbours(info: Mapping[str, Any]) -> list[Neighbour]:
    """The published rows nearest to a run, on its benchmark.

    A language model stands beside its own base model where the study has it, else beside the one nearest in
    size, of the same regime and style if there is one; encoders beside RoBERTa, models without tuning beside
    the frontier models, predictions made elsewhere beside those of a model of that name.
    """
    column = column_of(info)
    if column is None:
        return []
    there = [one for one in published_results() if one.kind == info["kind"] and column in one.scores]
    if info["kind"] == "external":
        # Predictions of whoever it was: beside what has its name.
        there = [one for one in published_results() if column in one.scores and _same_base(one, info)]
    elif info["kind"] == "slm" and there:
        there = [min(there, key=lambda one: _distance(one, info))]
    return [Neighbour(one, one.scores[column], _common(one, info)) for one in there]


def _distance(one: PublishedResult, info: Mapping[str, Any]) -> tuple:
    size = math.log(info["params"] / one.params) if info["params"] and one.params else 0.0
    # 2-shot is what the study recommends: beside it stands what does not say how it was asked.
    style = info["style"] or "2-shot"
    return (not _same_base(one, info), abs(size), one.regime != info["regime"], one.style != style)


def _same_base(one: PublishedResult, info: Mapping[str, Any]) -> bool:
    base, name = (_letters(text) for text in (one.system, info["system"]))
    return base in name


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _common(one: PublishedResult, info: Mapping[str, Any]) -> str:
    if info["kind"] == "external":
        return "the same name"
    if one.kind == "encoder":
        return "one classifier for each benchmark"
    if one.kind == "llm":
        return "asked without tuning"
    checks = {
        "base model": _same_base(one, info),
        "regime": one.regime == info["regime"],
        "style": one.style == info["style"],
    }
    same = [what for what, is_same in checks.items() if is_same]
    parts = [] if checks["base model"] else ["nearest in size"]
    if same:
        parts.append("same " + (", ".join(same[:-1]) + " and " if len(same) > 1 else "") + same[-1])
    return ", ".join(parts)
