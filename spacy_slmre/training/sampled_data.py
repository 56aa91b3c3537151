"""Training data with random labels: each sequence has its own task."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from spacy_slmre.corpus.label_sets import LabelSetCorpus
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import TrainingSequence, TrainingSequences
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.data import TrainingData, TuningSet
from spacy_slmre.training.label_sampling import MAX_ATTEMPTS, LabelSampler

MIN_ROOM = 400
"""Minimum number of tokens for texts, even if many labels then make a sequence exceed `training.max_tokens`."""
# Maximum fraction of a sequence for instruction, labels and few-shot examples.
_MAX_EXAMPLES = 0.6
# Texts and pairs of a passage rarely have fewer tokens than this.
_TOKENS_PER_PASSAGE = 50


def dev_sets(corpora: Sequence[LabelSetCorpus], max_pairs: int) -> list[TuningSet]:
    """Return the dev sets of label sets: all pairs with known labels, under all labels of their set."""
    return [TuningSet(corpus.name, corpus.schema, [], corpus.instances(max_pairs), []) for corpus in corpora]


def describe_corpora(corpora: Sequence[LabelSetCorpus]) -> dict[str, dict[str, object]]:
    """Return for each label set its numbers of passages, labels and relations, and the SHA-256 of what was read."""
    described: dict[str, dict[str, object]] = {}
    for corpus in corpora:
        digest = hashlib.sha256(repr((corpus.schema, sorted(corpus.paraphrases.items()))).encode())
        for passage in corpus.passages:
            labels, excluded = (
                sorted((pair, sorted(names)) for pair, names in known.items())
                for known in (passage.labels, passage.excluded)
            )
            facts = (labels, excluded, passage.negatives, sorted(passage.checked))
            digest.update(repr((passage.id, passage.context.text, passage.context.mentions, facts)).encode())
        described[corpus.name] = {
            "passages": len(corpus.passages),
            "labels": len(corpus.labels),
            "relations": sum(len(names) for passage in corpus.passages for names in passage.labels.values()),
            "sha256": digest.hexdigest(),
        }
    return described


class SampledDataset(TrainingData):
    """Packed training sequences, each with labels drawn by a sampler; see `TrainingData`.

    A sequence is determined by the seed and its position, so that a run can be resumed.
    """

    has_threshold = True
    repeats = False

    def __init__(
        self, lm: SmallLM, sampler: LabelSampler, sets: Sequence[TuningSet], settings: TrainingSettings, size: int
    ) -> None:
        self.lm = lm
        self.sampler = sampler
        self.settings = settings
        self.sets = list(sets)
        self._size = size

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._size

    def sequence(self, position: int) -> TrainingSequence:
        """Return a sequence."""
        return self._draw(position)[0]

    def longest(self) -> int:
        """Return the position of the longest of a few sequences."""
        return max(range(min(len(self), 16)), key=lambda position: len(self._draw(position)[0].packed.tokens))

    def counts(self) -> dict[str, int]:
        """Return numbers for the metrics, extrapolated from a few sequences; an epoch is the whole run."""
        sample = [self.sequence(position) for position in range(0, len(self), max(1, len(self) // 32))]
        scale = len(self) / len(sample)
        return {
            "tokens_per_epoch": round(scale * sum(len(one.packed.tokens) for one in sample)),
            "pairs_per_epoch": round(scale * sum(len(one.instances) for one in sample)),
            "truncated": 0,
            "skipped": 0,
        }

    def doc_ids(self, position: int) -> list[str]:
        """Return the distinct passage ids of a sequence's instances."""
        return list(dict.fromkeys(self._draw(position)[1]))

    def _draw(self, position: int) -> tuple[TrainingSequence, list[str]]:
        max_tokens = self.settings.max_tokens
        problem = "The mentions of all pairs are too far apart."
        for attempt in range(MAX_ATTEMPTS):
            seed = f"{self.settings.seed}/{position}/{attempt}"
            n_passages = max(2, max_tokens // _TOKENS_PER_PASSAGE // 2)
            task = self.sampler.draw(seed, n_passages)
            examples = tuple(example.to_dict() for example in task.examples)
            prompts = self.lm.prompts
            if examples:
                prompts = PromptBuilder(prompts.tokenizer, replace(self.lm.style, examples=examples))
            n_prefix = len(prompts.prefix(task.schema))
            if examples and n_prefix > _MAX_EXAMPLES * max_tokens:
                task = self.sampler.draw(seed, n_passages, with_examples=False)
                prompts = self.lm.prompts
                n_prefix = len(prompts.prefix(task.schema))
            room = max(max_tokens - n_prefix, MIN_ROOM)
            try:
                truncated = self.lm.truncate(task.instances, task.schema, room * 3 // 4)
            except ModelError as error:  # two wordings have the same tokens, or the labels leave no room for a text
                problem = str(error)
                continue
            fitting = [(instance, id) for instance, id in zip(truncated, task.ids, strict=True) if instance is not None]
            instances = [instance for instance, _ in fitting]
            if not instances:
                continue
            objective = self.settings.objective
            sequences = TrainingSequences(prompts, instances, task.schema, max_tokens=room, objective=objective)
            sequence = sequences[max(range(len(sequences)), key=sequences.size)]
            return sequence, [f"{task.corpus}:{fitting[row][1]}" for row in sequence.instances]
        raise TuningError(
            f"None of {MAX_ATTEMPTS:,} random tasks fits the model. The last one: {problem} Lower sampling.max_labels, "
            "or use a base model with a higher limit."
        )
