"""An evaluation run: one system on one benchmark, as a folder that is complete or absent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"
FORMAT = 1


class EvaluationError(ValueError):
    """What is wrong with an evaluation, and what to do."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a system said of one pair.

    Attributes:
        id: Document id and number of the pair in it, "train-12/3"; unique in a run.
        doc: The source document, which belongs together in statistics.
        text: The context.
        head: Character offsets of the head in `text`.
        tail: Character offsets of the tail.
        head_type: Its entity type.
        tail_type: Its entity type.
        gold: Gold labels; none of them is the negative one.
        predicted: The label; None is the negative one, or no answer. An answer out of the label set stands
            here as it was given.
        score: Probability of the most probable label, where the system gives one.
        top: The most probable labels, negative one included, and their probabilities.
        answer: What a generating model wrote.
        answered: Whether there was an answer at all.
    """

    id: str
    doc: str
    text: str
    head: tuple[int, int]
    tail: tuple[int, int]
    head_type: str
    tail_type: str
    gold: tuple[str, ...]
    predicted: str | None
    score: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    answer: str | None = None
    answered: bool = True


@dataclass(frozen=True)
class EvaluationRun:
    """A complete run.

    Attributes:
        folder: Where it lies.
        info: What was evaluated on what, how, and with what (`run.json`).
        metrics: The scores (`metrics.json`).
    """

    folder: Path
    info: dict[str, Any]
    metrics: dict[str, Any]

    def predictions(self) -> Iterator[Prediction]:
        """The pairs, in the corpus's order.

        Raises:
            EvaluationError: The file is damaged.
        """
        path = self.folder / PREDICTIONS_FILE
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    data = json.loads(line)
                    for name in ("head", "tail", "gold"):
                        data[name] = tuple(data[name])
                    data["top"] = tuple((label, score) for label, score in data["top"])
                    yield Prediction(**data)
                except (ValueError, KeyError, TypeError) as error:
                    raise EvaluationError(
                        f"{path}:{number}: {line[:80]!r} is no prediction of a run. Evaluate again."
                    ) from error


def read_run(folder: Path) -> EvaluationRun:
    """A run that `slmre evaluate` wrote.

    Raises:
        EvaluationError: The folder holds no complete run.
    """
    try:
        info, metrics = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (RUN_FILE, METRICS_FILE)
        )
        complete = info["format"] == FORMAT and (folder / PREDICTIONS_FILE).exists()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{folder} holds no complete evaluation run ({error}). Repeat the command that made it: it goes "
            "on where it was interrupted."
        ) from error
    if not complete:
        raise EvaluationError(f"{folder} holds a run of another version: evaluate again.")
    return EvaluationRun(folder, info, metrics)


def find_runs(paths: Iterable[Path]) -> list[EvaluationRun]:
    """The complete runs in folders and the folders below them, in alphabetical order.

    Raises:
        EvaluationError: One of them does not exist, or there is no run in any.
    """
    paths = list(paths)
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"There is no folder {path}.")
        for file in sorted(path.rglob(RUN_FILE)):
            folders[file.parent.resolve()] = None
    if not folders:
        raise EvaluationError(
            f"There is no evaluation run in {', '.join(map(str, paths))}. Make one with: python -m spacy "
            "slmre evaluate PIPELINE CORPUS --output DIR"
        )
    return [read_run(folder) for folder in folders]
