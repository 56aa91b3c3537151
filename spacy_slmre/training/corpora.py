"""From readers of corpora to instances by schema, with a dev part and demonstrations for each."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.gold_docs import BENCHMARK, ID, format_of, in_holdout
from spacy_slmre.corpus.readers import Reader
from spacy_slmre.instances import Context, RelationInstance
from spacy_slmre.pipeline.examples import make_gold_instances
from spacy_slmre.relations import PAIRS, RELATIONS, Relation
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.training.data import TuningSet
from spacy_slmre.training.settings import TuningError

OWN = "corpus"
"""Name of what comes from no benchmark, and of several benchmarks under one given schema."""
# Demonstrations stand in every prompt: short ones are drawn where there are enough.
_SHORT = 200


@dataclass
class _Group:
    """The documents of one benchmark while they are read."""

    train: list[Doc] = field(default_factory=list)
    dev: list[Doc] = field(default_factory=list)


def read_sets(
    train: Reader,
    dev: Reader,
    *,
    lang: str = "en",
    schema: LabelSchema | None = None,
    holdout: float = 0.15,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[TuningSet]:
    """The instances of corpora, grouped by the label set that they are under.

    Args:
        train: Reads training examples.
        dev: Reads dev examples; `say` tells of benchmarks that are left out, as there is no training example
            of them.
        lang: Language of the vocabulary.
        schema: One label set for everything; without, each benchmark is under that of its card, and what has
            no card under the labels that occur in it, in training or dev examples.
        holdout: Share of the training documents that serves as dev where a benchmark has no dev examples.
        seed: Seed of their choice.
        say: Tells the person at the terminal what is left out and what is held out.
        progress: Called with the number of documents read.

    Raises:
        TuningError: A document has a label that is not in its label set, or documents that are held out for
            dev would be none or all.
    """
    nlp = spacy.blank(lang)
    groups: dict[str, _Group] = {}
    not_trained: Counter[str] = Counter()
    done = 0
    for split, reader in (("train", train), ("dev", dev)):
        for example in reader(nlp):
            doc = example.reference
            done += 1
            progress(done)
            name = OWN if schema is not None else str(doc.user_data.get(BENCHMARK, OWN))
            if not _annotated(doc):
                continue
            if split == "dev" and name not in groups:
                not_trained[name] += 1
                continue
            getattr(groups.setdefault(name, _Group()), split).append(doc)
    for name, number in sorted(not_trained.items()):
        say(f"  {name}: {number:,} dev documents are left out, as nothing of it is trained on")
    sets = []
    for name, group in sorted(groups.items()):
        under = schema or _schema_of([*group.train, *group.dev])
        if not group.dev:
            group.train, group.dev = _hold_out(name, group.train, holdout, seed)
            number = len(group.train) + len(group.dev)
            say(f"  {name}: no dev documents; {len(group.dev):,} of {number:,} for training are held out")
        instances, ids = _instances(group.train, under)
        sources: Counter[str] = Counter()
        for doc in group.train:
            sources[str(doc.user_data.get(BENCHMARK, OWN))] += len(_annotated(doc))
        dev_instances, _ = _instances(group.dev, under)
        sets.append(TuningSet(name, under, instances, dev_instances, ids, dict(sources)))
    return sets


def draw_demonstrations(one: TuningSet, shots: int, seed: int) -> list[dict[str, Any]]:
    """Draw demonstrations from the training instances, and take their sentences out of these.

    Half of them have a relation, each another one, and half have none; without a negative label all have one.

    Args:
        one: The set; its training instances are changed.
        shots: How many.
        seed: Seed of the choice.

    Returns:
        Demonstrations as `PromptStyle.demonstrations` has them, for this label set.

    Raises:
        TuningError: There are too few sentences to draw from.
    """
    if not shots:
        return []
    rng = random.Random(f"{seed}/{one.name}")
    pool = [instance for instance in one.train if len(instance.context.text) <= _SHORT]
    pool = pool if len(pool) > 10 * shots else list(one.train)
    rng.shuffle(pool)
    negative = one.schema.negative_label
    wanted = shots // 2 if any(instance.label == negative for instance in pool) else 0
    chosen: list[RelationInstance] = []
    contexts: set[Context] = set()
    # First with labels that were not shown yet, then with any.
    for fresh in (True, False):
        for instance in pool:
            labels = [shown.label for shown in chosen]
            negatives = labels.count(negative)
            is_negative = instance.label == negative
            full = negatives >= wanted if is_negative else len(labels) - negatives >= shots - wanted
            repeated = fresh and not is_negative and instance.label in labels
            if not (full or repeated or instance.context in contexts):
                chosen.append(instance)
                contexts.add(instance.context)
    if len(chosen) < shots:
        raise TuningError(
            f"{one.name}: {shots} demonstrations were asked for, but the training instances give "
            f"{len(chosen)}. Set a lower tune.shots, or add training data."
        )
    rng.shuffle(chosen)
    kept = [row for row, instance in enumerate(one.train) if instance.context not in contexts]
    one.train, one.train_ids = [one.train[row] for row in kept], [one.train_ids[row] for row in kept]
    return [{**instance.to_dict(), "schema": one.schema.answers_key} for instance in chosen]


def data_hash(instances: Iterable[RelationInstance]) -> str:
    """SHA-256 of instances, in their order."""
    digest = hashlib.sha256()
    for instance in instances:
        digest.update(json.dumps(instance.to_dict()).encode())
    return digest.hexdigest()


def _instances(docs: Sequence[Doc], schema: LabelSchema) -> tuple[list[RelationInstance], list[str]]:
    instances: list[RelationInstance] = []
    ids: list[str] = []
    for number, doc in enumerate(docs):
        name = str(doc.user_data.get(ID, number))
        found = make_gold_instances(doc, schema)
        if unknown := [one.label for one in found if one.label not in schema.index]:
            raise TuningError(
                f'The document {name} ({doc.text[:60]!r}) has the label "{unknown[0]}", which is none of the '
                f"labels to tune on: {', '.join(schema.names)}. Give a [schema] that has it, or convert anew."
            )
        instances += found
        ids += [name] * len(found)
    return instances, ids


def _schema_of(docs: Sequence[Doc]) -> LabelSchema:
    card = format_of(docs[0])
    if card is not None and card.schema is not None:
        return card.schema
    found = sorted({pair.label for doc in docs for pair in _annotated(doc)})
    is_negative = card.is_negative if card is not None else NEGATIVE_LABEL.__eq__
    return LabelSchema.from_labels(found, next(filter(is_negative, found), None))


def _annotated(doc: Doc) -> Sequence[Relation]:
    return getattr(doc._, PAIRS) or getattr(doc._, RELATIONS)


def _hold_out(name: str, docs: Sequence[Doc], share: float, seed: int) -> tuple[list[Doc], list[Doc]]:
    """Training and dev documents."""
    flags = [in_holdout(doc, share, seed) for doc in docs]
    if len(set(flags)) < 2:
        raise TuningError(
            f"{name} has no dev documents, and tune.holdout = {share} holds out {sum(flags)} of its "
            f"{len(docs)} training documents. Give a dev corpus, another tune.holdout or training.seed."
        )
    train = [doc for doc, flag in zip(docs, flags, strict=True) if not flag]
    return train, [doc for doc, flag in zip(docs, flags, strict=True) if flag]
