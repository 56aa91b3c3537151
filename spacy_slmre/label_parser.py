"""Parsing the free-text answers of generative language models."""

from __future__ import annotations

from spacy_slmre.metrics import NEGATIVES, normalize_answer
from spacy_slmre.schema import LabelSchema


class LabelParser:
    """Maps generated answers to the labels of a schema, by the rules of the study (arXiv 2606.22606).

    An answer matches a label's name or wording after normalization (first line, lower case, single spaces, no quotes).
    If several labels match, an exact name takes precedence, then a name over a wording.
    """

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self._names: dict[str, str] = {}
        for spelling, name in (
            *((name, name) for name in schema.names),
            *((label.wording, label.name) for label in schema.labels),
        ):
            self._names.setdefault(normalize_answer(spelling), name)

    def parse(self, answer: str) -> str | None:
        """Return the label that an answer names, or the normalized answer if it names none.

        None means no relation: the negative label, or an answer such as "none", "other" or "".
        """
        exact, text = answer.strip(), normalize_answer(answer)
        label = exact if exact in self.schema.index else self._names.get(text)
        if label is None:
            return None if text in NEGATIVES else text
        return None if label == self.schema.negative_label else label
