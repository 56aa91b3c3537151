"""Training data: documents are turned into instances, grouped by label set, and packed into sequences."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, cast

import spacy
import torch
from spacy.tokens import Doc
from torch.utils.data import Dataset

from spacy_slmre.corpus.gold_docs import FORMAT, ID, format_of, holdout_positions
from spacy_slmre.corpus.readers import ExampleReader
from spacy_slmre.gold import gold_pairs
from spacy_slmre.instances import Context, RelationInstance, describe_training_truncation
from spacy_slmre.models.causal_lm.loss import as_batch
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import TrainingSequence, TrainingSequences
from spacy_slmre.pipeline.examples import collect_schema, describe_missing_negatives, make_gold_instances
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.training.config import MIN_TEXT_TOKENS, TrainingSettings, TuningConfig, TuningError

CORPUS = "corpus"
"""Name of the label set of documents that are not from a benchmark, or that share `tune.schema`."""
# Few-shot examples are part of every prompt, so short ones are preferred.
_MAX_EXAMPLE_CHARS = 200


@dataclass
class TuningSet:
    """The training and dev instances of one label set.

    Attributes:
        name: Name of the benchmark, or "corpus".
        schema: The labels.
        train: Training instances; a pair with several labels has one instance for each label.
        dev: Dev instances, likewise.
        train_ids: Document id of each training instance.
        sources: Number of training instances by benchmark, before any are removed.
    """

    name: str
    schema: LabelSchema
    train: list[RelationInstance]
    dev: list[RelationInstance]
    train_ids: list[str]
    sources: dict[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the number and SHA-256 of the instances of each split."""
        described = {}
        for split, instances in (("train", self.train), ("dev", self.dev)):
            digest = hashlib.sha256()
            for instance in instances:
                digest.update(json.dumps(instance.to_dict()).encode())
            described[split] = {"instances": len(instances), "sha256": digest.hexdigest()}
        return described


def read_sets(
    config: TuningConfig, log: Callable[[str], None] = lambda _: None, progress: Callable[[int], None] = lambda _: None
) -> list[TuningSet]:
    """Read the corpora of a config and group their instances by label set.

    Args:
        config: The config.
        log: Reports what is skipped or held out.
        progress: Called with the number of documents read.

    Raises:
        TuningError: A label is not in its label set, or `tune.holdout` selects no documents or all of them.
    """
    nlp = spacy.blank(config.tune.lang)
    docs: dict[str, dict[str, list[Doc]]] = {}
    readers = {"train": cast(ExampleReader, config.train), "dev": cast(ExampleReader, config.dev)}
    examples = chain.from_iterable(zip(repeat(split), read(nlp)) for split, read in readers.items())
    n_unannotated = 0
    for number, (split, example) in enumerate(examples, 1):
        progress(number)
        doc = example.reference
        annotated = gold_pairs(doc)
        n_unannotated += bool(doc.ents) and not annotated.is_annotated
        if annotated.known_pairs():
            name = CORPUS if config.schema is not None else _benchmark(doc)
            docs.setdefault(name, {"train": [], "dev": []})[split].append(doc)
    if n_unannotated:
        log(f"  {n_unannotated:,} documents with entities annotate neither relations nor pairs and are skipped")
    sets = []
    for name, splits in sorted(docs.items()):
        train, dev = splits["train"], splits["dev"]
        if not train:
            log(f"  {name}: {len(dev):,} dev documents skipped because it has no training documents")
            continue
        schema = config.schema or _collect_schema(name, [*train, *dev])
        if not dev:
            total = len(train)
            train, dev = _hold_out(name, train, config.tune.holdout, config.training.seed)
            log(f"  {name}: no dev documents; {len(dev):,} of {total:,} training documents held out")
        instances, instance_docs = _make_instances(train, schema)
        ids = [str(doc.user_data.get(ID, number)) for number, doc in instance_docs]
        sources = Counter(_benchmark(doc) for _, doc in instance_docs)
        expected = schema.negative_label is not None or (name == CORPUS and config.schema is None)
        if expected and (warning := describe_missing_negatives(instances, schema.negative_label)):
            log(f"  Warning: {name}: {warning}")
        dev_instances, _ = _make_instances(dev, schema)
        sets.append(TuningSet(name, schema, instances, dev_instances, ids, dict(sources)))
    return sets


def draw_examples(data: TuningSet, shots: int, seed: int) -> list[dict[str, Any]]:
    """Draw few-shot examples, in the form that `PromptStyle` takes, and remove their sentences from the training data.

    Half of the examples have a relation, with different labels if possible, and half have none. If there are no
    negative instances, all have a relation.

    Raises:
        TuningError: There are too few sentences to draw from.
    """
    if not shots:
        return []
    rng = random.Random(f"{seed}/{data.name}")
    pool = [instance for instance in data.train if len(instance.context.text) <= _MAX_EXAMPLE_CHARS]
    pool = pool if len(pool) > 10 * shots else list(data.train)
    rng.shuffle(pool)
    negative = data.schema.negative_label
    max_negatives = shots // 2 if any(instance.label == negative for instance in pool) else 0
    chosen: list[RelationInstance] = []
    contexts: set[Context] = set()
    for only_new_labels in (True, False):
        for instance in pool:
            labels = [example.label for example in chosen]
            n_negatives = labels.count(negative)
            if instance.label == negative:
                wanted = n_negatives < max_negatives
            else:
                wanted = len(labels) - n_negatives < shots - max_negatives
                wanted &= not (only_new_labels and instance.label in labels)
            if wanted and instance.context not in contexts:
                chosen.append(instance)
                contexts.add(instance.context)
    if len(chosen) < shots:
        raise TuningError(
            f"{data.name}: tune.shots = {shots}, but the training data have only {len(chosen)} suitable sentences. "
            "Lower tune.shots or add training data."
        )
    rng.shuffle(chosen)
    kept = [row for row, instance in enumerate(data.train) if instance.context not in contexts]
    data.train = [data.train[row] for row in kept]
    data.train_ids = [data.train_ids[row] for row in kept]
    return [{**instance.to_dict(), "schema": data.schema.answers_key} for instance in chosen]


def _make_instances(docs: Sequence[Doc], schema: LabelSchema) -> tuple[list[RelationInstance], list[tuple[int, Doc]]]:
    """Return the instances of documents, and for each the position of its document and the document."""
    instances: list[RelationInstance] = []
    instance_docs: list[tuple[int, Doc]] = []
    for number, doc in enumerate(docs):
        doc_instances = make_gold_instances(doc, schema)
        if unknown := [instance.label for instance in doc_instances if instance.label not in schema.index]:
            raise TuningError(
                f"The document {doc.user_data.get(ID, number)} ({doc.text[:60]!r}) has the unknown label "
                f'"{unknown[0]}". Expected: {", ".join(schema.names)}. Add the label to tune.schema, or convert the '
                "corpus again."
            )
        instances += doc_instances
        instance_docs += [(number, doc)] * len(doc_instances)
    return instances, instance_docs


def _collect_schema(name: str, docs: Sequence[Doc]) -> LabelSchema:
    corpus_format = format_of(docs[0])
    if corpus_format is not None and corpus_format.schema is not None:
        return corpus_format.schema
    if (schema := collect_schema(docs, NEGATIVE_LABEL)) is None:
        raise TuningError(f"None of the annotated pairs of {name} has a relation.")
    return replace(schema, labels=tuple(sorted(schema.labels, key=attrgetter("name"))))


def _benchmark(doc: Doc) -> str:
    return str(doc.user_data.get(FORMAT, CORPUS))


def _hold_out(name: str, docs: Sequence[Doc], holdout: float, seed: int) -> tuple[list[Doc], list[Doc]]:
    train: list[Doc] = []
    dev: list[Doc] = []
    for doc, position in holdout_positions(docs, seed):
        (dev if position < holdout else train).append(doc)
    if not train or not dev:
        raise TuningError(
            f"{name} has no dev documents, and tune.holdout = {holdout} holds out {len(dev)} of its {len(docs)} "
            "training documents. Add a dev corpus, or change tune.holdout or training.seed."
        )
    return train, dev


class TrainingData(Dataset):
    """Packed training sequences, and the dev instances of label sets.

    Attributes:
        sets: The label sets that are scored.
        has_threshold: Whether the adapter gets a default threshold. Only one for any labels does: other dev sets may
            have fewer negative pairs than real text.
        repeats: Whether a sequence is used again in every epoch.
    """

    sets: list[TuningSet]
    has_threshold = False
    repeats = True

    def sequence(self, position: int) -> TrainingSequence:
        """Return a sequence."""
        raise NotImplementedError

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """Return the tensors of a sequence with the additional keys that `Trainer` expects."""
        sequence = self.sequence(position)
        # `Trainer` counts the items of a step, by which the loss is divided, from these labels.
        ones = torch.ones(sequence.count, dtype=torch.long)
        extra = {"labels": ones, "shift_labels": ones, "position": torch.tensor(position)}
        return {**as_batch(sequence), **extra}

    def longest(self) -> int:
        """Return the position of the longest sequence."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """Return numbers for the metrics: "tokens_per_epoch", "pairs_per_epoch", "truncated" and "skipped" pairs."""
        raise NotImplementedError

    def doc_ids(self, position: int) -> list[str]:
        """Return the distinct document ids of a sequence's instances, for error messages."""
        raise NotImplementedError


class PackedDataset(TrainingData):
    """Packed training sequences of all label sets; long contexts are truncated, which `log` reports.

    Attributes:
        sets: The instances that fit into a sequence.
        n_truncated: Number of training and dev instances with a truncated context.
        n_skipped: Number of instances whose mentions are too far apart to fit into a sequence.

    Raises:
        TuningError: `max_tokens` leaves too little room for texts.
    """

    def __init__(
        self,
        lm: SmallLM,
        sets: Sequence[TuningSet],
        settings: TrainingSettings,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self.n_truncated = self.n_skipped = 0
        self.sets: list[TuningSet] = []
        self._items: list[tuple[TuningSet, TrainingSequences, int]] = []  # (set, its sequences, index)
        for data in sets:
            prefix = len(lm.prompts.prefix(data.schema))
            room = settings.max_tokens - prefix
            if room < MIN_TEXT_TOKENS:
                raise TuningError(
                    f"{data.name}: instruction, labels and few-shot examples take {prefix} of {settings.max_tokens} "
                    f"tokens per sequence, which leaves {max(room, 0)} for texts. Set training.max_tokens to at least "
                    f"{prefix + 8 * MIN_TEXT_TOKENS}, tune.shots = 0, or model.definitions = false."
                )
            fitting = self._truncate(lm, data, room - MIN_TEXT_TOKENS // 2)
            if not fitting.train or not fitting.dev:
                raise TuningError(f"{data.name}: no instance fits into {settings.max_tokens} tokens.")
            objective, seed = settings.objective, settings.seed
            sequences = TrainingSequences(
                lm.prompts, fitting.train, fitting.schema, max_tokens=room, objective=objective, seed=seed
            )
            self.sets.append(fitting)
            self._items += [(fitting, sequences, index) for index in range(len(sequences))]

    def _truncate(self, lm: SmallLM, data: TuningSet, max_tokens: int) -> TuningSet:
        truncated = {}
        for split, instances in (("train", data.train), ("dev", data.dev)):
            truncated[split] = lm.truncate(instances, data.schema, max_tokens)
            if warning := describe_training_truncation(instances, truncated[split], "training.max_tokens"):
                self._log(f"  Warning: {data.name}, {split}: {warning}")
            for before, after in zip(instances, truncated[split], strict=True):
                self.n_skipped += after is None
                self.n_truncated += after is not None and after is not before
        ids = zip(data.train_ids, truncated["train"], strict=True)
        return replace(
            data,
            train=[instance for instance in truncated["train"] if instance is not None],
            dev=[instance for instance in truncated["dev"] if instance is not None],
            train_ids=[doc_id for doc_id, instance in ids if instance is not None],
        )

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._items)

    def sequence(self, position: int) -> TrainingSequence:
        """Return a sequence."""
        _, sequences, index = self._items[position]
        return sequences[index]

    def counts(self) -> dict[str, int]:
        """Return numbers for the metrics."""
        return {
            "tokens_per_epoch": sum(map(self.size, range(len(self)))),
            "pairs_per_epoch": sum(len(data.train) for data in self.sets),
            "truncated": self.n_truncated,
            "skipped": self.n_skipped,
        }

    def size(self, position: int) -> int:
        """Return the number of tokens of a sequence, including padding, without creating it."""
        _, sequences, index = self._items[position]
        return sequences.size(index)

    def longest(self) -> int:
        """Return the position of the longest sequence."""
        return max(range(len(self)), key=self.size)

    def doc_ids(self, position: int) -> list[str]:
        """Return the distinct document ids of a sequence's instances."""
        data, _, _ = self._items[position]
        rows = self.sequence(position).instances
        return list(dict.fromkeys(f"{data.name}:{data.train_ids[row]}" for row in rows))
