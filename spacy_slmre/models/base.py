"""The base classes of relation models, and their common error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from thinc.api import Optimizer

from spacy_slmre.decoding import top_k
from spacy_slmre.instances import RelationInstance, invented_instance
from spacy_slmre.schema import LabelSchema


class ModelError(ValueError):
    """A model cannot be used; the message names the setting and the remedy."""


@dataclass(frozen=True)
class ModelInfo:
    """What reports say about a model.

    Attributes:
        kind: "slm", "encoder" or "cascade".
        name: Name of the base model.
        n_parameters: Number of parameters.
        device: Where it computes.
    """

    kind: str
    name: str
    n_parameters: int
    device: torch.device


class RelationModel(ABC):
    """Labels relation instances. The schema is passed to each call, so a model can serve several label sets."""

    @property
    @abstractmethod
    def schema(self) -> LabelSchema | None:
        """The label set that the model was tuned on; None unless it was tuned on exactly one."""

    @property
    def default_threshold(self) -> float | None:
        """The minimum probability of a relation that was best on development data; None for the most probable label.

        Training makes it None, because it belongs to the weights before.
        """
        return None

    @abstractmethod
    def load(self) -> Self:
        """Load the weights. Raises ModelError if they are unavailable."""

    @abstractmethod
    def set_labels(self, schema: LabelSchema) -> None:
        """Prepare for the labels of a schema. Raises ModelError if the model does not support them."""

    @abstractmethod
    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Truncate long contexts around their pairs; return None for pairs whose arguments are too far apart."""

    @abstractmethod
    def log_probs(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        allowed: np.ndarray | None = None,
        *,
        k: int | None = None,
        min_prob: float = 0.0,
    ) -> np.ndarray:
        """Return log-probabilities of labels, float64 (n_instances, n_labels), normalized over the allowed labels.

        Args:
            instances: Instances whose contexts fit the model (see `truncate`).
            schema: The labels.
            allowed: Labels to choose from, bool (n_instances, n_labels); others are -inf.
            k: Only the k most probable labels of each instance are needed; others may be -inf.
            min_prob: With k, beyond the most probable label, only those with at least this probability are needed.
        """

    def top_k(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, k: int = 1, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k most probable labels; see `log_probs` and `spacy_slmre.decoding.top_k`."""
        return top_k(self.log_probs(instances, schema, allowed, k=max(k, 1)), k)

    def check(self, schema: LabelSchema) -> None:
        """Score an invented pair, so that a fault of the model or of its prompts shows before the first document.

        Raises:
            ModelError: The pair cannot be scored, or a probability is not a number.
        """
        try:
            scores = self.log_probs([invented_instance()], schema)
        except ModelError:
            raise
        except Exception as error:  # whatever a library raises for weights or tokens that do not fit
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ModelError(f"The model cannot score a pair: {kind}{error}") from error
        if np.isnan(scores).any() or not np.isclose(np.exp(scores).sum(), 1.0, atol=1e-2):
            raise ModelError(
                "The model computes probabilities that are not numbers: its weights are damaged, or too large for "
                "model.dtype. Copy the model or the adapter again, or set model.dtype to float32."
            )

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """What reports say about the model, which is loaded. Raises ModelError if it is unavailable."""

    @abstractmethod
    def count_tokens(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> int:
        """Count the tokens of instances as if each was read alone; 0 if they are only known after scoring."""

    @abstractmethod
    def describe_files(self) -> Any:
        """Describe the content of all files that the settings name, as data for JSON.

        Models that were not trained after loading, and have the same settings and description, predict the same.
        Raises ModelError if a file is missing.
        """

    @abstractmethod
    def save(self, folder: Path, *, embed: bool) -> None:
        """Save the model; `embed` includes weights that are available elsewhere."""

    @abstractmethod
    def restore(self, folder: Path, *, temporary: bool = False) -> RelationModel:
        """Return the model that `save` wrote, with this model's run-time settings (device, dtype, …).

        With `temporary`, the folder may be deleted afterwards.
        """


class TrainableModel(RelationModel):
    """A model that learns from labeled instances."""

    @abstractmethod
    def initialize(self, schema: LabelSchema, instances: Sequence[RelationInstance]) -> None:
        """Prepare for training on these labels; the instances are a sample of the training data."""

    @abstractmethod
    def add_labels(self, schema: LabelSchema) -> None:
        """Extend a trained model to new labels of the schema."""

    @abstractmethod
    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> float:
        """Accumulate the gradients of the mean loss over labeled instances, and return the loss.

        If the loss is not finite, all gradients are cleared.

        Args:
            instances: Labeled instances whose contexts fit the model.
            schema: Their labels.
            drop: Dropout rate.
            weights: Weight of each instance, (n_instances,); the weighted losses are divided by n_instances.

        Raises:
            ValueError: An instance has no label, or one outside the schema.
        """

    @abstractmethod
    def finish_update(self, optimizer: Optimizer) -> None:
        """Update the parameters with the accumulated gradients, and clear these."""
