from __future__ import annotations

from collections.abc import Iterator

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc


@Language.component("test_fails_on_nobody")
def fail_on_nobody(doc: Doc) -> Doc:
    if doc.text.startswith("Nobody"):
        raise RuntimeError("this text is too sad")
    return doc


@pytest.fixture
def nlp(pipeline: str) -> Iterator[Language]:
    """A pipeline with a tiny model that finds a relation for each pair, and fails on one of the texts."""
    nlp = spacy.load(pipeline)
    nlp.add_pipe("test_fails_on_nobody", first=True)
    yield nlp
