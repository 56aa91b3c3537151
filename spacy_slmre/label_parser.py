"""What an answer in words says: the label of a schema that it names."""

from __future__ import annotations

from collections.abc import Callable

from spacy_slmre.metrics import NEGATIVES, normalize_answer
from spacy_slmre.schema import LabelSchema


def whole_characters(text: str) -> str:
    """A text without halves of characters (lone surrogates), which JSON can carry and no file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def answer_parser(schema: LabelSchema) -> Callable[[str], str | None]:
    """What an answer in words means, by the rules of the study.

    A label is named by its name or its wording. Where two are alike but for case, an answer that names one
    to the letter means that one; a name counts before a wording.

    Returns:
        A function that gives for an answer the label's name, None for the negative label, or the answer
        itself, normalised, where it is no label.
    """
    spellings: dict[str, str] = {}
    for values in (schema.names, [label.wording for label in schema.labels]):
        for name, value in zip(schema.names, values, strict=True):
            spellings.setdefault(normalize_answer(value), name)

    def parse(answer: str) -> str | None:
        said = normalize_answer(answer)
        exact = answer.strip()
        label = exact if exact in schema.index else spellings.get(said)
        if label is None:
            return None if said in NEGATIVES else said
        return None if label == schema.negative_label else label

    return parse
