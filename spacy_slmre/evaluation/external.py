"""Answers of other programs, read from a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.evaluation.gold import GoldCorpus
from spacy_slmre.evaluation.runs import EvaluationError
from spacy_slmre.label_parser import replace_surrogates
from spacy_slmre.util.io import atomic_write

SUFFIXES = (".jsonl", ".csv", ".tsv")
# Accepted names of the column with the answers.
ANSWER_COLUMNS = ("answer", "prediction", "predicted", "label", "relation")


def write_pairs(corpus: GoldCorpus, output: Path) -> int:
    """Write the pairs of a corpus without their labels, as JSON lines for another program to label.

    Each line has the pair's id, the text, head and tail (character offsets, text, type) and the labels.

    Returns:
        The number of pairs.
    """
    schema = corpus.schema
    lines = []
    for pair in corpus.pairs(schema):
        instance = pair.instance
        sides = {
            side: {"start": one.start, "end": one.end, "text": instance.text_of(one), "type": one.type}
            for side, one in (("head", instance.head_mention), ("tail", instance.tail_mention))
        }
        line = {"id": pair.id, "text": instance.context.text, **sides, "labels": schema.names}
        lines.append(json.dumps(line, ensure_ascii=False))
    atomic_write(output, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_answers(path: Path) -> dict[str, tuple[str, float | None]]:
    """Return answers and their scores, if given, by the id of the pair.

    Args:
        path: JSON lines or a table with a header (.csv, .tsv): "id", one of "answer", "prediction",
            "predicted", "label", "relation", and optionally "score" (0 to 1). An empty answer means "no
            relation".

    Raises:
        EvaluationError: The file cannot be read, a field is missing or wrong, or an id is repeated.
    """
    answers: dict[str, tuple[str, float | None]] = {}
    for place, row in _rows(path):
        column = next((name for name in ANSWER_COLUMNS if name in row), None)
        if "id" not in row or column is None:
            raise EvaluationError(
                f'{place}: expected "id" and "answer" (or one of {", ".join(ANSWER_COLUMNS[1:])}), found '
                f"{', '.join(map(str, row)) or 'nothing'}."
            )
        name = str(row["id"])
        if name in answers:
            raise EvaluationError(f'{place}: the id "{name}" is repeated. Give one answer per pair.')
        score = None if row.get("score") in (None, "") else row["score"]
        try:
            number = None if score is None else float(score)
        except (TypeError, ValueError) as error:
            raise EvaluationError(f'{place}: the score "{score}" is not a number.') from error
        if number is not None and not 0 <= number <= 1:
            raise EvaluationError(f"{place}: the score {number} is not a probability (0 to 1).")
        answers[name] = replace_surrogates(str(row[column] if row[column] is not None else "")), number
    if not answers:
        raise EvaluationError(f"{path} has no answers.")
    return answers


def check_answers(
    path: Path, answers: Mapping[str, Any], ids: Collection[str], corpus: Path, allow_missing: bool
) -> None:
    """Check that answers belong to the pairs of a corpus.

    Raises:
        EvaluationError: A pair has no answer, or an answer has no pair.
    """
    if unknown := sorted(answers.keys() - set(ids)):
        raise EvaluationError(
            f"{path} has {len(unknown):,} answers for pairs that are not in {corpus}: {_sample(unknown)}. "
            f"Ids of this corpus look like {next(iter(ids))}; slmre evaluate can write them to a file."
        )
    missing = [name for name in ids if name not in answers]
    if missing and not allow_missing:
        raise EvaluationError(
            f"{path} has no answer for {len(missing):,} of {len(ids):,} pairs: {_sample(missing)}. Add them, "
            "or set allow_missing to count them as unanswered."
        )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with its place in the file."""
    if path.suffix not in SUFFIXES:
        raise EvaluationError(f"{path}: a file with answers must end in {', '.join(SUFFIXES)}.")
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
                    raise EvaluationError(f"{path}:{number}: invalid JSON ({error}).") from error
                if not isinstance(data, dict):
                    raise EvaluationError(f"{path}:{number}: expected an object with id and answer.")
                yield f"{path}:{number}", data
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8: {error}.") from error
    except csv.Error as error:
        raise EvaluationError(
            f"{path} is not a valid table ({error}). Is a quotation mark not closed?"
        ) from error
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}.") from error


def _sample(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
