"""Store evaluation runs, each of one system on one corpus, as folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.formats import CorpusFormat, all_formats
from spacy_slmre.util.io import atomic_write, sync
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE, RunFolder, read_json

PREDICTIONS_FILE = "predictions.jsonl"
STATE_FILE = "state.json"
FORMAT = 2


class EvaluationError(ValueError):
    """An evaluation cannot be run or read."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a system predicted for one pair.

    Attributes:
        id: Document id and number of the pair in it, such as "train-12/3"; unique in a run.
        doc: The source document, the unit of the bootstrap.
        text: The context.
        head: Character offsets of the head in `text`.
        tail: Character offsets of the tail in `text`.
        head_type: Entity type of the head.
        tail_type: Entity type of the tail.
        gold: Gold labels without the negative label.
        predicted: The label; None for the negative label or no answer. Answers outside the label set are kept
            unchanged.
        score: Probability of the most probable label, if known.
        top: The most probable labels, including the negative one, and their probabilities.
        answer: Text that a generative model wrote.
        answered: False if there was no answer.
        labels: All predicted labels, best first, if a pair may have several; None in runs with one label per pair.
        opposite: Id of the pair in the other direction, if it is in the run and there are symmetric or inverse labels.
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
    labels: tuple[str, ...] | None = None
    opposite: str = ""

    @property
    def predicted_labels(self) -> tuple[str, ...]:
        """All predicted labels; none for the negative label or no answer."""
        if self.labels is not None:
            return self.labels
        return () if self.predicted is None else (self.predicted,)

    @property
    def is_correct(self) -> bool:
        """Whether a gold label (or all, if several may be predicted) was predicted, or no relation if there is none."""
        if self.labels is not None:
            return self.answered and set(self.labels) == set(self.gold)
        if not self.gold:
            return self.predicted is None and self.answered
        return self.predicted in self.gold

    def to_json(self) -> str:
        """Return the prediction as one line of JSON."""
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Prediction:
        """Read a line written by `to_json`.

        Raises:
            ValueError: The line is not a prediction.
        """
        try:
            data = json.loads(line)
            for name in ("head", "tail", "gold"):
                data[name] = tuple(data[name])
            if data.get("labels") is not None:
                data["labels"] = tuple(data["labels"])
            data["top"] = tuple((label, score) for label, score in data["top"])
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{line[:80]!r} is not a prediction of an evaluation run.") from error


@dataclass(frozen=True)
class EvaluationRun:
    """A complete run.

    Attributes:
        folder: Its folder.
        info: The system, the data, the settings and the environment (`run.json`).
        metrics: The scores (`metrics.json`).
    """

    folder: Path
    info: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def corpus_format(self) -> CorpusFormat | None:
        """The format that the corpus was converted from, if it is known."""
        # Earlier runs only have the name of the corpus, which is that of its format unless it has none.
        return all_formats().get(self.info.get("corpus_format", self.info["corpus"]) or "")

    @property
    def title(self) -> str:
        """Title of the corpus, with the split unless it is the test set."""
        title, split = self.info["corpus"], self.info["split"]
        if self.corpus_format is not None:
            title = self.corpus_format.title + (", facts" if self.info.get("level") == "facts" else "")
        return title if split in ("test", "") else f"{title}, {split}"

    def predictions(self) -> Iterator[Prediction]:
        """Yield the predictions in the order of the corpus.

        Raises:
            EvaluationError: The file is damaged.
        """
        yield from read_predictions(self.folder / PREDICTIONS_FILE)


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions in a file.

    Raises:
        EvaluationError: A line is not a prediction.
    """
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Prediction.from_json(line)
            except ValueError as error:
                raise EvaluationError(f"{path}:{number}: {error} Evaluate again with overwrite.") from error


def read_run(folder: Path) -> EvaluationRun:
    """Read a run written by `slmre evaluate`.

    Raises:
        EvaluationError: The folder is not a complete run.
    """
    try:
        info, metrics = (read_json(folder / name) for name in (RUN_FILE, METRICS_FILE))
    except ValueError as error:
        raise EvaluationError(
            f"{folder} is not a complete evaluation run: {error} Repeat the command to resume it."
        ) from error
    if info.get("format") != FORMAT or not (folder / PREDICTIONS_FILE).exists():
        raise EvaluationError(f"{folder} was written by another version of spacy-slmre. Evaluate again with overwrite.")
    with (folder / PREDICTIONS_FILE).open("rb") as file:
        _check_count(folder / PREDICTIONS_FILE, sum(1 for _ in file), info["pairs"])
    return EvaluationRun(folder, info, metrics)


def _check_count(file: Path, found: int, recorded: int) -> None:
    if found != recorded:
        raise EvaluationError(
            f"{file} has {'only ' * (found < recorded)}{found:,} of {recorded:,} recorded predictions. Start over with "
            "overwrite."
        )


@dataclass
class RunTotals:
    """Totals over all predictions of a run."""

    docs: int = 0  # finished documents
    lines: int = 0  # predictions
    seconds: float = 0.0  # prediction time
    truncated: int = 0  # pairs whose context was truncated
    tokens: int = 0  # prompt tokens, counted as if each pair had its own prompt; 0 if unknown
    usage: Counter[str] = field(default_factory=Counter)  # requests and tokens of a remote service


class RunWriter:
    """Writes the predictions of a run batch by batch and resumes an interrupted run.

    Args:
        run_folder: The run folder, whose context is entered.
        key: The run key.

    Raises:
        EvaluationError: The partial results are damaged.
        OutputError: They belong to another run.
    """

    def __init__(self, run_folder: RunFolder, key: Mapping[str, Any]) -> None:
        self.run_folder = run_folder
        self.key = dict(key)
        self.totals = RunTotals()
        self._file = run_folder.partial / PREDICTIONS_FILE
        self._state = run_folder.partial / STATE_FILE
        if run_folder.begin(key) and self._state.exists():
            state = read_json(self._state)
            self.totals = RunTotals(**{**state, "usage": Counter(state["usage"])})
        self._truncate_file()

    def _truncate_file(self) -> None:
        """Remove predictions written after the last recorded state."""
        self._file.touch()
        with self._file.open("r+b") as file:
            for number in range(self.totals.lines):
                if not file.readline().endswith(b"\n"):
                    _check_count(self._file, number, self.totals.lines)
            file.truncate()

    def add(
        self,
        predictions: Iterable[Prediction],
        docs: int,
        seconds: float,
        truncated: int = 0,
        tokens: int = 0,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """Write the predictions of `docs` documents, so that they are kept if the process is killed."""
        lines = [prediction.to_json() for prediction in predictions]
        with self.run_folder.explain_disk_errors():
            with self._file.open("a", encoding="utf-8", errors="surrogatepass") as file:
                file.writelines(f"{line}\n" for line in lines)
                sync(file)  # before the state, which must not promise more
            self.totals.docs += docs
            self.totals.lines += len(lines)
            self.totals.seconds += seconds
            self.totals.truncated += truncated
            self.totals.tokens += tokens
            self.totals.usage.update(usage or {})
            atomic_write(self._state, json.dumps(vars(self.totals)))

    def predictions(self) -> list[Prediction]:
        """Return all predictions so far.

        Raises:
            EvaluationError: The file is damaged.
        """
        predictions = list(read_predictions(self._file))
        _check_count(self._file, len(predictions), self.totals.lines)
        return predictions

    def finish(self, info: Mapping[str, Any], metrics: Mapping[str, Any]) -> EvaluationRun:
        """Write information and metrics and publish the run."""
        record = {"format": FORMAT, **info, "key": self.key}
        with self.run_folder.explain_disk_errors():
            for name, data in ((METRICS_FILE, metrics), (RUN_FILE, record)):
                text = json.dumps(data, indent=2, ensure_ascii=False)
                atomic_write(self.run_folder.partial / name, text)
            self.run_folder.publish(self.run_folder.partial)
        # After publishing, because the state is needed to resume if the process is killed before.
        (self.run_folder.output / STATE_FILE).unlink(missing_ok=True)
        return read_run(self.run_folder.output)
