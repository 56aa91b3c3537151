"""Corpus reader and batcher for `spacy train`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.training.corpus import walk_corpus

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.gold_docs import PROVENANCE, in_holdout
from spacy_slmre.relations import CANDIDATES, PAIRS, RELATIONS, install_extensions

ExampleReader = Callable[[Language], Iterator[Example]]


def relation_corpus(
    path: Path,
    *,
    entities: str = "gold",
    pairs: bool = True,
    limit: int = 0,
    max_pairs: int = 0,
    holdout: float = 0.0,
    held_out: bool = False,
    shuffle: bool = False,
    seed: int = 0,
) -> ExampleReader:
    """Read a corpus; registered as `@readers = "spacy-slmre.RelationCorpus.v1"`.

    The predicted doc of each example has the tokens, sentences and provenance of the reference, and its annotated
    pairs as `doc._.relation_candidates` (used by `spacy-slmre.GivenPairs.v1`), but no gold labels.

    Args:
        path: A `.spacy` file, or a folder of them.
        entities: "gold" copies entities and span groups of the reference to the predicted doc, "predicted" leaves
            them to the pipeline.
        pairs: Copy the annotated pairs, without labels, to the predicted doc.
        limit: Maximum number of documents; 0 reads all.
        max_pairs: Stop after this many annotated pairs; 0 reads all.
        holdout: Fraction of documents to skip, for a corpus without a dev split; see `in_holdout`.
        held_out: Read only the documents that `holdout` skips.
        shuffle: Read in random order, different in each epoch; keeps all documents in memory.
        seed: Random seed for shuffling.

    Raises:
        ValueError: A setting is out of range, or the path does not exist.
    """
    install_extensions()
    if not 0.0 <= holdout < 1.0 or (held_out and not holdout):
        raise ValueError(
            f"holdout = {holdout} and held_out = {held_out}, but holdout must be at least 0 and less than 1, and "
            "held_out requires a holdout greater than 0."
        )

    def read(nlp: Language) -> Iterator[Doc]:
        if not Path(path).exists():
            raise ValueError(f"The corpus {path} does not exist.")
        for file in walk_corpus(path, ".spacy"):
            for doc in read_docs(file, nlp.vocab):
                if not holdout or in_holdout(doc, holdout) == held_out:
                    yield doc

    return make_reader(
        read, entities=entities, pairs=pairs, limit=limit, max_pairs=max_pairs, shuffle=shuffle, seed=seed
    )


def make_reader(
    read: Callable[[Language], Iterator[Doc]],
    *,
    entities: str,
    pairs: bool,
    limit: int,
    max_pairs: int,
    shuffle: bool,
    seed: int,
) -> ExampleReader:
    """Create a corpus reader from a function that reads gold documents; settings as in `relation_corpus`."""
    if entities not in ("gold", "predicted"):
        raise ValueError(f'entities = "{entities}", but it must be "gold" or "predicted".')
    for name, value in (("limit", limit), ("max_pairs", max_pairs)):
        if value < 0:
            raise ValueError(f"{name} = {value}, but it must be 0 (no limit) or more.")
    rng = random.Random(seed)

    def examples(nlp: Language) -> Iterator[Example]:
        docs: Iterable[Doc] = _limited(read(nlp), limit, max_pairs)
        if shuffle:
            docs = list(docs)
            rng.shuffle(docs)
        for reference in docs:
            yield Example(make_predicted(reference, gold_entities=entities == "gold", pairs=pairs), reference)

    return examples


def make_predicted(reference: Doc, *, gold_entities: bool = True, pairs: bool = True) -> Doc:
    """Create the predicted doc of an example, from which no gold label is reachable.

    Args:
        reference: An annotated document.
        gold_entities: Copy the entities and span groups.
        pairs: Copy the annotated pairs, in an order that does not depend on their labels.
    """
    predicted = Doc(
        reference.vocab,
        words=[token.text for token in reference],
        spaces=[bool(token.whitespace_) for token in reference],
        sent_starts=[token.is_sent_start for token in reference],
    )
    predicted.user_data |= {key: reference.user_data[key] for key in PROVENANCE if key in reference.user_data}
    if gold_entities:
        predicted.set_ents([_copy_span(ent, predicted) for ent in reference.ents])
        for key, group in reference.spans.items():
            predicted.spans[key] = [_copy_span(span, predicted) for span in group]
    if pairs:
        annotated = getattr(reference._, PAIRS) or getattr(reference._, RELATIONS)
        unique = {
            (rel.head.start, rel.head.end, rel.tail.start, rel.tail.end): (
                _copy_span(rel.head, predicted),
                _copy_span(rel.tail, predicted),
            )
            for rel in annotated
        }
        setattr(predicted._, CANDIDATES, [unique[key] for key in sorted(unique)])
    return predicted


def batch_by_pairs(size: int) -> Callable[[Iterable[Example]], Iterator[list[Example]]]:
    """Batch by number of pairs; registered as `@batchers = "spacy-slmre.BatchByPairs.v1"`.

    The cost of a training step depends on the number of pairs, not documents. A document counts as at least one pair
    and is never split, so a batch may have more than `size` pairs.

    Raises:
        ValueError: The size is below 1.
    """
    if size < 1:
        raise ValueError(f"batcher.size = {size}, but it must be at least 1.")

    def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
        batch: list[Example] = []
        pairs = 0
        for example in examples:
            batch.append(example)
            pairs += max(1, len(getattr(example.predicted._, CANDIDATES)))
            if pairs >= size:
                yield batch
                batch, pairs = [], 0
        if batch:
            yield batch

    return batches


def _copy_span(span: Span, doc: Doc) -> Span:
    # Both documents have the same tokens.
    return Span(doc, span.start, span.end, label=span.label, kb_id=span.kb_id)


def _limited(docs: Iterator[Doc], limit: int, max_pairs: int) -> Iterator[Doc]:
    number = annotated = 0
    for doc in docs:
        if not len(doc):
            continue
        yield doc
        number += 1
        if max_pairs:
            annotated += len(getattr(doc._, PAIRS) or getattr(doc._, RELATIONS))
        if number == limit or annotated >= max_pairs > 0:
            return
