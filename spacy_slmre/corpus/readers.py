"""Readers for `spacy train`: examples with gold entities and the annotated, unlabelled pairs."""

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
from spacy_slmre.study.mixtures import read_manifest, read_mixture, verify_manifest

Reader = Callable[[Language], Iterator[Example]]


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
) -> Reader:
    """Registered as `@readers = "spacy-slmre.RelationCorpus.v1"`.

    The predicted side of an example has the reference's tokens, sentences and provenance, and of its
    relation annotation only which pairs were annotated (`doc._.relation_candidates`, proposed by
    `spacy-slmre.GivenPairs.v1`): no gold label is reachable from it.

    Args:
        path: A `.spacy` file, or a folder of them.
        entities: "gold" gives the predicted side the reference's entities and span groups, "predicted"
            leaves them to the pipeline.
        pairs: Give the predicted side the annotated pairs.
        limit: Read at most this many documents; 0 reads all.
        max_pairs: Read until the documents have this many annotated pairs; 0 reads all.
        holdout: Leave out this share of the documents, for a corpus without a development split; see
            `in_holdout`.
        held_out: Read what `holdout` leaves out, and nothing else.
        shuffle: Read in random order, another one every time round; holds all documents in memory.
        seed: Seed of that order.

    Raises:
        ValueError: A setting is out of its range, or the path does not exist.
    """
    install_extensions()
    if not 0.0 <= holdout < 1.0 or (held_out and not holdout):
        raise ValueError(
            f"holdout = {holdout} and held_out = {held_out}: holdout is a share (0 to below 1), and held_out "
            "needs one above 0."
        )

    def read(nlp: Language) -> Iterator[Doc]:
        if not Path(path).exists():
            raise ValueError(f"The corpus {path} does not exist.")
        for file in walk_corpus(path, ".spacy"):
            for doc in read_docs(file, nlp.vocab):
                if not holdout or in_holdout(doc, holdout) == held_out:
                    yield doc

    return _examples(read, entities, pairs, limit, max_pairs, shuffle, seed)


def mixture_corpus(
    manifest: Path,
    split: str,
    corpora: Path,
    *,
    verify: bool = True,
    entities: str = "gold",
    pairs: bool = True,
    limit: int = 0,
    max_pairs: int = 0,
    shuffle: bool = False,
    seed: int = 0,
) -> Reader:
    """Registered as `@readers = "spacy-slmre.MixtureCorpus.v1"`: the sampled documents of a mixture.

    `doc.user_data["slmre.benchmark"]` on both sides names the benchmark, whose labels are those that the
    document's pairs may have.

    Args:
        manifest: The mixture's manifest.
        split: The split to read.
        corpora: The folder of converted benchmarks.
        verify: First make sure that the files are those that the mixture was made from.
        entities: As in `relation_corpus`.
        pairs: As in `relation_corpus`.
        limit: As in `relation_corpus`.
        max_pairs: As in `relation_corpus`.
        shuffle: As in `relation_corpus`; without it the benchmarks are mixed, and each is in its own order.
        seed: Seed of that order; the sample has the manifest's own.

    Raises:
        ValueError: A setting is out of its range, or the manifest or a file of it cannot be read.
    """
    install_extensions()
    verified = not verify

    def read(nlp: Language) -> Iterator[Doc]:
        nonlocal verified
        content = read_manifest(manifest)
        if not verified:
            verify_manifest(content, split, corpora)
            verified = True
        return read_mixture(content, split, corpora, nlp.vocab)

    return _examples(read, entities, pairs, limit, max_pairs, shuffle, seed)


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
    predicted.user_data |= {key: reference.user_data[key] for key in PROVENANCE if key in reference.user_data}
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


def _examples(
    read: Callable[[Language], Iterator[Doc]],
    entities: str,
    pairs: bool,
    limit: int,
    max_pairs: int,
    shuffle: bool,
    seed: int,
) -> Reader:
    if entities not in ("gold", "predicted"):
        raise ValueError(f'entities = "{entities}", but it must be "gold" or "predicted".')
    for name, value in (("limit", limit), ("max_pairs", max_pairs)):
        if value < 0:
            raise ValueError(f"{name} = {value}, but it must be 0 (no limit) or more.")
    order = random.Random(seed)

    def examples(nlp: Language) -> Iterator[Example]:
        docs: Iterable[Doc] = _limited(read(nlp), limit, max_pairs)
        if shuffle:
            docs = list(docs)
            order.shuffle(docs)
        for reference in docs:
            yield Example(make_predicted(reference, gold_entities=entities == "gold", pairs=pairs), reference)

    return examples


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
