"""What a relation component asks of the model behind it, one schema a call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from thinc.api import Optimizer

from spacy_slmre.instances import RelationInstance
from spacy_slmre.schema import LabelSchema


@runtime_checkable
class RelationModel(Protocol):
    """What a component asks of its model, one schema a call."""

    @property
    def schema(self) -> LabelSchema | None:
        """The label set that the model was tuned on, where there is one."""

    def load(self) -> RelationModel:
        """Have the weights ready; raises where they cannot be had."""

    def set_labels(self, schema: LabelSchema) -> None:
        """Have a schema ready; raises where its labels cannot be answered."""

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Shorten contexts around their pairs; None for a pair that does not fit."""

    def log_probs(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> np.ndarray:
        """All log-probabilities: (n_instances, n_labels)."""

    def top_k(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        k: int = 1,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Columns and log-probabilities of the k best (allowed) labels: (n_instances, k) each."""

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write the model, with or without the weights that others have as well."""

    def restore(self, folder: Path, *, temporary: bool = False) -> RelationModel:
        """The model that `save` wrote."""


@runtime_checkable
class TrainableModel(RelationModel, Protocol):
    """A model that learns from labelled instances."""

    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> float:
        """Add the gradient of the mean loss of labelled instances; gives the loss."""

    def finish_update(self, optimizer: Optimizer) -> None:
        """Let the optimizer use the gradients, and clear them."""
