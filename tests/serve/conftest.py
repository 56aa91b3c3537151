from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.extraction.pipelines import prepare_extraction
from spacy_slmre.serve.server import PageServer
from spacy_slmre.serve.service import make_service
from spacy_slmre.serve.settings import ServiceSettings
from tests.serving import serving

LABELS = ["knows", "employer"]


class Gate:
    """A component that records texts, fails on some, and holds those that start with "wait" until it is opened."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def __call__(self, doc: Doc) -> Doc:
        self.texts.append(doc.text)
        if doc.text.startswith("wait"):
            self.entered.release()
            assert self.opened.wait(30)
        if doc.text.startswith("late"):
            raise TimeoutError("the knowledge base was silent")
        if doc.text.startswith("fail"):
            raise RuntimeError("cannot <b>read</b> this")
        return doc


@pytest.fixture(scope="session")
def session_gate() -> Gate:
    return Gate()


@pytest.fixture(scope="session")
def nlp(session_gate: Gate, pipeline: str) -> Language:
    """A pipeline with a tiny random model."""
    nlp = spacy.load(pipeline)
    Language.component("test_gate", func=session_gate)
    nlp.add_pipe("test_gate", before="slm_relations")
    nlp.meta.update(name="test", version="1.0")
    pipe: Any = nlp.get_pipe("slm_relations")
    pipe.threshold = 0.2
    pipe.load()
    return nlp


@pytest.fixture
def gate(session_gate: Gate) -> Gate:
    session_gate.__init__()  # type: ignore[misc]
    return session_gate


@pytest.fixture
def serve(nlp: Language, gate: Gate) -> Callable[..., object]:
    """Serve the pipeline with some settings."""

    @contextmanager
    def serve(example: str = "", **settings: object) -> Iterator[PageServer]:
        app = make_service(prepare_extraction(nlp), ServiceSettings(**settings), example=example)
        with serving(app) as server:
            yield server

    return serve
