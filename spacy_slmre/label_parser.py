"""Parsing answers that a language model generated freely."""

from __future__ import annotations

from spacy_slmre.metrics import NEGATIVES, normalize_answer
from spacy_slmre.schema import LabelSchema


class LabelParser:
    """Maps generated answers to the labels of a schema, by the rules of the study.

    An answer matches a label's name or wording after normalization (first line, lower case, single spaces, no
    quotes). If several labels match, an exact name comes first, then names before wordings.
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
        """Return the name of the label that an answer means.

        None is returned for the negative label and for answers such as "none", "other" or "". An answer that
        names no label is returned as normalized text.
        """
        exact, text = answer.strip(), normalize_answer(answer)
        label = exact if exact in self.schema.index else self._names.get(text)
        if label is None:
            return None if text in NEGATIVES else text
        return None if label == self.schema.negative_label else label


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can contain but UTF-8 files cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
