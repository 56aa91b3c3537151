"""What a written answer says: normalised as the study does, and matched to the labels of a schema."""

from __future__ import annotations

import re

from spacy_slmre.schema import LabelSchema

NEGATIVE_ANSWERS = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})
"""Normalised answers that say "no relation" in any schema that has a label for it."""
_QUOTES = "\"'`´‘’‚“”„«»‹›"


def normalize_answer(answer: str) -> str:
    """First line, lower case, white space collapsed, quotes stripped; an empty answer is "none".

    From the study's protocol (arXiv 2606.22606).
    """
    line = answer.strip().partition("\n")[0]
    return re.sub(r"\s+", " ", line).strip().strip(_QUOTES).strip().lower() or "none"


class AnswerReader:
    """Finds the label that an answer names, by its name or its wording.

    Where two labels are alike but for case, an answer that names one to the letter means that one; a name
    counts before a wording.
    """

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self._labels: dict[str, str] = {}
        for values in (schema.names, [label.wording for label in schema.labels]):
            for name, value in zip(schema.names, values, strict=True):
                self._labels.setdefault(normalize_answer(value), name)

    def __call__(self, answer: str) -> str | None:
        """The name of the label; None for an answer outside of the schema."""
        if (exact := answer.strip()) in self.schema.index:
            return exact
        normalized = normalize_answer(answer)
        if normalized in self._labels:
            return self._labels[normalized]
        return self.schema.negative_label if normalized in NEGATIVE_ANSWERS else None
