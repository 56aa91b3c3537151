"""An evaluation run: one system on one benchmark, as a folder that is complete or absent."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from spacy_slmre.util.io import atomic_replace, atomic_write, is_replaceable

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"
STATE_FILE = "state.json"
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

    def to_json(self) -> str:
        """One line."""
        return json.dumps({name: getattr(self, name) for name in FIELDS}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Prediction:
        """The inverse of `to_json`.

        Raises:
            ValueError: The line is no prediction.
        """
        try:
            data = json.loads(line)
            for name in ("head", "tail", "gold"):
                data[name] = tuple(data[name])
            data["top"] = tuple((label, score) for label, score in data["top"])
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{line[:80]!r} is no prediction of an evaluation run.") from error


FIELDS = tuple(field.name for field in fields(Prediction))


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
        yield from read_predictions(self.folder / PREDICTIONS_FILE)


def read_predictions(path: Path) -> Iterator[Prediction]:
    """The predictions in a file.

    Raises:
        EvaluationError: A line is none.
    """
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Prediction.from_json(line)
            except ValueError as error:
                raise EvaluationError(f"{path}:{number}: {error} Evaluate again.") from error


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


def done_run(folder: Path, marks: Mapping[str, Any]) -> EvaluationRun | None:
    """The run in a folder, if it is the same evaluation; None where there is none yet.

    Args:
        folder: The run's folder.
        marks: What makes two evaluations the same, as plain data.

    Raises:
        EvaluationError: The folder holds another evaluation, or no complete one.
    """
    if not folder.exists():
        return None
    run = read_run(folder)
    if changed := _changed(marks, run.info.get("marks", {})):
        raise EvaluationError(
            f"{folder} holds another evaluation ({', '.join(changed)} changed). Name another folder with "
            "--output, or give --overwrite to replace it."
        )
    return run


def _changed(marks: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Which marks differ."""
    marks = json.loads(json.dumps(marks))
    return [name for name in marks if name not in others or marks[name] != others[name]]


class RunWriter:
    """Writes a run beside its place, as `<folder>.part`, and goes on where an interrupted one stopped.

    Args:
        folder: The run's folder.
        marks: What makes two evaluations the same, as plain data.
        restart: Throw away what an interrupted run has left.
        replace: Throw it away where it is of another evaluation.
        part: Where to write until all is done, in place of `<folder>.part`.

    Raises:
        EvaluationError: What is left is of another evaluation, or the folder holds something else.
    """

    def __init__(
        self,
        folder: Path,
        marks: Mapping[str, Any],
        *,
        restart: bool = False,
        replace: bool = False,
        part: Path | None = None,
    ) -> None:
        if not is_replaceable(folder, RUN_FILE):
            raise EvaluationError(
                f"{folder} is there already and has no {RUN_FILE}, so that no evaluation has made it: it "
                "will not be replaced. Name another folder with --output."
            )
        self.folder = folder
        self.part = part or folder.with_name(f"{folder.name}.part")
        self.docs = 0
        """Documents that are done."""
        self.seconds = 0.0
        """Time that they took."""
        self.truncated = 0
        """Pairs whose context was truncated."""
        self.tokens = 0
        """Tokens of their prompts, each with a prompt of its own; 0 where that is not known."""
        self.usage: Counter[str] = Counter()
        """What a service was asked."""
        self.marks = json.loads(json.dumps(marks))
        lines = 0
        if (left := self._left()) and not restart:
            changed = _changed(self.marks, left["marks"])
            if changed and not replace:
                raise EvaluationError(
                    f"An interrupted evaluation left {self.part}, but it was another one "
                    f"({', '.join(changed)} changed). Repeat it as it was, or give --restart to throw its "
                    "results away."
                )
            if not changed:
                self.docs, self.seconds, lines = left["docs"], left["seconds"], left["lines"]
                self.truncated, self.tokens = left["truncated"], left["tokens"]
                self.usage.update(left["usage"])
        self.part.mkdir(parents=True, exist_ok=True)
        self._lines = lines
        self._file = self.part / PREDICTIONS_FILE
        self._cut(lines)

    def _left(self) -> dict[str, Any] | None:
        """How far an interrupted run came."""
        state = self.part / STATE_FILE
        if not state.exists():
            return None
        try:
            left: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(f"{state} is damaged: give --restart to begin anew.") from error
        return left if "marks" in left else None

    def _cut(self, lines: int) -> None:
        """Remove what was written after the last note of how far the run is."""
        self._file.touch()
        end = 0
        with self._file.open("rb") as file:
            for _ in range(lines):
                end += len(file.readline())
        os.truncate(self._file, end)

    def write(
        self,
        predictions: Iterable[Prediction],
        docs: int,
        seconds: float,
        truncated: int = 0,
        tokens: int = 0,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """Add the predictions of some documents; a run killed from now on keeps them."""
        lines = [prediction.to_json() for prediction in predictions]
        with self._file.open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.writelines(f"{line}\n" for line in lines)
        self._lines += len(lines)
        self.docs += docs
        self.seconds += seconds
        self.truncated += truncated
        self.tokens += tokens
        self.usage.update(usage or {})
        state: dict[str, Any] = {"docs": self.docs, "lines": self._lines, "seconds": self.seconds}
        state |= {"truncated": self.truncated, "tokens": self.tokens, "usage": dict(self.usage)}
        state |= {"marks": self.marks}
        atomic_write(self.part / STATE_FILE, json.dumps(state))

    def predictions(self) -> list[Prediction]:
        """What was written so far."""
        return list(read_predictions(self._file))

    def finish(self, info: dict[str, Any], metrics: dict[str, Any]) -> EvaluationRun:
        """Write the rest and give the folder its name."""
        for name, data in (
            (METRICS_FILE, metrics),
            (RUN_FILE, {"format": FORMAT, **info, "marks": self.marks}),
        ):
            atomic_write(self.part / name, json.dumps(data, indent=2, ensure_ascii=False))
        atomic_replace(self.part, self.folder)
        # Not before: killed in between, the next run would begin anew.
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        return read_run(self.folder)
