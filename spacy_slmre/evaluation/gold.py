"""Gold pairs: the pairs of a corpus that systems are evaluated on, with their gold labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Span
from spacy.training import Example

from spacy_slmre.candidates import GivenPairs
from spacy_slmre.corpus.docbin import corpus_files
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.gold_docs import ID, SPLIT, SPLITS, format_of, source_of
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.evaluation.runs import EvaluationError
from spacy_slmre.gold import PairKey, gold_pairs, pair_key, reverse_key
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.pipeline.examples import collect_schema
from spacy_slmre.relations import RELATIONS
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.util.io import file_hash


@dataclass(frozen=True)
class EvaluationPair:
    """A pair to label and its gold labels, without the negative label.

    A label that is symmetric, or has an inverse, is gold in both directions. `opposite` is then the id of the pair in
    the other direction, or "" if there is none.
    """

    id: str
    doc: str
    key: PairKey
    instance: RelationInstance
    gold: tuple[str, ...]
    opposite: str = ""


@dataclass(frozen=True)
class GoldCorpus:
    """A corpus to evaluate on.

    Attributes:
        path: Where it was read from.
        examples: Its documents.
        format: The format that it was converted from, if recorded.
        split: The split, if recorded.
        sha256: Hash of the files.
        limit: Number of pairs to read; 0 for all.
    """

    path: Path
    examples: list[Example] = field(repr=False)
    format: CorpusFormat | None
    split: str
    sha256: str
    limit: int

    @property
    def name(self) -> str:
        """Name of the format, or else of the file, or of the folder of `train.spacy`, `dev.spacy`, `test.spacy`."""
        if self.format:
            return self.format.name
        return self.path.absolute().parent.name if self.path.stem in SPLITS else self.path.stem

    @property
    def run_name(self) -> str:
        """Folder name for a run on this corpus."""
        return f"{self.name}-{self.split}" if self.split else self.name

    @property
    def schema(self) -> LabelSchema:
        """The labels of the format, or else those that occur."""
        if self.format is not None and self.format.schema is not None:
            return self.format.schema
        docs = (example.reference for example in self.examples)
        if (schema := collect_schema(docs, NEGATIVE_LABEL)) is None:
            raise EvaluationError(f"None of the annotated pairs of {self.path} has a relation.")
        return schema

    def pairs(self, schema: LabelSchema) -> Iterator[EvaluationPair]:
        """Yield the pairs of all documents whose labels are known."""
        for number, example in enumerate(self.examples):
            yield from make_evaluation_pairs(example, number, schema)


def read_gold(path: Path, nlp: Language | None = None, limit: int = 0) -> GoldCorpus:
    """Read a corpus with gold labels.

    Args:
        path: A `.spacy` file, or a folder of them.
        nlp: The pipeline to evaluate.
        limit: Read documents until they have this many pairs; 0 reads all.

    Raises:
        EvaluationError: No pair is annotated, the formats are mixed, or two documents have the same id.
        CorpusError: There is no corpus.
    """
    hashes = "".join(file_hash(file) for file in corpus_files(path))
    examples = list(relation_corpus(path, max_pairs=limit)(nlp or spacy.blank("en")))
    docs = [example.reference for example in examples]
    if not any(gold_pairs(doc).rows for doc in docs):
        raise EvaluationError(
            f"{path} has no annotated relations. Convert your annotations with: python -m spacy slmre convert"
        )
    formats = {known.name: known for doc in docs if (known := format_of(doc))}
    if len(formats) > 1:
        raise EvaluationError(
            f"{path} mixes several corpora ({', '.join(sorted(formats))}). Evaluate on each separately."
        )
    counts = Counter(_doc_id(example, number) for number, example in enumerate(examples))
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise EvaluationError(
            f"{path} has {len(repeated):,} document ids more than once ({', '.join(repeated[:3])}), so their "
            "pairs cannot be distinguished. Does the folder contain the same split twice?"
        )
    splits = {str(doc.user_data.get(SPLIT) or "") for doc in docs}
    split = splits.pop() if len(splits) == 1 else ""
    corpus_format = next(iter(formats.values()), None)
    if corpus_format is None and path.stem in SPLITS:
        split = split or path.stem
    sha256 = hashlib.sha256(hashes.encode()).hexdigest()
    corpus = GoldCorpus(path, examples, corpus_format, split, sha256, limit)
    # A corpus that was converted without a split has the name of its file as one.
    return replace(corpus, split="") if split == corpus.name else corpus


def make_evaluation_pairs(
    example: Example,
    number: int,
    schema: LabelSchema,
    proposed: Sequence[tuple[Span, Span]] = (),
    attr: str = RELATIONS,
) -> list[EvaluationPair]:
    """Return the pairs of a document that its reader copied, followed by additional proposed ones with known labels.

    Args:
        example: The document.
        number: Its position in the corpus, which is its id if it has none.
        schema: Maps entity types and defines the negative label.
        proposed: Pairs that the system proposes.
        attr: Read gold relations from this attribute if `doc._.relations` is empty.
    """
    annotated = gold_pairs(example.reference, attr, schema.mirrors)
    given = GivenPairs()(example.predicted, schema).pairs
    pairs = {key: pair for pair in [*given, *proposed] if annotated.is_known(key := pair_key(*pair))}
    instances = make_instances(example.predicted, list(pairs.values()), schema)
    corpus_format = format_of(example.reference)

    def is_positive(label: str) -> bool:
        is_negative = label in (schema.negative_label, NEGATIVE_LABEL)
        return not (is_negative or (corpus_format and corpus_format.is_negative(label)))

    def gold_labels(key: PairKey) -> tuple[str, ...]:
        return tuple(filter(is_positive, annotated.labels_of(key, None)))

    name = _doc_id(example, number)
    source = source_of(example.reference) if example.reference.user_data.get(ID) else name
    ids = {key: f"{name}/{place}" for place, key in enumerate(pairs)}
    return [
        EvaluationPair(
            ids[key], source, key, instance, gold_labels(key), ids.get(reverse_key(key), "") if schema.mirrors else ""
        )
        for key, instance in zip(pairs, instances, strict=True)
    ]


def _doc_id(example: Example, number: int) -> str:
    return str(example.reference.user_data.get(ID) or number)
