"""Predictions made elsewhere: answers in a file, scored by the same rules."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.docbin import file_hash
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.evaluation.evaluate import GoldCorpus, ask, finish, predicted
from spacy_slmre.evaluation.predictors import Answer
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun, RunWriter, done_run
from spacy_slmre.label_parser import LabelParser, replace_surrogates
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.system import versions

SUFFIXES = (".jsonl", ".csv", ".tsv")
# What others call the column of the answers.
ANSWERS = ("answer", "prediction", "predicted", "label", "relation")
SHOWN = 3


def read_answers(path: Path) -> dict[str, tuple[str, float | None]]:
    """Answers by the pair's id, and their confidences where there are some.

    Args:
        path: JSON lines or a table with a header (.csv, .tsv): "id", one of "answer", "prediction",
            "predicted", "label", "relation", and if known a "score" (0 to 1). An empty answer says "no
            relation".

    Raises:
        EvaluationError: The file cannot be read, a line lacks a field, or an id occurs twice.
    """
    answers: dict[str, tuple[str, float | None]] = {}
    for where, row in _rows(path):
        column = next((name for name in ANSWERS if name in row), None)
        if "id" not in row or column is None:
            raise EvaluationError(
                f'{where}: a prediction has an "id" and an "answer" (or one of {", ".join(ANSWERS[1:])}); '
                f"found {', '.join(map(str, row)) or 'nothing'}."
            )
        name = str(row["id"])
        if name in answers:
            raise EvaluationError(f'{where}: the id "{name}" occurs twice. Give each pair one prediction.')
        score = row.get("score")
        try:
            confidence = float(score) if score not in (None, "") else None
        except (TypeError, ValueError) as error:
            raise EvaluationError(f'{where}: the score "{score}" is no number.') from error
        if confidence is not None and not 0 <= confidence <= 1:
            raise EvaluationError(f"{where}: the score {confidence} is no probability (0 to 1).")
        answer = replace_surrogates(str(row[column] if row[column] is not None else ""))
        answers[name] = (answer, confidence)
    if not answers:
        raise EvaluationError(f"{path} holds no predictions.")
    return answers


def evaluate_answers(
    path: Path,
    corpus: GoldCorpus,
    folder: Path,
    *,
    name: str = "",
    allow_missing: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> EvaluationRun:
    """Score predictions made elsewhere.

    Args:
        path: The predictions; `slmre questions` writes the ids.
        corpus: The corpus.
        folder: Where the run goes; it is there only when all is done.
        name: What the system is called; if empty, the file's name.
        allow_missing: Pairs may lack a prediction: they count as unanswered.
        overwrite: Evaluate again where there is a run already.
        say: Tells the person at the terminal what to know.

    Raises:
        EvaluationError: The predictions cannot be read, or are not those of this corpus.
    """
    schema = schema_of(corpus)
    answers = read_answers(path)
    marks = {"predictions": file_hash(path), "corpus": corpus.sha256, "name": name, "limit": corpus.limit}
    if not overwrite and (run := done_run(folder, marks)) is not None:
        say(f"{folder} is evaluated already; --overwrite does it again.")
        return run
    questions = [
        question
        for number, example in enumerate(corpus.examples)
        for question in ask(example, number, schema)
    ]
    ids = {question.id for question in questions}
    if unknown := [one for one in answers if one not in ids]:
        raise EvaluationError(
            f"{path} has {len(unknown):,} predictions for pairs that are not in {corpus.path}: "
            f"{_some(unknown)}. Its ids look like {_some(list(ids)[:1])}; `slmre questions` writes them."
        )
    missing = [question.id for question in questions if question.id not in answers]
    if missing and not allow_missing:
        raise EvaluationError(
            f"{path} has no prediction for {len(missing):,} of {len(ids):,} pairs: {_some(missing)}. Add "
            "them, or give --allow-missing to count them as unanswered."
        )
    parse = LabelParser(schema).parse
    predictions = []
    for question in questions:
        answer = None
        if question.id in answers:
            text, score = answers[question.id]
            label = parse(text)
            top = () if score is None else ((label or schema.negative_label or "no relation", score),)
            answer = Answer(label, top, text)
        predictions.append(predicted(question, answer))
    info: dict[str, Any] = {
        "system": name or path.stem,
        "kind": "external",
        "params": None,
        "regime": "",
        "style": "",
        "prompt": "",
        "decoding": "",
        "dapt": False,
        "pipeline": str(path),
        "load_seconds": None,
        "peak_memory_gb": None,
        "cost": None,
        "environment": {"machine": "", "versions": versions()},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not in `<folder>.part`: hours of an interrupted pipeline's answers may lie there.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".scoring-") as aside:
        writer = RunWriter(folder, marks, part=Path(aside) / "run")
        writer.write(predictions, len(corpus.examples), 0.0)
        return finish(writer, corpus, schema, info)


def schema_of(corpus: GoldCorpus) -> LabelSchema:
    """The benchmark's labels, or those that occur."""
    if corpus.benchmark is not None and corpus.benchmark.schema is not None:
        return corpus.benchmark.schema
    from spacy_slmre.pipeline.examples import collect_labels
    from spacy_slmre.relations import RELATIONS

    return LabelSchema.from_labels(*collect_labels(corpus.examples, "no_relation", RELATIONS))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a row stands, and the row."""
    if path.suffix not in SUFFIXES:
        raise EvaluationError(f"{path}: predictions are a file that ends with {', '.join(SUFFIXES)}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix != ".jsonl":
                reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
                for row in reader:
                    yield f"{path}:{reader.line_num}", row
                return
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    data = json.loads(line)
                except ValueError as error:
                    raise EvaluationError(f"{path}:{number}: the line is no JSON ({error}).") from error
                if not isinstance(data, dict):
                    raise EvaluationError(f"{path}:{number}: a line is an object with id and answer.")
                yield f"{path}:{number}", data
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8: {error}.") from error
    except csv.Error as error:
        raise EvaluationError(
            f"{path} is no table that can be read ({error}): is a quote left open?"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
