"""Corpus reader and batcher for `spacy train`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example

from spacy_slmre.corpus.annotations.spacy_docs import has_only_rel
from spacy_slmre.corpus.conversion import read_annotations
from spacy_slmre.corpus.docbin import has_docs, read_docs
from spacy_slmre.corpus.gold_docs import PROVENANCE, holdout_positions, negative_label_of, warn_of_predictions
from spacy_slmre.corpus.summary import known_rows
from spacy_slmre.gold import gold_pairs
from spacy_slmre.relations import CANDIDATES, PAIRS, Relation, install_extensions
from spacy_slmre.util.settings import check_choice, check_minimum, takes_settings

ExampleReader = Callable[[Language], Iterator[Example]]


@dataclass(frozen=True, kw_only=True)
class ReaderSettings:
    """Settings of all corpus readers.

    Attributes:
        entities: "gold" copies entities and span groups of the reference to the predicted doc, "predicted" leaves
            them to the pipeline.
        pairs: Copy the known pairs, without labels, to the predicted doc.
        limit: Maximum number of documents; 0 reads all.
        max_pairs: Stop after this many known pairs; 0 reads all.
        negatives: Number of negative pairs for each relation of the corpus, if the annotated ones are fewer: others are
            sampled from the candidate pairs without annotation of all documents, and all remaining pairs are unknown.
            -1 takes all candidate pairs. By default, pairs are negative as `spacy_slmre.gold` says. The corpus is read
            once more before the first pass, to count its pairs.
        shuffle: Read in random order, different in each epoch; keeps all documents in memory.
        seed: Random seed for shuffling and for the sample of negative pairs.

    Raises:
        ValueError: A setting is out of range.
    """

    entities: str = "gold"
    pairs: bool = True
    limit: int = 0
    max_pairs: int = 0
    negatives: float | None = None
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self, "reader", entities=("gold", "predicted"))
        check_minimum(self, "reader", limit=0, max_pairs=0)
        if self.negatives is not None and self.negatives < 0 and self.negatives != -1:
            raise ValueError(f"negatives = {self.negatives}, but it must be 0 or more, or -1 (all candidate pairs).")


@takes_settings(ReaderSettings)
def relation_corpus(
    path: Path, *, holdout: float = 0.0, held_out: bool = False, settings: ReaderSettings
) -> ExampleReader:
    """Read a corpus; registered as `@readers = "spacy-slmre.RelationCorpus.v1"`.

    The predicted doc of each example has the tokens, sentences and provenance of the reference, and the pairs whose
    labels are known (see `spacy_slmre.gold`) as `doc._.relation_candidates`, but no gold labels.

    Args:
        path: A `.spacy` file, a folder of them, or annotations in any other form that `slmre convert` recognizes.
        holdout: Fraction of documents to skip, for a corpus without a dev split; see `holdout_positions`.
        held_out: Read only the documents that `holdout` skips.
        settings: Settings of all readers, as keyword arguments.

    Raises:
        ValueError: A setting is out of range, or the path does not exist.
    """
    install_extensions()
    if not 0.0 <= holdout < 1.0 or (held_out and not holdout):
        raise ValueError(
            f"holdout = {holdout} and held_out = {held_out}, but holdout must be at least 0 and less than 1, and "
            "held_out requires a holdout greater than 0."
        )

    source = Path(path)

    @cache  # to find out, documents are read, which must not be repeated in each pass
    def is_corpus() -> bool:
        return has_docs(source) and not has_only_rel(source)

    @cache  # documents are read in each pass, but the user needs to know it only once
    def warn(message: str) -> None:
        warnings.warn(message, stacklevel=3)

    def read(nlp: Language) -> Iterator[Doc]:
        if not source.exists():
            raise ValueError(f"The corpus {source} does not exist.")
        found = read_docs(source, nlp.vocab) if is_corpus() else read_annotations(source, nlp, source.stem, warn)
        docs = warn_of_predictions(source, found, warn)
        if not holdout:
            return docs
        return (doc for doc, position in holdout_positions(docs) if (position < holdout) == held_out)

    return make_reader(read, settings)


def make_reader(read: Callable[[Language], Iterator[Doc]], settings: ReaderSettings) -> ExampleReader:
    """Create a corpus reader from a function that reads gold documents."""
    rng = random.Random(settings.seed)
    negatives = None if settings.negatives is None else NegativeSampler(settings.negatives, settings.seed)

    def examples(nlp: Language) -> Iterator[Example]:
        def limited() -> Iterator[Doc]:
            return islice((doc for doc in read(nlp) if len(doc)), settings.limit or None)

        docs: Iterable[Doc] = limited() if negatives is None else negatives(limited)
        if settings.max_pairs:
            docs = _until(docs, settings.max_pairs)
        if settings.shuffle:
            docs = list(docs)
            rng.shuffle(docs)
        for reference in docs:
            predicted = make_predicted(reference, gold_entities=settings.entities == "gold", pairs=settings.pairs)
            yield Example(predicted, reference)

    return examples


def make_predicted(reference: Doc, *, gold_entities: bool = True, pairs: bool = True) -> Doc:
    """Create the predicted doc of an example, from which no gold label is reachable.

    Args:
        reference: An annotated document.
        gold_entities: Copy the entities and span groups.
        pairs: Copy the pairs whose labels are known, in an order that does not depend on their labels.
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
            spans = [_copy_span(span, predicted) for span in group]
            predicted.spans[key] = SpanGroup(predicted, name=key, attrs=dict(group.attrs), spans=spans)
    if pairs:
        known = sorted(gold_pairs(reference).known_pairs().items())
        copied = [(_copy_span(head, predicted), _copy_span(tail, predicted)) for _, (head, tail) in known]
        setattr(predicted._, CANDIDATES, copied)
    return predicted


class NegativeSampler:
    """Annotates a sample of the candidate pairs without a relation as negative, so that all other pairs are unknown.

    The number of negative pairs is relative to the relations of the whole corpus, whose candidate pairs are all equally
    likely to be sampled, also in documents without relations. Therefore the corpus is read once more before the first
    pass, to count them. The sample depends on the seed, the texts and their order.

    Args:
        ratio: Number of negative pairs for each relation, annotated ones included; -1 takes all candidate pairs.
        seed: Random seed.
    """

    def __init__(self, ratio: float, seed: int = 0) -> None:
        self.ratio, self.seed = ratio, seed
        self._share: tuple[int, int] | None = None

    def __call__(self, read: Callable[[], Iterable[Doc]]) -> Iterator[Doc]:
        """Read the documents and annotate negative pairs."""
        if self._share is None:
            self._share = self._count(read())
        wanted, total = self._share
        offset = random.Random(self.seed).random()
        seen = n_sampled = 0
        for doc in read():
            annotated, negative, others = _unannotated(doc)
            # The running total is rounded, not the number of each document, so that all numbers add up.
            seen += len(others)
            quota = int(offset + wanted * seen / total) if total else 0
            number = min(quota - n_sampled, len(others))
            n_sampled += number
            rng = random.Random(f"{self.seed}/{doc.text}")
            sample = [others[place] for place in sorted(rng.sample(range(len(others)), number))]
            label = negative[0] if negative else negative_label_of(doc)
            setattr(doc._, PAIRS, [*annotated, *((*pair, label) for pair in sample)])
            yield doc

    def _count(self, docs: Iterable[Doc]) -> tuple[int, int]:
        """Return the number of pairs to sample, and of those to sample from."""
        if self.ratio < 0:
            return 1, 1
        n_positive = n_negative = total = 0
        for doc in docs:
            annotated, negative, others = _unannotated(doc)
            n_positive += len(annotated) - len(negative)
            n_negative += len(negative)
            total += len(others)
        return min(max(round(self.ratio * n_positive) - n_negative, 0), total), total


def _unannotated(doc: Doc) -> tuple[list[Relation], list[str], list[tuple[Span, Span]]]:
    """Return the annotated rows of a document, the labels of the negative ones, and all other candidate pairs."""
    annotated = gold_pairs(doc)
    rows = known_rows(doc)[: len(annotated.rows)]
    pairs = replace(annotated, is_complete=True).known_pairs()
    others = [pair for key, pair in pairs.items() if key not in annotated.labels]
    return [row for row, _ in rows], [row.label for row, is_negative in rows if is_negative], others


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
    return Span(doc, span.start, span.end, label=span.label, kb_id=span.kb_id, span_id=span.id)


def _until(docs: Iterable[Doc], max_pairs: int) -> Iterator[Doc]:
    """Yield documents until they have this many known pairs."""
    known = 0
    for doc in docs:
        yield doc
        known += len(gold_pairs(doc).known_pairs())
        if known >= max_pairs:
            return
