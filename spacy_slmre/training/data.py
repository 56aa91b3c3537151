"""What is tuned on: the instances of one or several schemas, and their packed sequences as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from spacy_slmre.instances import RelationInstance
from spacy_slmre.metrics import Item, count
from spacy_slmre.models.causal_lm.loss import Batch, as_batch
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import TrainingSequence, TrainingSequences
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.settings import LEAST_ROOM, TuningError, TuningSettings

SCORE = "micro_f1"


@dataclass
class TuningSet:
    """The instances of one schema.

    Attributes:
        name: Name of the benchmark.
        schema: Its labels.
        train: TrainingInstances instances.
        dev: The same for evaluation; a pair with several labels stands there several times.
        train_ids: Which document each training instance comes from.
        sources: How many training instances were read, demonstrations and what does not fit included, by the
            benchmark that they come from, where that is known.
    """

    name: str
    schema: LabelSchema
    train: list[RelationInstance]
    dev: list[RelationInstance]
    train_ids: list[str]
    sources: dict[str, int] = field(default_factory=dict)


def evaluate(lm: SmallLM, sets: Sequence[TuningSet]) -> dict[str, Any]:
    """Positive-class micro-F1 on the dev instances of each set, and the plain mean over the sets.

    Returns:
        "micro_f1", the mean, and "sets": name → "p", "r", "f" and the number of instances.
    """
    found: dict[str, Any] = {}
    for one in sets:
        # A pair with several labels is asked about once.
        pairs = {(id(i.context), i.head, i.tail): i for i in one.dev}
        columns, _ = lm.top_k(list(pairs.values()), one.schema)
        negative = one.schema.negative_label
        gold: set[Item] = {((id(i.context), i.head, i.tail), str(i.label)) for i in one.dev}
        predicted = {
            (pair, one.schema.names[column]) for pair, column in zip(pairs, columns[:, 0], strict=True)
        }
        scores = count(
            (item for item in gold if item[1] != negative),
            (item for item in predicted if item[1] != negative),
        )
        found[one.name] = {**scores.to_dict(), "instances": len(one.dev)}
    return {SCORE: sum(one["f"] for one in found.values()) / len(found), "sets": found}


class TuningData(Dataset):
    """The packed sequences of all schemas, as tensors; contexts that do not fit are shortened and counted.

    Attributes:
        sets: The instances that fit.
        shortened: How many were shortened, in training and dev.
        dropped: How many do not fit.
        longest_prefix: Tokens of the longest prefix.
    """

    def __init__(self, lm: SmallLM, sets: Sequence[TuningSet], settings: TuningSettings) -> None:
        self.shortened = self.dropped = self.longest_prefix = 0
        self.sets: list[TuningSet] = []
        self._sequences: list[TrainingSequences] = []
        self._where: list[tuple[int, int]] = []
        for one in sets:
            prefix = len(lm.prompts.prefix(one.schema))
            self.longest_prefix = max(self.longest_prefix, prefix)
            room = settings.max_tokens - prefix
            if room < LEAST_ROOM:
                raise TuningError(
                    f"{one.name}: instruction, labels and demonstrations take {prefix} of the "
                    f"{settings.max_tokens} tokens of a sequence, which leaves {max(room, 0)} for texts. Set "
                    f"training.max_tokens to {prefix + 8 * LEAST_ROOM} or more, or drop definitions or "
                    "demonstrations."
                )
            fitted = self._fit(lm, one, room - LEAST_ROOM // 2)
            if not fitted.train or not fitted.dev:
                raise TuningError(f"{one.name}: no instance fits into {settings.max_tokens} tokens.")
            sequences = TrainingSequences(
                lm.prompts,
                fitted.train,
                one.schema,
                max_tokens=room,
                objective=settings.objective,
                seed=settings.seed,
            )
            self._where += [(len(self.sets), position) for position in range(len(sequences))]
            self.sets.append(fitted)
            self._sequences.append(sequences)

    def _fit(self, lm: SmallLM, one: TuningSet, most: int) -> TuningSet:
        fitted = []
        for instances in (one.train, one.dev):
            fitted.append(lm.truncate(instances, one.schema, most))
            self.dropped += sum(fit is None for fit in fitted[-1])
            self.shortened += sum(
                fit not in (None, whole) for fit, whole in zip(fitted[-1], instances, strict=True)
            )
        train, dev = fitted
        ids = [id for id, fit in zip(one.train_ids, train, strict=True) if fit is not None]
        kept = [[fit for fit in instances if fit is not None] for instances in (train, dev)]
        return TuningSet(one.name, one.schema, kept[0], kept[1], ids, one.sources)

    def size(self, position: int) -> int:
        """Tokens of a sequence, padding included, without making it."""
        number, place = self._where[position]
        return self._sequences[number].size(place)

    def ids(self, position: int) -> list[str]:
        """The documents that the instances of a sequence come from, each once."""
        one = self.sets[self._where[position][0]]
        rows = self._sequence(position).instances
        return list(dict.fromkeys(f"{one.name}:{one.train_ids[row]}" for row in rows))

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._where)

    def batch(self, position: int) -> Batch:
        """One sequence, as `packed_loss` reads it."""
        return as_batch(self._sequence(position))

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """One sequence, with what `Trainer` wants to know of it."""
        sequence = self._sequence(position)
        # `Trainer` counts what the losses of a step are divided by from these two.
        counted = torch.ones(sequence.count, dtype=torch.long)
        return {
            **as_batch(sequence),
            "labels": counted,
            "shift_labels": counted,
            "position": torch.tensor(position),
        }

    def _sequence(self, position: int) -> TrainingSequence:
        number, place = self._where[position]
        return self._sequences[number][place]
