"""Evaluation runs as they lie on disk, of systems that answer at random with a given skill."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

LABELS = ["author", "employer", "place of birth", "sibling", "spouse"]
NEGATIVE = "no relation"
NAMES = ["Ada Brandt", "Otto Reiss", "Mina Okafor", "Piet de Wit", "Lea Sand"]
PLACES = ["Uppsala", "Northgate Shipping", "Trieste", "the Meridian Review", "Old Harbour"]
PHRASES = {
    "author": "wrote most of what appeared that year under the name of",
    "employer": "kept the books for eleven years at",
    "place of birth": "was born, as the parish register has it, in",
    "sibling": "had grown up in one house with",
    "spouse": "had married, against all advice,",
    NEGATIVE: "once read a long letter aloud about",
}


def write_run(
    folder: Path,
    system: str = "SmolLM2-135M",
    benchmark: str = "demo",
    skill: float = 0.7,
    *,
    seed: int = 0,
    pairs: int = 120,
    labels: list[str] = LABELS,
    **info: Any,
) -> Path:
    """A complete run; `info` are further entries of run.json."""
    told = {
        "format": 1,
        "system": system,
        "kind": "slm",
        "params": 135_000_000,
        "regime": "GenTune",
        "style": "2-shot",
        "prompt": "schema",
        "decoding": "scored",
        "dapt": False,
        "benchmark": benchmark,
        "split": "test",
        "substitute_for": None,
        "limit": None,
        "data_sha256": "ab" * 32,
        "labels": [*labels, NEGATIVE],
        "negative_label": NEGATIVE,
        "seconds": 4.0,
        "tokens": 12_000,
        "peak_memory_gb": 1.25,
        "load_seconds": 2.5,
        "cost": None,
        "environment": {"machine": "Test CPU, 2 threads", "versions": {"spacy": "3.8.18"}},
        **info,
    }
    predictions = _answers(random.Random(f"{system}{benchmark}{seed}"), pairs, skill, labels, told["kind"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text(
        "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in predictions), encoding="utf-8"
    )
    for name, data in (("metrics", _metrics(predictions, told)), ("run", {**told, "pairs": len(predictions)})):
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def _answers(rng: random.Random, pairs: int, skill: float, labels: list[str], kind: str) -> list[dict]:
    every = [*labels, NEGATIVE]
    common = [1 / (place + 1) for place in range(len(labels))]
    found = []
    for number in range(pairs):
        gold = NEGATIVE if rng.random() < 0.4 else rng.choices(labels, common)[0]
        head, tail = rng.choice(NAMES), rng.choice(PLACES)
        text = f"In those years {head} {PHRASES.get(gold, gold)} {tail}, and nobody in town spoke of it again."
        start = text.index(tail)
        sure = rng.betavariate(5, 2)
        right = rng.random() < skill + 0.5 * (sure - 0.7)
        answer = gold if right else rng.choice([label for label in every if label != gold])
        scored = kind != "llm"
        found.append(
            {
                "id": f"doc-{number // 3}/{number % 3}",
                "doc": f"doc-{number // 3}",
                "text": text,
                "head": [15, 15 + len(head)],
                "tail": [start, start + len(tail)],
                "head_type": "PER",
                "tail_type": "",
                "gold": [] if gold == NEGATIVE else [gold],
                "predicted": None if answer == NEGATIVE else answer,
                "score": round(sure, 4) if scored else None,
                "top": [[answer, round(sure, 4)]] if scored else [],
                "answer": None if scored else f"{answer}, I think",
            }
        )
    return found


def _prf(tp: int, fp: int, fn: int) -> dict[str, float]:
    return {
        "p": tp / (tp + fp) if tp + fp else 0.0,
        "r": tp / (tp + fn) if tp + fn else 0.0,
        "f": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
    }


def _counts(predictions: list[dict], label: str | None = None) -> tuple[int, int, int]:
    tp = fp = fn = 0
    for one in predictions:
        gold, answer = next(iter(one["gold"]), None), one["predicted"]
        tp += gold == answer and gold is not None and label in (None, gold)
        fp += answer is not None and gold != answer and label in (None, answer)
        fn += gold is not None and gold != answer and label in (None, gold)
    return tp, fp, fn


def _metrics(predictions: list[dict], info: dict) -> dict:
    tp, fp, fn = _counts(predictions)
    micro = {**_prf(tp, fp, fn), "tp": tp, "fp": fp, "fn": fn}
    rng = random.Random(0)
    draws = sorted(
        _prf(*_counts(rng.choices(predictions, k=len(predictions))))["f"] for _ in range(40)
    )
    per_label = {
        label: {
            **_prf(*_counts(predictions, label)),
            "gold": sum(label in one["gold"] for one in predictions),
        }
        for label in info["labels"][:-1]
    }
    right = [(next(iter(one["gold"]), None) == one["predicted"]) for one in predictions]
    cells = Counter(
        (next(iter(one["gold"]), NEGATIVE), one["predicted"] or NEGATIVE) for one in predictions
    )
    scored = [(one, ok) for one, ok in zip(predictions, right, strict=True) if one["score"] is not None]
    return {
        "micro": micro,
        "interval": {"low": draws[1], "high": draws[-2], "level": 0.95, "samples": 40},
        "macro_f": sum(one["f"] for one in per_label.values()) / len(per_label),
        "per_label": per_label,
        "official_macro_f": None,
        "accuracy": sum(right) / len(right),
        "out_of_schema": 0,
        "unanswered": 0,
        "truncated": 0,
        "calibration": _calibration(scored) if scored else None,
        "coverage": _coverage(scored) if scored else None,
        "confusion": {
            "labels": info["labels"],
            "rows": [[cells[gold, answer] for answer in info["labels"]] for gold in info["labels"]],
        },
    }


def _calibration(scored: list[tuple[dict, bool]]) -> dict:
    bins, error = [], 0.0
    for place in range(10):
        part = [(one["score"], ok) for one, ok in scored if min(int(one["score"] * 10), 9) == place]
        confidence = sum(score for score, _ in part) / (len(part) or 1)
        accuracy = sum(ok for _, ok in part) / (len(part) or 1)
        error += len(part) * abs(confidence - accuracy) / len(scored)
        bins.append({"low": place / 10, "high": (place + 1) / 10, "count": len(part)})
        bins[-1] |= {"confidence": confidence, "accuracy": accuracy}
    return {"ece": error, "bins": bins}


def _coverage(scored: list[tuple[dict, bool]]) -> list[dict]:
    rows = []
    for least in (0.0, 0.5, 0.7, 0.9, 0.99):
        kept = [(one, ok) for one, ok in scored if one["score"] >= least]
        rows.append(
            {
                "confidence": least,
                "coverage": len(kept) / len(scored),
                "accuracy": sum(ok for _, ok in kept) / len(kept) if kept else None,
                "f": _prf(*_counts([one for one, _ in kept]))["f"] if kept else None,
            }
        )
    return rows
