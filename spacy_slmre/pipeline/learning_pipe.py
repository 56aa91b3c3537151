"""The half of a relation component that learns: `update` and what belongs to it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from thinc.api import Optimizer

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import RelationModel, TrainableModel
from spacy_slmre.pipeline.examples import TrainingInstances, make_training_instances
from spacy_slmre.schema import LabelSchema


class LearningPipe(TrainablePipe):
    """Adds learning to `RelationExtractor`, which has the settings.

    Args:
        negative_rate: The share of negative pairs that an update learns from, another sample each time.
        class_weights: None, or "balanced": the rarer a label is in training, the more its pairs count.

    Raises:
        ValueError: A setting is out of its range.
    """

    name: str
    model: RelationModel
    schema: LabelSchema
    candidates: CandidateGenerator
    attr: str
    max_context_tokens: int

    def __init__(self, name: str, negative_rate: float, class_weights: str | None) -> None:
        if not 0.0 <= negative_rate <= 1.0:
            raise ValueError(f"{name}.negative_rate = {negative_rate}, but it is a share (0 to 1).")
        if class_weights not in (None, "balanced"):
            raise ValueError(f'{name}.class_weights = "{class_weights}": use "balanced", or null for none.')
        self.name = name
        self.negative_rate = negative_rate
        self.class_weights = class_weights
        self._label_weights: dict[str, float] = {}
        self._sampler = np.random.default_rng(0)
        self._updates = 0
        self._warned: set[str] = set()

    @property
    def is_trainable(self) -> bool:
        """Whether the model learns from `update`."""
        return isinstance(self.model, TrainableModel)

    @property
    def is_resizable(self) -> bool:
        """Labels can be added at any time."""
        return True

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch: the pairs that the candidate generator proposes, as the reference labels them.

        Args:
            examples: Gold documents; the predicted side has the entities.
            drop: Dropout.
            sgd: The optimizer; without one, gradients add up until `finish_update`.
            losses: The mean loss of a pair is added under the component's name.

        Raises:
            ValueError: A gold label is unknown, or the loss is not finite.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        if not isinstance(self.model, TrainableModel):
            return losses
        self._updates += 1
        labelled = make_training_instances(examples, self.candidates, self.schema, self.attr)
        instances = self._fitting(self._sampled(labelled.instances))
        if instances:
            weights = self._instance_weights(instances)
            loss = self.model.update(instances, self.schema, drop=drop, weights=weights)
            if not np.isfinite(loss):
                names = ", ".join(_name_of(example.reference) for example in examples[:8])
                raise ValueError(
                    f"{self.name}: the loss of update {self._updates} is {loss} (documents: {names}). "
                    "Nothing was learnt from this batch. Lower the learning rate, warm it up for longer, "
                    "or clip gradients (optimizer.grad_clip); with mixed precision, try without."
                )
            losses[self.name] += loss
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Change the model's parameters by their gradients."""
        if isinstance(self.model, TrainableModel):
            self.model.finish_update(sgd)

    @contextmanager
    def use_params(self, params: dict) -> Iterator[None]:
        """Does nothing: Thinc keeps no averages of the weights of torch."""
        yield

    def _sampled(self, instances: list[RelationInstance]) -> list[RelationInstance]:
        if self.negative_rate == 1.0:
            return instances
        kept = self._sampler.random(len(instances)) < self.negative_rate
        negative = self.schema.negative_label
        return [one for one, keep in zip(instances, kept, strict=True) if keep or one.label != negative]

    def _fitting(self, instances: list[RelationInstance]) -> list[RelationInstance]:
        fitting = self.model.truncate(instances, self.schema, self.max_context_tokens)
        kept = [instance for instance in fitting if instance is not None]
        if changed := sum(one is not whole for one, whole in zip(fitting, instances, strict=True)):
            self._warn_once(
                "training",
                f"{changed} of the {len(instances)} training pairs of a batch stand in contexts that are "
                "too long (max_context_tokens, or the model's own limit): "
                f"{len(kept) - len(instances) + changed} were shortened around their arguments, "
                f"{len(instances) - len(kept)} left out, since these stand too far apart.",
            )
        return kept

    def _instance_weights(self, instances: Sequence[RelationInstance]) -> np.ndarray | None:
        if not self._label_weights:
            return None
        return np.array([self._label_weights.get(instance.label or "", 1.0) for instance in instances])

    def _begin(self, get_examples: Callable[[], Iterable[Example]]) -> None:
        """Take from the examples what training needs to know."""
        if self.class_weights == "balanced":
            self._balance(make_training_instances(get_examples(), self.candidates, self.schema, self.attr))

    def _balance(self, labelled: TrainingInstances) -> None:
        found = Counter(instance.label or "" for instance in labelled.instances)
        counts: dict[str, float] = dict(found)
        if (negative := self.schema.negative_label) in counts:
            counts[negative] *= self.negative_rate  # as many as updates see of them
        self._label_weights = balanced_weights(counts)

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(f"{self.name}: {message}", stacklevel=5)


def balanced_weights(counts: Mapping[str, float]) -> dict[str, float]:
    """A weight for each label with which all labels count the same; their mean over the pairs is 1.

    Args:
        counts: How many pairs of each label there are.
    """
    total = sum(counts.values())
    return {label: total / (len(counts) * count) for label, count in counts.items() if count}


def _name_of(doc: Doc) -> str:
    """What a message calls a document."""
    return str(doc.user_data.get("slmre.id") or f'"{doc.text[:40]}"')
