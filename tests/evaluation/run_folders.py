"""Write evaluation runs of systems that predict at random with a given accuracy."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.evaluation.runs import FORMAT, Prediction
from spacy_slmre.evaluation.scoring import score_predictions

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
    corpus: str = "demo",
    skill: float = 0.7,
    *,
    seed: int = 0,
    pairs: int = 120,
    labels: list[str] = LABELS,
    **info: Any,
) -> Path:
    """Write a complete run; `info` are further entries of run.json."""
    record = {
        "format": FORMAT,
        "system": system,
        "kind": "slm",
        "params": 135_000_000,
        "regime": "GenTune",
        "style": "2-shot",
        "prompt": "schema",
        "decoding": "scored",
        "dapt": False,
        "corpus": corpus,
        "split": "test",
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
    predictions = list(_answers(corpus, system, seed, pairs, skill, labels, record["kind"] != "llm"))
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder, predictions)
    metrics = score_predictions(predictions, record["labels"], NEGATIVE)
    for name, data in (("metrics", metrics), ("run", {**record, "pairs": len(predictions)})):
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def write_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write the predictions of a run."""
    lines = "".join(f"{one.to_json()}\n" for one in predictions)
    (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")


def _answers(
    corpus: str, system: str, seed: int, pairs: int, skill: float, labels: list[str], scored: bool
) -> Iterator[Prediction]:
    # The pairs depend on the corpus alone, so that all systems have the same.
    pairs_rng, answers_rng = random.Random(corpus), random.Random(f"{system}{corpus}{seed}")
    weights = [1 / (rank + 1) for rank in range(len(labels))]
    for number in range(pairs):
        gold = NEGATIVE if pairs_rng.random() < 0.4 else pairs_rng.choices(labels, weights)[0]
        head, tail = pairs_rng.choice(NAMES), pairs_rng.choice(PLACES)
        text = f"In those years {head} {PHRASES.get(gold, gold)} {tail}, and nobody in town spoke of it again."
        start = text.index(tail)
        score = round(answers_rng.betavariate(5, 2), 4)
        is_correct = answers_rng.random() < skill + 0.5 * (score - 0.7)
        answer = gold if is_correct else answers_rng.choice([label for label in [*labels, NEGATIVE] if label != gold])
        yield Prediction(
            f"doc-{number // 3}/{number % 3}",
            f"doc-{number // 3}",
            text,
            (15, 15 + len(head)),
            (start, start + len(tail)),
            "PER",
            "",
            () if gold == NEGATIVE else (gold,),
            None if answer == NEGATIVE else answer,
            score if scored else None,
            ((answer, score),) if scored else (),
            None if scored else f"{answer}, I think",
        )
