"""A fast model that scores all pairs, and a better one for those that may have a relation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError, ModelInfo, RelationModel
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.encoder.universal import make_universal_encoder
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.settings import check_probability, check_types

FIRST, SECOND = "first", "second"


@dataclass
class Cascade(RelationModel):
    """Scores all pairs with the first model, and those that may have a relation with the second, too.

    The probabilities of a pair are those of the first model or, if both scored it, their weighted geometric mean,
    normalized (a logarithmic opinion pool). If the labels have no negative label, both models score all pairs.

    Attributes:
        first: The fast model, such as an encoder for any labels.
        second: The better model, such as a small language model.
        min_prob: Minimum probability of any relation, by the first model, for asking the second: higher values are
            faster and find fewer relations. With 0, both score all pairs.
        weight: Weight of the first model in the mean.
        threshold: Minimum probability of a relation that is best for the mean, used with `threshold = "auto"`.

    Raises:
        ModelError: `min_prob`, `weight` or `threshold` is not a number between 0 and 1.
    """

    first: RelationModel
    second: RelationModel
    min_prob: float = 0.15
    weight: float = 0.25
    threshold: float | None = 0.2

    def __post_init__(self) -> None:
        check_types(self, "model", ModelError)
        check_probability(self, "model", ModelError, names=["min_prob", "weight", "threshold"])

    @property
    def schema(self) -> LabelSchema | None:
        """The label set that the second model was tuned on, if it was tuned on exactly one."""
        return self.second.schema

    @property
    def default_threshold(self) -> float | None:
        """The minimum probability of a relation."""
        return self.threshold

    def load(self) -> Self:
        """Load both models. Raises ModelError if one is unavailable."""
        self.first.load()
        self.second.load()
        return self

    def set_labels(self, schema: LabelSchema) -> None:
        """Prepare both models for the labels. Raises ModelError if one does not support them."""
        self.first.set_labels(schema)
        self.second.set_labels(schema)

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Truncate contexts so that they fit both models; see `RelationModel.truncate`."""
        fitted = self.first.truncate(instances, schema, max_context_tokens)
        rows = [row for row, instance in enumerate(fitted) if instance is not None]
        again = self.second.truncate([one for one in fitted if one is not None], schema, max_context_tokens)
        for row, instance in zip(rows, again, strict=True):
            fitted[row] = instance
        return fitted

    def log_probs(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        allowed: np.ndarray | None = None,
        *,
        k: int | None = None,
        min_prob: float = 0.0,
    ) -> np.ndarray:
        """Return log-probabilities of all allowed labels; see `RelationModel.log_probs`."""
        log_probs = self.first.log_probs(instances, schema, allowed)
        rows = np.arange(len(instances))
        if schema.negative_label is not None:
            negative = np.exp(log_probs[:, schema.index[schema.negative_label]])
            rows = np.flatnonzero(1 - negative >= self.min_prob)
        if len(rows):
            of_rows = None if allowed is None else allowed[rows]
            second = self.second.log_probs([instances[int(row)] for row in rows], schema, of_rows)
            log_probs[rows] = _pool(log_probs[rows], second, self.weight)
        return log_probs

    @property
    def info(self) -> ModelInfo:
        """What reports say about both models."""
        first, second = self.first.info, self.second.info
        n_parameters = first.n_parameters + second.n_parameters
        return ModelInfo("cascade", f"{first.name} + {second.name}", n_parameters, second.device)

    def count_tokens(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> int:
        """Return 0: which pairs the second model reads is only known after scoring."""
        return 0

    def describe_files(self) -> Any:
        """Describe the files of both models; see `RelationModel.describe_files`."""
        return [self.first.describe_files(), self.second.describe_files()]

    def save(self, folder: Path, *, embed: bool) -> None:
        """Save both models; `embed` includes weights that are available elsewhere."""
        folder.mkdir(parents=True, exist_ok=True)
        self.first.save(folder / FIRST, embed=embed)
        self.second.save(folder / SECOND, embed=embed)

    def restore(self, folder: Path, *, temporary: bool = False) -> Cascade:
        """Return the model that `save` wrote; see `RelationModel.restore`."""
        first, second = (
            model.restore(folder / name, temporary=temporary)
            for name, model in ((FIRST, self.first), (SECOND, self.second))
        )
        return Cascade(first, second, self.min_prob, self.weight, self.threshold)


def _pool(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Return normalized weighted means of log-probabilities, (n, n_labels); impossible labels remain impossible."""
    possible = (first > -np.inf) & (second > -np.inf)
    pooled = np.full(first.shape, -np.inf)
    pooled[possible] = weight * first[possible] + (1 - weight) * second[possible]
    total = np.logaddexp.reduce(pooled, axis=1, keepdims=True)
    return pooled - np.where(total > -np.inf, total, 0.0)


def make_cascade(
    first: RelationModel | None = None,
    second: RelationModel | None = None,
    *,
    examples: str | None = None,
    min_prob: float = Cascade.min_prob,
    weight: float = Cascade.weight,
    threshold: float | None = Cascade.threshold,
) -> Cascade:
    """Make a cascade without loading its models; `@architectures = "spacy-slmre.Cascade.v1"`.

    By default, they are the shipped encoder for any labels and the packaged language model with the shipped adapter.

    Args:
        first: The fast model.
        second: The better model.
        examples: JSONL file of few-shot examples for default models.
        min_prob: See `Cascade`.
        weight: See `Cascade`.
        threshold: See `Cascade`.

    Raises:
        ModelError: A setting is out of range, or neither model is the default one, which examples are for.
    """
    if examples is not None and first is not None and second is not None:
        raise ModelError("model.examples is for the default models: set it in model.first and model.second instead.")
    return Cascade(
        first or make_universal_encoder(examples=examples),
        second or make_small_lm(examples=examples),
        min_prob,
        weight,
        threshold,
    )
