"""Choose the pairs that a person should review, the least certain first.

These are the predicted relations and the near misses: pairs whose best label is just below its threshold or, without a
threshold, just less probable than another label. Uncertain pairs are the most useful training data (Lewis and Gale
1994, "A Sequential Algorithm for Training Text Classifiers").
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

from spacy.language import Language
from spacy.tokens import Span
from spacy.util import minibatch

from spacy_slmre.decoding import Decoding, DocPrediction
from spacy_slmre.documents import EntityMention, RelationDocument
from spacy_slmre.extraction.inputs import InputDocument
from spacy_slmre.extraction.outputs import ExtractionResult
from spacy_slmre.extraction.worker import extract_documents
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.review.items import ReviewDocument, ReviewItem, add_mentions

NEAR_MISS = 0.5
"""Default minimum score of a near miss, as a fraction of the score that it would need."""
N_LABELS = 5
"""Number of most probable labels that are shown with a pair."""
_BATCH_SIZE = 64

Scores = tuple[tuple[str, float], ...]
"""Labels with their scores, best first."""


def boundary(label: str, probabilities: Sequence[tuple[str, float]], decoding: Decoding) -> float:
    """Return the score at which the decision about a label changes.

    This is its threshold or, without a threshold, the probability of the best other label.
    """
    threshold = decoding.threshold_of(label)
    if threshold is not None:
        return threshold
    return max((score for name, score in probabilities if name != label), default=0.0)


def find_items(
    document: RelationDocument, prediction: DocPrediction, decoding: Decoding, near_miss: float = NEAR_MISS
) -> list[ReviewItem]:
    """Return the pairs of a document to review.

    If both directions of a pair are proposed because a label is symmetric or has an inverse, only the first is
    returned: a decision about it settles both.
    """
    schema, proposed = prediction.schema, _proposed_labels(prediction)
    mentions = [mention for pair in proposed for mention in pair]
    source = ReviewDocument(add_mentions(document, mentions), schema)
    items: dict[tuple[EntityMention, EntityMention], ReviewItem] = {}
    for (head, tail), (labels, probabilities, is_predicted) in proposed.items():
        bounds = [boundary(label, probabilities, decoding) for label, _ in labels]
        if not is_predicted and labels[0][1] < near_miss * bounds[0]:
            continue
        mirrored = {schema.mirrors.get(label) for label, _ in labels}
        if (opposite := items.get((tail, head))) and mirrored == {label for label, _ in opposite.labels}:
            continue
        margin = min(abs(score - bound) for (_, score), bound in zip(labels, bounds, strict=True))
        items[head, tail] = ReviewItem(source, head, tail, labels, probabilities, is_predicted, margin)
    return list(items.values())


def _proposed_labels(
    prediction: DocPrediction,
) -> dict[tuple[EntityMention, EntityMention], tuple[Scores, Scores, bool]]:
    """Return the proposed labels of each pair, its most probable labels, and whether the proposed ones are predicted.

    Pairs without a positive label are omitted.
    """

    def key(head: Span, tail: Span) -> tuple[EntityMention, EntityMention]:
        return EntityMention.from_span(head), EntityMention.from_span(tail)

    predicted: dict[tuple[EntityMention, EntityMention], Scores] = {}
    for head, tail, label, score in prediction.relations:
        predicted[key(head, tail)] = (*predicted.get(key(head, tail), ()), (label, score))
    proposed = {}
    for pair in prediction.pairs:
        found = predicted.get(key(pair.head, pair.tail), ())
        positive = tuple(one for one in pair.labels if one[0] != prediction.schema.negative_label)
        if found or positive:
            proposed[key(pair.head, pair.tail)] = (found or positive[:1], pair.labels, bool(found))
    return proposed


def rank_items(
    nlp: Language,
    component: str,
    documents: Iterable[InputDocument],
    *,
    limit: int,
    near_miss: float = NEAR_MISS,
    model_name: str | None = None,
    on_result: Callable[[ExtractionResult], None] = lambda _: None,
) -> list[ReviewItem]:
    """Run documents through a pipeline and return the pairs to review, the least certain first.

    Only documents with one of these pairs are kept in memory.

    Args:
        nlp: The pipeline. Its error handler is replaced.
        component: Name of its relation component.
        documents: The documents.
        limit: Maximum number of pairs.
        near_miss: Minimum score of a near miss, as a fraction of the score that it would need; 0 returns all pairs.
        model_name: Name of the model to record in each document.
        on_result: Called with each document, or its error: a document that fails has no pairs.

    Raises:
        ValueError: The component returns no probabilities.
    """
    pipe = nlp.get_pipe(component)
    if not isinstance(pipe, RelationExtractor):
        raise ValueError(
            f'The component "{component}" returns no probabilities, which a review needs. Use a pipeline with '
            "slm_relations or rel_classifier."
        )

    def items() -> Iterator[ReviewItem]:
        for result, prediction in _predict(nlp, component, pipe, documents, model_name):
            on_result(result)
            if result.doc is not None and prediction is not None:
                document = RelationDocument.from_doc(result.doc, result.id)
                document = replace(document, relations=(), report=None, pairs=None)
                yield from find_items(document, prediction, pipe.decoding, near_miss)

    return heapq.nsmallest(limit, items(), key=attrgetter("margin"))


def _predict(
    nlp: Language, component: str, pipe: RelationExtractor, documents: Iterable[InputDocument], model: str | None
) -> Iterator[tuple[ExtractionResult, DocPrediction | None]]:
    """Yield each document with its predictions, or with an error and None."""
    with nlp.select_pipes(disable=nlp.pipe_names[nlp.pipe_names.index(component) :]):
        results = extract_documents(nlp, documents, batch_size=_BATCH_SIZE, model_name=model)
        for batch in minibatch(results, _BATCH_SIZE):
            docs = [result.doc for result in batch if result.doc is not None]
            try:
                predictions = iter(pipe.predict(docs, N_LABELS))
            except Exception:  # predict documents one by one, so that only those that fail are lost
                yield from (_predict_one(pipe, result) for result in batch)
                continue
            yield from ((result, None if result.doc is None else next(predictions)) for result in batch)


def _predict_one(pipe: RelationExtractor, result: ExtractionResult) -> tuple[ExtractionResult, DocPrediction | None]:
    if result.doc is None:
        return result, None
    try:
        return result, pipe.predict([result.doc], N_LABELS)[0]
    except Exception as error:  # models can raise any error
        return ExtractionResult(result.id, error=f"{pipe.name}: {type(error).__name__}: {error}"), None
