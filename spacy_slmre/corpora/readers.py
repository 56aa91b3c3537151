"""Readers for `spacy train`: examples with gold entities and the annotated, unlabelled pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.training.corpus import walk_corpus

from spacy_slmre.relations import CANDIDATES, PAIRS, RELATIONS, install_extensions


def relation_corpus(
    path: Path,
    *,
    entities: str = "gold",
    pairs: bool = True,
    limit: int = 0,
    shuffle: bool = False,
    seed: int = 0,
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `@readers = "spacy-slmre.RelationCorpus.v1"`.

    The predicted side of an example has the reference's tokens and sentences, and of its relation
    annotation only which pairs were annotated (`doc._.relation_candidates`, proposed by
    `spacy-slmre.GivenPairs.v1`): no gold label is reachable from it.

    Args:
        path: A `.spacy` file, or a folder of them.
        entities: "gold" gives the predicted side the reference's entities and span groups, "predicted"
            leaves them to the pipeline.
        pairs: Give the predicted side the annotated pairs.
        limit: Read at most this many documents; 0 reads all.
        shuffle: Read in random order, another one every time round.
        seed: Seed of that order.

    Raises:
        ValueError: `entities` or `limit` has another value, or the path does not exist.
    """
    if entities not in ("gold", "predicted"):
        raise ValueError(f'entities = "{entities}", but it must be "gold" or "predicted".')
    if limit < 0:
        raise ValueError(f"limit = {limit}, but it must be 0 (no limit) or more.")
    install_extensions()
    order = random.Random(seed)

    def read(nlp: Language) -> Iterator[Example]:
        if not Path(path).exists():
            raise ValueError(f"The corpus {path} does not exist.")
        docs = _read_docs(Path(path), nlp, limit)
        if shuffle:
            docs = iter(order.sample(read_docs := list(docs), len(read_docs)))
        for reference in docs:
            yield Example(make_predicted(reference, gold_entities=entities == "gold", pairs=pairs), reference)

    return read


def make_predicted(reference: Doc, *, gold_entities: bool = True, pairs: bool = True) -> Doc:
    """The side of an example that a pipeline may see: no relation label is reachable from it.

    Args:
        reference: An annotated document.
        gold_entities: Copy the entities and span groups.
        pairs: Copy which pairs are annotated, in an order that says nothing of their labels.
    """
    predicted = Doc(
        reference.vocab,
        words=[token.text for token in reference],
        spaces=[bool(token.whitespace_) for token in reference],
        sent_starts=[token.is_sent_start for token in reference],
    )
    if gold_entities:
        predicted.set_ents([_onto(predicted, ent) for ent in reference.ents])
        for key, group in reference.spans.items():
            predicted.spans[key] = [_onto(predicted, span) for span in group]
    if pairs:
        annotated = getattr(reference._, PAIRS) or getattr(reference._, RELATIONS)
        unique = {
            (rel.head.start, rel.head.end, rel.tail.start, rel.tail.end): (
                _onto(predicted, rel.head),
                _onto(predicted, rel.tail),
            )
            for rel in annotated
        }
        setattr(predicted._, CANDIDATES, [unique[key] for key in sorted(unique)])
    return predicted


def _onto(doc: Doc, span: Span) -> Span:
    # Both sides have the same tokens.
    return Span(doc, span.start, span.end, label=span.label, kb_id=span.kb_id)


def _read_docs(path: Path, nlp: Language, limit: int) -> Iterator[Doc]:
    number = 0
    for file in walk_corpus(path, ".spacy"):
        for doc in DocBin().from_disk(file).get_docs(nlp.vocab):
            if not len(doc):
                continue
            yield doc
            number += 1
            if number == limit:
                return
