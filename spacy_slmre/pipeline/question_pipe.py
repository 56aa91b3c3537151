"""The base class of components that ask a model about spans of documents."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from spacy import util
from spacy.pipeline import Pipe
from spacy.tokens import Doc

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.batches import annotate_batch
from spacy_slmre.pipeline.saving import SavedAsFolder
from spacy_slmre.schema import LabelSchema

Answer = TypeVar("Answer")


class QuestionPipe(SavedAsFolder, Pipe, Generic[Answer]):
    """A component whose answers come from a relation model. Subclasses define `predict` and `set_annotations`.

    Args:
        model: Scores the labels.
        name: Name of the component.
        batch_size: Number of instances that are scored together, across documents.
        max_context_tokens: Longer contexts are truncated; counted in the model's tokens.
    """

    def __init__(self, model: RelationModel, name: str, batch_size: int, max_context_tokens: int) -> None:
        self.model = model
        self.name = name
        self.batch_size = batch_size
        self.max_context_tokens = max_context_tokens
        self._warned: set[str] = set()
        self._checked: tuple[RelationModel, str] | None = None

    def load(self) -> None:
        """Load the model. Raises ModelError if this fails."""
        self.model.load()

    def __call__(self, doc: Doc) -> Doc:
        """Annotate one document."""
        self.load()
        try:
            self.set_annotations([doc], self.predict([doc]))
        except Exception as error:
            self.get_error_handler()(self.name, self, [doc], error)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 32) -> Iterator[Doc]:
        """Annotate a stream of documents, scoring the instances of several documents together."""
        self.load()
        handle = self.get_error_handler()

        def annotate(docs: Sequence[Doc]) -> Sequence[Doc]:
            self.set_annotations(docs, self.predict(docs))
            return docs

        for docs in util.minibatch(stream, batch_size):
            yield from annotate_batch(docs, annotate, lambda doc, error: handle(self.name, self, [doc], error))

    def predict(self, docs: Iterable[Doc]) -> list[Answer]:
        """Return the answers for each document, without changing it."""
        raise NotImplementedError

    def set_annotations(self, docs: Sequence[Doc], answers: Sequence[Answer]) -> None:
        """Write the answers."""
        raise NotImplementedError

    def _score(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> np.ndarray:
        """Return the probabilities of labels, (n_instances, n_labels); rows of instances that do not fit are 0.

        Raises ModelError if the model cannot be loaded or used.
        """
        self.load()
        self.model.set_labels(schema)
        if self._checked != (self.model, schema.fingerprint):
            self.model.check(schema)
            self._checked = (self.model, schema.fingerprint)
        fitting = self.model.truncate(instances, schema, self.max_context_tokens)
        rows = [row for row, instance in enumerate(fitting) if instance is not None]
        if skipped := len(instances) - len(rows):
            self._warn_once(
                "length",
                f"{skipped} spans or pairs are too long (max_context_tokens, or the model's own limit), so the model "
                "was not asked about them; this warning is shown only once.",
            )
        probs = np.zeros((len(instances), len(schema.labels)))
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            chosen = [instance for row in batch if (instance := fitting[row]) is not None]
            probs[batch] = np.exp(self.model.log_probs(chosen, schema))
        return probs

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(f"{self.name}: {message}", stacklevel=5)

    # -- serialization -------------------------------------------------------------------------------------

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the component."""
        util.to_disk(path, {"model": lambda folder: self.model.save(folder, embed=False), **self._writers()}, exclude)

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> Self:
        def restore(folder: Path) -> None:
            self.model = self.model.restore(folder, temporary=temporary)

        util.from_disk(path, {"model": restore, **self._readers()}, exclude)
        return self

    def _writers(self) -> dict[str, Any]:
        return {}

    def _readers(self) -> dict[str, Any]:
        return {}
