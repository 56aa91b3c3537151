from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.formats import get_format, guess_format


@dataclass
class Converted:
    """A converted source.

    Attributes:
        format: The format that was recognized.
        docs: The documents.
        rejects: Numbers of rejects by reason.
    """

    format: str
    docs: list[Doc]
    rejects: Counter[str]

    def relations(self, number: int = 0) -> list[tuple[str, str, str]]:
        """Return head, label and tail of the relations of a document."""
        return [(one.head.text, one.label, one.tail.text) for one in self.docs[number]._.relations]


@pytest.fixture
def converted(nlp: Language, tmp_path: Path) -> Callable[..., Converted]:
    """Convert a source whose format is recognized by its content, as `slmre convert` does."""

    def run(source: Path, format: str | None = None, **settings: str) -> Converted:
        chosen = get_format(format) if format else guess_format(source)
        output = tmp_path / "out" / "corpus.spacy"
        summary = convert(chosen, source, output, split="train", settings=settings, overwrite=True)
        return Converted(chosen.name, list(read_docs(output, nlp.vocab)), Counter(summary["rejects"]))

    return run


def entities(doc: Doc) -> list[tuple[str, str]]:
    """Return text and type of each entity."""
    return [(ent.text, ent.label_) for ent in doc.ents]
