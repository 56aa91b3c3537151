"""Evaluating on a corpus: the questions, the answers of a system or a file, the scores."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Span
from spacy.training import Example

from spacy_slmre.candidates import GivenPairs
from spacy_slmre.corpus.docbin import corpus_files, file_hash
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.gold_docs import ID, SPLIT, format_of, source_of
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.evaluation.predictors import Answer, PairKey, key_of
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun, Prediction, RunWriter, done_run
from spacy_slmre.evaluation.scoring import score_predictions
from spacy_slmre.evaluation.systems import EvaluationSettings, fingerprint, make_subject
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.pipeline.examples import gold_labels
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.system import hardware, peak_memory, reset_peak_memory, versions

SPLITS = ("train", "dev", "test")
CHUNK = 256
"""Pairs that are answered between two notes of how far a run is."""

Progress = Callable[[int], None]
"""Told how many documents were done."""


@dataclass(frozen=True)
class GoldCorpus:
    """A corpus to evaluate on.

    Attributes:
        path: Where it lies.
        examples: Its documents: to ask about, and with the gold labels.
        benchmark: The benchmark that it is, where it says so.
        split: The split, where it says so.
        sha256: Of its files.
        limit: How many pairs were to be read; 0 for all.
    """

    path: Path
    examples: list[Example] = field(repr=False)
    benchmark: CorpusFormat | None
    split: str
    sha256: str
    limit: int

    @property
    def name(self) -> str:
        """The benchmark; or the file's name, or of `test.spacy` and the like its folder's."""
        if self.benchmark:
            return self.benchmark.name
        return self.path.absolute().parent.name if self.path.stem in SPLITS else self.path.stem

    @property
    def run_name(self) -> str:
        """What its run's folder is called."""
        return f"{self.name}-{self.split}" if self.split else self.name


@dataclass(frozen=True)
class Question:
    """A pair to answer: its key in the document, how it reads, its gold labels."""

    id: str
    doc: str
    key: PairKey
    instance: RelationInstance
    gold: tuple[str, ...]


def read_gold(path: Path, nlp: Language | None = None, limit: int = 0) -> GoldCorpus:
    """A corpus with gold labels.

    Args:
        path: A `.spacy` file, or a folder of them.
        nlp: The pipeline that will be asked.
        limit: Read documents until they have this many pairs; 0 reads all.

    Raises:
        EvaluationError: It has no annotated pair, holds several benchmarks, or two documents of one id.
        CorpusError: There is no corpus.
    """
    hashes = "".join(file_hash(file) for file in corpus_files(path))
    examples = list(relation_corpus(path, max_pairs=limit)(nlp or spacy.blank("en")))
    if not any(gold_labels(example.reference)[0] for example in examples):
        raise EvaluationError(f"{path} has no relation to find: is it a corpus that `slmre convert` wrote?")
    cards = {card.name: card for card in (format_of(one.reference) for one in examples) if card}
    if len(cards) > 1:
        raise EvaluationError(
            f"{path} holds several benchmarks ({', '.join(sorted(cards))}): evaluate on each by itself."
        )
    ids = Counter(_id_of(one, number) for number, one in enumerate(examples))
    if twice := [id for id, times in ids.items() if times > 1]:
        raise EvaluationError(
            f"{path} has {len(twice):,} document ids more than once ({', '.join(twice[:3])}): their pairs "
            "could not be told apart. Is a split in the folder twice?"
        )
    splits = {str(one.reference.user_data.get(SPLIT) or "") for one in examples}
    split = splits.pop() if len(splits) == 1 else ""
    sha256 = hashlib.sha256(hashes.encode()).hexdigest()
    card = next(iter(cards.values()), None)
    if card is None and path.stem in SPLITS:
        split = split or path.stem
    return GoldCorpus(path, examples, card, split, sha256, limit)


def _id_of(example: Example, number: int) -> str:
    return str(example.reference.user_data.get(ID) or number)


def ask(
    example: Example,
    number: int,
    schema: LabelSchema,
    further: Sequence[tuple[Span, Span]] = (),
    attr: str = "",
) -> list[Question]:
    """The questions of a document: its annotated pairs in their order, then further ones.

    Args:
        example: The document.
        number: Its place in the corpus, which names it where it has no id.
        schema: Maps entity types, and says which label is the negative one.
        further: Pairs to ask about besides.
        attr: Where relations are, if the corpus has none in `doc._.relations`.
    """
    labels, _ = gold_labels(example.reference, attr or "relations")
    annotated = GivenPairs()(example.predicted, schema).pairs
    pairs = {key_of(*pair): pair for pair in [*annotated, *further]}
    card = format_of(example.reference)
    name = _id_of(example, number)

    def positive(label: str) -> bool:
        return label != schema.negative_label and not (card is not None and card.is_negative(label))

    instances = make_instances(example.predicted, list(pairs.values()), schema)
    return [
        Question(
            f"{name}/{place}",
            source_of(example.reference) if example.reference.user_data.get(ID) else name,
            key,
            instance,
            tuple(label for label in labels.get(key, ()) if positive(label)),
        )
        for place, (key, instance) in enumerate(zip(pairs, instances, strict=True))
    ]


def predicted(question: Question, answer: Answer | None) -> Prediction:
    """A question with its answer."""
    instance = question.instance
    head, tail = instance.head_mention, instance.tail_mention
    told = answer or Answer(None)
    return Prediction(
        question.id,
        question.doc,
        instance.context.text,
        (head.start, head.end),
        (tail.start, tail.end),
        head.type,
        tail.type,
        question.gold,
        told.predicted,
        round(told.top[0][1], 6) if told.top else None,
        tuple((label, round(score, 6)) for label, score in told.top),
        told.text,
        answer is not None,
    )


def evaluate_pipeline(
    nlp: Language,
    source: str,
    corpus: GoldCorpus,
    folder: Path,
    settings: EvaluationSettings,
    *,
    overwrite: bool = False,
    restart: bool = False,
    renew: bool = False,
    progress: Progress = lambda docs: None,
    say: Callable[[str], None] = print,
) -> EvaluationRun:
    """Evaluate a pipeline's relation component on gold entities; goes on where an interrupted run stopped.

    Args:
        nlp: The pipeline; of it, only the relation component is run.
        source: Where it was loaded from.
        corpus: The corpus, read with the pipeline's vocab.
        folder: Where the run goes; it is there only when all is done.
        settings: How to ask.
        overwrite: Evaluate again where there is a run already.
        restart: Throw away what an interrupted run has left.
        renew: Evaluate again what is there of another state of the pipeline or the corpus.
        progress: Told of documents that are done.
        say: Tells the person at the terminal what to know.

    Raises:
        EvaluationError: The run cannot begin or go on.
        ValueError: The pipeline cannot be used.
    """
    marks = {
        "pipeline": fingerprint(nlp, source),
        "corpus": corpus.sha256,
        **asdict(settings),
    }
    if not overwrite:
        try:
            run = done_run(folder, marks)
        except EvaluationError:
            if not renew:
                raise
            say(f"{folder} is of another state of the pipeline or the corpus: evaluating again.")
            run = None
        if run is not None:
            say(f"{folder} is evaluated already; --overwrite does it again.")
            return run
    reset_peak_memory()
    began = time.perf_counter()
    subject = make_subject(nlp, settings, corpus.benchmark)
    load_seconds = time.perf_counter() - began
    _tell_unknown(corpus, subject.schema, say)
    writer = RunWriter(folder, marks, restart=restart, replace=overwrite or renew)
    if writer.docs:
        say(f"Going on after {writer.docs:,} documents that an interrupted run has done.")
        progress(writer.docs)
    if subject.estimate is not None:
        say(str(subject.estimate([example.predicted for example in corpus.examples[writer.docs :]])))
    for numbered in _chunks(corpus.examples, writer.docs):
        docs = [example.predicted for _, example in numbered]
        before, began = Counter(subject.usage()), time.perf_counter()
        answers = subject.system(docs)
        seconds = time.perf_counter() - began
        usage = Counter(subject.usage())
        usage.subtract(before)
        _check_service(usage, writer)
        predictions, tokens = [], 0
        for (number, example), found in zip(numbered, answers, strict=True):
            pairs = subject.candidates(example.predicted, subject.schema).pairs
            questions = ask(example, number, subject.schema, pairs, subject.attr)
            tokens += subject.tokens([question.instance for question in questions])
            predictions += [predicted(question, found.get(question.key)) for question in questions]
        truncated = sum(answer.truncated for found in answers for answer in found.values())
        writer.write(predictions, len(docs), seconds, truncated, tokens, usage)
        progress(len(docs))
    info = {
        **subject.info,
        "system": settings.name or subject.info["system"],
        "pipeline": source,
        "load_seconds": load_seconds,
        "peak_memory_gb": peak_memory(subject.device),
        "usage": dict(writer.usage) or None,
        "cost": subject.cost(writer.usage),
        "settings": asdict(settings),
        "environment": {"machine": hardware(subject.device), "versions": versions()},
    }
    return finish(writer, corpus, subject.schema, info)


def finish(
    writer: RunWriter, corpus: GoldCorpus, schema: LabelSchema, info: Mapping[str, Any]
) -> EvaluationRun:
    """Score what was written and close the run."""
    predictions = writer.predictions()
    directed = all(
        label.endswith(("(e1,e2)", "(e2,e1)")) for label in schema.names if label != schema.negative_label
    )
    metrics = score_predictions(
        predictions, schema.names, schema.negative_label, directed=directed, truncated=writer.truncated
    )
    about = {
        "benchmark": corpus.name,
        "split": corpus.split,
        "substitute_for": getattr(corpus.benchmark, "substitute_for", None) if corpus.benchmark else None,
        "limit": corpus.limit or None,
        "corpus": str(corpus.path),
        "data_sha256": corpus.sha256,
        "labels": list(schema.names),
        "negative_label": schema.negative_label,
        "pairs": len(predictions),
        # Answers out of a cache say nothing of a system's speed.
        "seconds": 0.0 if writer.usage["cached"] else writer.seconds,
        "tokens": writer.tokens or writer.usage["input_tokens"] or None,
    }
    return writer.finish({**info, **about}, metrics)


def _check_service(usage: Counter[str], writer: RunWriter) -> None:
    """Stop where a service did not answer: such pairs are no answers of the model.

    What it did answer is in the cache of answers, where there is one.

    Raises:
        EvaluationError: Requests failed for reasons that may pass, or all that were sent so far failed.
    """
    if usage["unreachable"]:
        problem = f"{usage['unreachable']:,} requests got no answer, however often they were sent"
    elif usage["failed"] and not usage["requests"] + writer.usage["requests"] + usage["cached"]:
        problem = f"the service refused all of {usage['failed']:,} requests"
    else:
        return
    raise EvaluationError(
        f"The evaluation stopped: {problem} (warnings above say why). {writer.docs:,} documents are done; "
        "the same command goes on from there."
    )


def _chunks(examples: Sequence[Example], done: int) -> Iterator[list[tuple[int, Example]]]:
    held: list[tuple[int, Example]] = []
    pairs = 0
    for number, example in enumerate(examples[done:], done):
        held.append((number, example))
        pairs += len(example.predicted._.relation_candidates) or 1
        if pairs >= CHUNK:
            yield held
            held, pairs = [], 0
    if held:
        yield held


def _tell_unknown(corpus: GoldCorpus, schema: LabelSchema, say: Callable[[str], None]) -> None:
    """Say which gold labels can never be found, and what that does to the score."""
    gold = [
        label
        for number, example in enumerate(corpus.examples)
        for question in ask(example, number, schema)
        for label in question.gold
    ]
    lost = [label for label in gold if label not in schema.index]
    if lost:
        names = sorted(set(lost))
        shown = ", ".join(names[:8]) + (f", and {len(names) - 8} more" if len(names) > 8 else "")
        say(
            f"Warning: {len(names)} of the corpus's labels are unknown to the pipeline ({shown}). It can "
            f"never find {len(lost):,} of {len(gold):,} relations: recall is at most "
            f"{1 - len(lost) / len(gold):.3f}."
        )
