"""Exchange files with other programs: write pairs to label, and read the answers."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.sources import read_rows
from spacy_slmre.documents import replace_surrogates
from spacy_slmre.evaluation.gold import GoldCorpus
from spacy_slmre.evaluation.runs import EvaluationError
from spacy_slmre.util.io import atomic_write

SUFFIXES = (".csv", ".json", ".jsonl", ".tsv")
# Accepted names of the column with the answers.
ANSWER_COLUMNS = ("answer", "prediction", "predicted", "label", "relation")


def write_pairs(corpus: GoldCorpus, output: Path) -> int:
    """Write the unlabeled pairs of a corpus to a JSONL file and return their number.

    Each line has the pair's id, the text, head and tail (character offsets, text, type) and the label set.
    """
    schema = corpus.schema
    lines = []
    for pair in corpus.pairs(schema):
        instance = pair.instance
        sides = {
            side: {"start": span.start, "end": span.end, "text": instance.text_of(span), "type": span.type}
            for side, span in (("head", instance.head_mention), ("tail", instance.tail_mention))
        }
        line = {"id": pair.id, "text": instance.context.text, **sides, "labels": schema.names}
        lines.append(json.dumps(line, ensure_ascii=False))
    atomic_write(output, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_answers(path: Path) -> dict[str, tuple[str, float | None]]:
    """Return answer and score (None if not given) by the id of the pair.

    Args:
        path: A table (.csv, .tsv, .json, .jsonl) with "id", one of "answer", "prediction", "predicted",
            "label", "relation", and optionally "score" (0 to 1). An empty answer is the negative label.

    Raises:
        EvaluationError: A field is missing or invalid, or an id is repeated.
        CorpusError: The file is not a table.
    """
    answers: dict[str, tuple[str, float | None]] = {}
    for line, row in read_rows(path, ()):
        place = f"{path}:{line}"
        column = next((name for name in ANSWER_COLUMNS if name in row), None)
        if "id" not in row or column is None:
            raise EvaluationError(
                f'{place}: expected "id" and "answer" (or one of {", ".join(ANSWER_COLUMNS[1:])}), found '
                f"{', '.join(map(str, row)) or 'nothing'}."
            )
        name, score = str(row["id"]), row.get("score")
        if name in answers:
            raise EvaluationError(f'{place}: the id "{name}" is repeated. Give one answer per pair.')
        try:
            number = None if score in (None, "") else float(str(score))
        except ValueError:
            number = math.nan
        if number is not None and not 0 <= number <= 1:
            raise EvaluationError(f'{place}: the score "{score}" is not a probability (0 to 1).')
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
            f"The ids of this corpus look like {next(iter(ids))}; slmre evaluate --write-pairs lists them."
        )
    missing = [name for name in ids if name not in answers]
    if missing and not allow_missing:
        raise EvaluationError(
            f"{path} has no answer for {len(missing):,} of {len(ids):,} pairs: {_sample(missing)}. Add them, "
            "or set allow_missing to count them as unanswered."
        )


def _sample(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
