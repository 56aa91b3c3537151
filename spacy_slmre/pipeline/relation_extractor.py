"""The relation component of a pipeline, with any model.

Documents become candidate pairs and instances, the instances of many documents are scored together, and their labels
are written to the documents. The model only sees instances.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import srsly
from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Optimizer

from spacy_slmre.calibration import apply_temperature
from spacy_slmre.decoding import (
    DocPrediction,
    PairPrediction,
    allowed_labels,
    check_thresholds,
    make_predictions,
    passes_threshold,
    top_k,
)
from spacy_slmre.instances import DocInstances, describe_training_truncation, describe_truncation, make_doc_instances
from spacy_slmre.models.base import RelationModel, TrainableModel
from spacy_slmre.pipeline.examples import balanced_weights, gold_relations, make_training_instances, resolve_labels
from spacy_slmre.pipeline.settings import CHANGEABLE, ExtractorSettings, configured_schema
from spacy_slmre.relations import install_extensions, make_record, report_name, write_records, write_report
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import read_files, write_files


class RelationExtractor(TrainablePipe):
    """Labels pairs of entities and writes the relations to `doc._.<attr>`; see `ExtractorSettings`."""

    name: str
    model: RelationModel

    def __init__(self, vocab: Vocab, model: RelationModel, name: str, settings: ExtractorSettings) -> None:
        settings.check(name)
        install_extensions(settings.attr)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.settings = settings
        self.candidates, self.attr, self.scorer = settings.candidates, settings.attr, settings.scorer
        self.batch_size, self.max_context_tokens = settings.batch_size, settings.max_context_tokens
        self.threshold, self.label_thresholds = settings.threshold, dict(settings.label_thresholds)
        self.temperature, self.weights = settings.temperature, settings.weights
        self._schema: LabelSchema | None = None
        self._schema_was_set = False
        self._label_weights: dict[str, float] = {}
        self._sampler = np.random.default_rng(0)
        self._n_updates = 0
        self._warned: set[str] = set()
        if settings.labels is not None or not isinstance(settings.schema, str | Path | None):
            self._check_thresholds()

    # -- labels --------------------------------------------------------------------------------------------

    @property
    def schema(self) -> LabelSchema:
        """The labels. Raises ValueError if they are configured by a file that is unreadable."""
        if self._schema is None:
            self._schema = (
                configured_schema(self.settings, self.model.schema) or self.model.schema or LabelSchema.general()
            )
        return self._schema

    @property
    def has_own_labels(self) -> bool:
        """Whether labels were configured, added or learned; otherwise they are the general schema."""
        configured = self.settings.labels is not None or self.settings.schema is not None
        return configured or self._schema_was_set or self.model.schema is not None

    def set_schema(self, schema: Any) -> None:
        """Replace the labels, given a schema, a list of names, a dict or a path. Raises ValueError if it is invalid."""
        self._schema = LabelSchema.from_any(schema, self.settings.negative_label)
        self._schema_was_set = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all labels, including the negative one; empty if their file is unreadable."""
        try:
            return self.schema.names
        except ValueError:  # spaCy reads this before `from_disk`, when the configured file may be missing
            return ()

    @property
    def label_data(self) -> dict[str, Any]:
        """The labels as data for `initialize`; written by `spacy init labels`."""
        return self.schema.to_dict()

    def add_label(self, label: str) -> int:
        """Add a label, and return 1, or 0 if it exists. An encoder needs to be trained on it."""
        if not isinstance(label, str):
            raise ValueError(f"A label must be a string, not {label!r}.")
        if label in self.schema.index:
            return 0
        self.set_schema(self.schema.with_name(label))
        if isinstance(self.model, TrainableModel):
            self.model.add_labels(self.schema)
        return 1

    def load(self) -> None:
        """Load the model and prepare the labels. Raises ValueError if this fails."""
        self._check_thresholds()
        if self.model.schema is not None:
            self.schema.check_wordings(self.model.schema)
        self.model.load()
        self.model.set_labels(self.schema)

    def _check_thresholds(self) -> None:
        check_thresholds(self.name, self.threshold, self.label_thresholds, self.schema.names)

    # -- prediction ----------------------------------------------------------------------------------------

    def __call__(self, doc: Doc) -> Doc:
        """Write the relations of one document to `doc._.<attr>`."""
        self.load()
        try:
            self.set_annotations([doc], self._predict([self._make_instances(doc)]))
        except Exception as error:
            self.get_error_handler()(self.name, self, [doc], error)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotate a stream of documents, scoring the pairs of several together.

        At most `batch_size` documents are held at a time; the component's own `batch_size` counts pairs. If a document
        fails, only that document is passed to the error handler.
        """
        self.load()
        handle = self.get_error_handler()
        held: list[DocInstances] = []
        for doc in stream:
            try:
                held.append(self._make_instances(doc))
            except Exception as error:
                handle(self.name, self, [doc], error)
                continue
            if len(held) >= batch_size or sum(len(one.instances) for one in held) >= self.batch_size:
                yield from self._annotate(held, handle)
                held = []
        yield from self._annotate(held, handle)

    def _annotate(self, held: list[DocInstances], handle: Callable) -> Iterator[Doc]:
        docs = [one.doc for one in held]
        try:
            self.set_annotations(docs, self._predict(held))
        except Exception as error:
            if len(held) == 1:
                handle(self.name, self, docs, error)
                return
            # Annotate documents one by one, so that only those that fail are lost.
            for single in held:
                yield from self._annotate([single], handle)
            return
        yield from docs

    def predict(self, docs: Iterable[Doc], k: int = 1) -> list[DocPrediction]:
        """Predict the k most probable labels of each candidate pair, without changing the documents."""
        self.load()
        return self._predict([self._make_instances(doc) for doc in docs], k)

    def predict_proba(self, docs: Iterable[Doc], k: int = 1) -> list[list[PairPrediction]]:
        """Return the candidate pairs of each document with their k most probable labels."""
        return [prediction.pairs for prediction in self.predict(docs, k)]

    def set_annotations(self, docs: Sequence[Doc], predictions: Sequence[DocPrediction]) -> None:
        """Write the predicted relations that pass their threshold."""
        for doc, prediction in zip(docs, predictions, strict=True):
            best = [(pair.head, pair.tail, *pair.labels[0]) for pair in prediction.pairs if pair.labels]
            records = [make_record(doc, relation) for relation in best if self.passes_threshold(*relation[2:])]
            write_records(doc, records, self.attr)
            write_report(doc, prediction.report, self.attr)
            if warning := describe_truncation(prediction.report, report_name(self.attr)):
                self._warn_once("truncation", warning)

    def passes_threshold(self, label: str, score: float) -> bool:
        """Return whether a pair's most probable label is written as a relation."""
        return passes_threshold(label, score, self.schema.negative_label, self.threshold, self.label_thresholds)

    def _make_instances(self, doc: Doc) -> DocInstances:
        return make_doc_instances(
            doc,
            self.candidates,
            self.schema,
            lambda instances: self.model.truncate(instances, self.schema, self.max_context_tokens),
        )

    def _predict(self, docs: list[DocInstances], k: int = 1) -> list[DocPrediction]:
        instances = [instance for one in docs for instance in one.instances]
        allowed = allowed_labels(docs, self.schema)
        if self.temperature == 1.0:
            columns, log_probs = self.model.top_k(instances, self.schema, k, allowed)
        else:
            scaled = apply_temperature(self.model.log_probs(instances, self.schema), self.temperature)
            columns, log_probs = top_k(scaled, k, allowed)
        return make_predictions(docs, self.schema, columns, log_probs)

    # -- training ------------------------------------------------------------------------------------------

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained."""
        return isinstance(self.model, TrainableModel)

    @property
    def is_resizable(self) -> bool:
        """Whether labels can be added."""
        return True

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        # Built-in types only, because spaCy resolves annotations in another module.
        labels: list[str] | dict[str, object] | None = None,
    ) -> None:
        """Set the labels, and prepare the model for training.

        Labels are given by `labels` (names, or the `label_data` of a component), by the config, or by the examples, in
        this order. Raises ValueError if labels or examples are invalid.
        """
        validate_get_examples(get_examples, "RelationExtractor.initialize")
        own = self.schema if self.has_own_labels else None
        negative = own.negative_label if own else self.settings.negative_label
        if resolved := resolve_labels(labels, own, get_examples, negative, self.attr):
            self.set_schema(resolved)
        if isinstance(self.model, TrainableModel):
            training = make_training_instances(get_examples(), self.candidates, self.schema, self.attr)
            if warning := training.describe_proposed():
                self._warn_once("proposed", warning)
            if self.settings.class_weights == "balanced":
                negative = self.schema.negative_label
                self._label_weights = balanced_weights(training.instances, negative, self.settings.negative_rate)
            self.model.initialize(self.schema, training.instances)
        self.load()

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from the candidate pairs of the predicted docs, labeled by the reference docs.

        The mean loss per pair is added to `losses`. Without `sgd`, gradients accumulate until `finish_update`. Raises
        ValueError if a gold label is unknown or the loss is not finite.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "RelationExtractor.update")
        if not isinstance(self.model, TrainableModel):
            return losses
        self._n_updates += 1
        training = make_training_instances(examples, self.candidates, self.schema, self.attr)
        kept = training.sample(self.schema.negative_label, self.settings.negative_rate, self._sampler)
        fitting = self.model.truncate(kept, self.schema, self.max_context_tokens)
        if warning := describe_training_truncation(kept, fitting):
            self._warn_once("training", warning)
        if instances := [instance for instance in fitting if instance is not None]:
            weights = None
            if self._label_weights:
                weights = np.array([self._label_weights.get(instance.label or "", 1.0) for instance in instances])
            loss = self.model.update(instances, self.schema, drop=drop, weights=weights)
            if not np.isfinite(loss):
                texts = ", ".join(f'"{example.reference.text[:40]}"' for example in examples[:8])
                raise ValueError(
                    f"{self.name}: the loss of update {self._n_updates} is {loss} (documents: {texts}). Nothing was "
                    "learned from this batch. Use a lower learning rate, more warmup steps or gradient clipping "
                    "(optimizer.grad_clip), or disable mixed precision."
                )
            losses[self.name] += loss
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Update the model's parameters with the accumulated gradients."""
        if isinstance(self.model, TrainableModel):
            self.model.finish_update(sgd)

    @contextmanager
    def use_params(self, params: dict) -> Iterator[None]:
        """Do nothing: Thinc does not average the weights of torch models."""
        yield

    # -- scoring -------------------------------------------------------------------------------------------

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score predicted relations; see `spacy_slmre.scorer.score_relations`."""
        if self.scorer is None:
            return {}
        examples = list(examples)
        validate_examples(examples, "RelationExtractor.score")
        gold = {relation.label for example in examples for relation in gold_relations(example.reference, self.attr)}
        if unknown := sorted(gold - set(self.schema.names)):
            self._warn_once(
                "unknown labels",
                f"the gold data has labels that the component can never predict: {', '.join(unknown)}.",
            )
        options = {"propose": lambda doc: self.candidates(doc, self.schema).pairs, **kwargs}
        return self.scorer(examples, attr=self.attr, labels=self.labels, **options)

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(f"{self.name}: {message}", stacklevel=5)

    # -- serialization -------------------------------------------------------------------------------------

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write labels, changed settings and the model to a folder."""
        writers = {
            "cfg.json": lambda file: srsly.write_json(file, self._get_config()),
            "model": lambda folder: self.model.save(folder, embed=self.weights == "embed"),
        }
        util.to_disk(path, writers, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Read the result of `to_disk`."""
        return self._read(path, exclude)

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return labels, changed settings and the model as bytes."""
        with tempfile.TemporaryDirectory() as folder:
            self.to_disk(folder, exclude=exclude)
            return srsly.msgpack_dumps(read_files(Path(folder)))

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Read the result of `to_bytes`."""
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), srsly.msgpack_loads(bytes_data))
            return self._read(folder, exclude, temporary=True)

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> RelationExtractor:
        readers = {
            "cfg.json": lambda file: self._set_config(srsly.read_json(file), from_bytes=temporary),
            "model": lambda folder: setattr(self, "model", self.model.restore(folder, temporary=temporary)),
        }
        util.from_disk(path, readers, exclude)
        return self

    def _get_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_dict(),
            "has_own_labels": self.has_own_labels,
            "label_weights": self._label_weights,
            **{name: getattr(self, name) for name in CHANGEABLE},
            "configured": self.settings.to_dict(),
        }

    def _set_config(self, config: Mapping[str, Any], *, from_bytes: bool) -> None:
        # A config that was changed or overridden after saving takes precedence.
        before, now = config["configured"], self.settings.to_dict()
        same = {name for name in now if now[name] == before[name] or from_bytes}
        if {"labels", "schema"} <= same:
            self._schema = LabelSchema.from_dict(config["schema"])
            self._schema_was_set = config["has_own_labels"]
            self._label_weights = config["label_weights"]
        for name in same & set(CHANGEABLE):
            setattr(self, name, config[name])
        self._check_thresholds()


def get_relation_extractor(nlp: Language, name: str | None = None) -> tuple[str, RelationExtractor]:
    """Return the name and the relation component of a pipeline; `name` is required if there are several.

    Raises ValueError if there is no such component, or if `name` is missing.
    """
    components = {key: pipe for key, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor)}
    if not components:
        names = ", ".join(nlp.pipe_names) or "nothing"
        raise ValueError(f'The pipeline has no relation component, only: {names}. Add "slm_relations".')
    if name is None and len(components) > 1:
        raise ValueError(f"The pipeline has several relation components. Choose one of {', '.join(components)}.")
    name = next(iter(components)) if name is None else name
    if name not in components:
        raise ValueError(f'"{name}" is not a relation component. Use one of {", ".join(components)}.')
    return name, components[name]
