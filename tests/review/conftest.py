from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Span

from spacy_slmre.decoding import Decoding, DocPrediction, PairPrediction
from spacy_slmre.documents import RelationDocument
from spacy_slmre.review.items import ReviewItem
from spacy_slmre.review.ranking import find_items
from spacy_slmre.review.server import make_review_app
from spacy_slmre.review.session import ReviewSession
from spacy_slmre.schema import LabelSchema
from spacy_slmre.serve.server import PageServer
from tests.serving import serving

SCHEMA = LabelSchema.from_dict(
    {
        "labels": [
            {"name": "employer", "types": [["PER", "ORG"]]},
            {"name": "spouse", "types": [["PER", "PER"]], "symmetric": True},
            {"name": "parent", "types": [["PER", "PER"]], "inverse": "child"},
            {"name": "child", "types": [["PER", "PER"]], "inverse": "parent"},
            {"name": "<b>bold</b>"},
        ]
    }
)
TEXT = "Ann met Bo at Acme & Sons . Cy left <img src=x onerror=alert(1)> ."
ENTITIES = {
    "Ann": (0, 1, "PER"),
    "Bo": (2, 3, "PER"),
    "Acme": (4, 7, "ORG"),
    "Cy": (8, 9, "PER"),
    "img": (10, 13, "ORG"),
}
Probabilities = dict[tuple[str, str], dict[str, float]]


@pytest.fixture(scope="session")
def make_items() -> Callable[..., list[ReviewItem]]:
    """Make the items of a document, given the probabilities of the labels of its pairs, with a threshold."""

    def make(
        probabilities: Probabilities, threshold: float | None = 0.5, near_miss: float = 0.5, id: str = "doc"
    ) -> list[ReviewItem]:
        doc = spacy.tokens.Doc(spacy.blank("en").vocab, TEXT.split(" "), sent_starts=[n in (0, 8) for n in range(14)])
        spans = {name: Span(doc, start, end, label=type) for name, (start, end, type) in ENTITIES.items()}
        doc.set_ents(list(spans.values()))
        pairs, relations = [], []
        decoding = Decoding(threshold)
        for (head, tail), labels in probabilities.items():
            ranked = tuple(sorted(labels.items(), key=lambda one: -one[1]))
            pairs.append(PairPrediction(spans[head], spans[tail], ranked, False))
            positive = [
                label for label, score in ranked if label != SCHEMA.negative_label and decoding.passes(label, score)
            ]
            label = positive[0] if positive else ""
            if label and (threshold is not None or label == ranked[0][0]):
                relations.append((spans[head], spans[tail], label, labels[label]))
        prediction = DocPrediction(SCHEMA, pairs, relations, {})
        return find_items(RelationDocument.from_doc(doc, id), prediction, decoding, near_miss)

    return make


@pytest.fixture
def session(make_items: Callable, tmp_path: Path, request: pytest.FixtureRequest) -> ReviewSession:
    """A session about the pairs in `PROBABILITIES` of the test module."""
    return ReviewSession(make_items(request.module.PROBABILITIES), tmp_path / "log", tmp_path / "reviewed.jsonl")


@pytest.fixture
def server(session: ReviewSession) -> Iterator[PageServer]:
    with serving(make_review_app(session)) as server:
        yield server
