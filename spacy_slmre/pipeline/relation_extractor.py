"""The relation component of a pipeline, for any model.

Documents become candidate pairs and instances, the instances of many documents are scored together, and their labels
are written to the documents. The model only sees instances.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import srsly
from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Optimizer

from spacy_slmre.candidates import Candidates, GivenPairs
from spacy_slmre.decoding import Decoding, DocPrediction, PairPrediction, check_thresholds
from spacy_slmre.gold import gold_pairs
from spacy_slmre.instances import DocInstances, describe_training_truncation, make_doc_instances
from spacy_slmre.models.base import RelationModel, TrainableModel
from spacy_slmre.pipeline.batches import annotate_batch
from spacy_slmre.pipeline.examples import (
    TrainingInstances,
    balanced_weights,
    describe_missing_negatives,
    make_training_instances,
    resolve_labels,
)
from spacy_slmre.pipeline.prediction import predict_docs
from spacy_slmre.pipeline.problems import find_problems
from spacy_slmre.pipeline.saving import SavedAsFolder
from spacy_slmre.pipeline.settings import (
    CHANGEABLE,
    LABEL_SETTINGS,
    ExtractorSettings,
    configured_schema,
    with_known_wordings,
)
from spacy_slmre.relations import (
    CANDIDATES,
    install_extensions,
    make_record,
    own_labels,
    user_data_key,
    write_label_properties,
    write_records,
    write_report,
)
from spacy_slmre.schema import LabelSchema, is_file_reference
from spacy_slmre.util.json_files import check_fields, read_record
from spacy_slmre.util.settings import check_positive

MAX_DOC_SCHEMAS = 256  # label sets of documents that are kept


class RelationExtractor(SavedAsFolder, TrainablePipe):
    """Labels pairs of entities and writes the relations to `doc._.<attr>`; see `ExtractorSettings`."""

    def __init__(self, vocab: Vocab, model: RelationModel, name: str, settings: ExtractorSettings) -> None:
        settings.check(name)
        install_extensions(settings.attr)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.settings = settings
        self.candidates, self.attr, self.scorer = settings.candidates, settings.attr, settings.scorer
        self.use_gold_pairs = settings.use_gold_pairs
        self.batch_size, self.max_context_tokens = settings.batch_size, settings.max_context_tokens
        self.threshold: float | str | None = settings.threshold
        self.label_thresholds = dict(settings.label_thresholds)
        self.temperature, self.weights = settings.temperature, settings.weights
        self._schema: LabelSchema | None = None
        self._schema_was_set = False
        self._doc_schemas: dict[str, LabelSchema] = {}
        self._label_weights: dict[str, float] = {}
        self._sampler = np.random.default_rng(0)
        self._n_updates = 0
        self._warned: set[str] = set()
        self._checked_model: RelationModel | None = None
        self._checked: set[str] = set()
        self._has_scored = False
        if settings.labels is not None or not (settings.schema is None or is_file_reference(settings.schema)):
            self._check_thresholds()

    # -- labels --------------------------------------------------------------------------------------------

    @property
    def schema(self) -> LabelSchema:
        """The labels. Raises ValueError if they are configured as a file that cannot be read."""
        if self._schema is None:
            schema = configured_schema(self.settings, self.model.schema) or self.model.schema or LabelSchema.general()
            self._schema = schema.extend_types(self.settings.type_map)
        return self._schema

    @property
    def has_own_labels(self) -> bool:
        """Whether labels were configured, added or learned; otherwise they are the general schema."""
        configured = self.settings.labels is not None or self.settings.schema is not None
        return configured or self._schema_was_set or self.model.schema is not None

    def set_schema(self, schema: Any) -> None:
        """Replace the labels, given a schema, a list of names, a dict or a path. Raises ValueError if it is invalid."""
        schema = LabelSchema.from_any(schema, self.settings.negative_label)
        self._schema = schema.extend_types(self.settings.type_map)
        self._schema_was_set = True
        self._doc_schemas.clear()

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
        self._set_labels(self.schema)

    def _set_labels(self, schema: LabelSchema) -> None:
        """Prepare the model for labels, and check it once for each label set."""
        if self._checked_model is not self.model:
            self._checked_model, self._checked = self.model, set()
        self.model.set_labels(schema)
        if schema.fingerprint not in self._checked:
            self.model.check(schema)
            self._checked.add(schema.fingerprint)

    def _check_thresholds(self) -> None:
        check_thresholds(self.name, self.threshold, self.label_thresholds, self.schema.names)
        check_positive(self, self.name, names=["temperature"])

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
        """Annotate a stream of documents, scoring the pairs of several documents together.

        At most `batch_size` documents are held at a time; the component's own `batch_size` counts pairs. If a document
        fails, only that document is passed to the error handler.
        """
        self.load()
        handle = self.get_error_handler()
        held: list[DocInstances] = []

        def annotate(batch: Sequence[DocInstances]) -> list[Doc]:
            docs = [one.doc for one in batch]
            self.set_annotations(docs, self._predict(batch))
            return docs

        def annotate_held() -> Iterator[Doc]:
            return annotate_batch(held, annotate, lambda one, error: handle(self.name, self, [one.doc], error))

        for doc in stream:
            try:
                held.append(self._make_instances(doc))
            except Exception as error:
                handle(self.name, self, [doc], error)
                continue
            if len(held) >= batch_size or sum(len(one.instances) for one in held) >= self.batch_size:
                yield from annotate_held()
                held = []
        if held:
            yield from annotate_held()

    def predict(self, docs: Iterable[Doc], k: int = 1) -> list[DocPrediction]:
        """Predict the k most probable labels of each candidate pair, without changing the documents.

        Raises TypeError if a single document is given.
        """
        if isinstance(docs, Doc):
            raise TypeError("A list of documents is needed, also for one: [doc].")
        self.load()
        return self._predict([self._make_instances(doc) for doc in docs], k)

    def predict_proba(self, docs: Iterable[Doc], k: int = 1) -> list[list[PairPrediction]]:
        """Return the candidate pairs of each document with their k most probable labels."""
        return [prediction.pairs for prediction in self.predict(docs, k)]

    def set_annotations(self, docs: Sequence[Doc], predictions: Sequence[DocPrediction]) -> None:
        """Write the predicted relations."""
        for doc, prediction in zip(docs, predictions, strict=True):
            write_records(doc, [make_record(doc, relation) for relation in prediction.relations], self.attr)
            schema = prediction.schema
            write_label_properties(doc, schema.inverse_of, schema.iris, schema.limits, self.attr)
            write_report(doc, prediction.report, self.attr)

    @property
    def decoding(self) -> Decoding:
        """The rules by which labels are written as relations. Raises ValueError if a threshold is invalid."""
        check_thresholds(self.name, self.threshold, self.label_thresholds)
        threshold = self.model.default_threshold if isinstance(self.threshold, str) else self.threshold
        return Decoding(threshold, self.label_thresholds, self.settings.max_labels_per_pair)

    @contextmanager
    def use_threshold(self, threshold: float | None) -> Iterator[None]:
        """Replace all thresholds for a while; None keeps them. Raises ValueError if it is not a probability."""
        check_thresholds(self.name, threshold, {})
        saved = self.threshold, self.label_thresholds
        if threshold is not None:
            self.threshold, self.label_thresholds = threshold, {}
        try:
            yield
        finally:
            self.threshold, self.label_thresholds = saved

    def _make_instances(self, doc: Doc) -> DocInstances:
        schema = self._schema_of(doc)
        return make_doc_instances(
            doc, self.propose, schema, lambda instances: self.model.truncate(instances, schema, self.max_context_tokens)
        )

    def propose(self, doc: Doc, schema: LabelSchema | None = None) -> Candidates:
        """Return the candidate pairs of a document."""
        if self.use_gold_pairs and user_data_key(CANDIDATES) in doc.user_data:
            return GivenPairs()(doc, schema)
        return self.candidates(doc, schema or self.schema)

    def _schema_of(self, doc: Doc) -> LabelSchema:
        """Return the labels of a document: its own if it has any, otherwise the component's."""
        labels = own_labels(doc)
        return self.schema if labels is None else self.make_schema(labels)

    def make_schema(self, labels: Any) -> LabelSchema:
        """Return the schema of labels that are given for a document, and prepare the model for them.

        Raises:
            ValueError: The labels are wrong, or the model cannot predict them.
            TypeError: The labels have another type.
        """
        key = labels.fingerprint if isinstance(labels, LabelSchema) else json.dumps(labels, default=str)
        if key not in self._doc_schemas:
            negative = self.schema.negative_label if self.has_own_labels else self.settings.negative_label
            schema = LabelSchema.from_any(labels, negative)
            if self.has_own_labels:
                schema = with_known_wordings(schema, self.schema, types=True)
            schema = schema.extend_types(self.settings.type_map)
            self._set_labels(schema)
            if len(self._doc_schemas) >= MAX_DOC_SCHEMAS:
                self._doc_schemas.clear()
                self._checked.clear()
            self._doc_schemas[key] = schema
        return self._doc_schemas[key]

    def _predict(self, docs: Sequence[DocInstances], k: int = 1) -> list[DocPrediction]:
        predictions = predict_docs(self.model, docs, self.decoding, temperature=self.temperature, k=k)
        for one, prediction in zip(docs, predictions, strict=True):
            self._warn_problems(one.doc, prediction)
        return predictions

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
            training = self.make_training_instances(get_examples())
            # `negative` is the expected label; if it does not occur, the schema has no negative label.
            if negative and (warning := describe_missing_negatives(training.instances, self.schema.negative_label)):
                self._warn_once("negatives", warning)
            self._label_weights = {}
            if self.settings.class_weights == "balanced":
                negative = self.schema.negative_label
                self._label_weights = balanced_weights(training.instances, negative, self.settings.negative_rate)
            self.model.initialize(self.schema, training.instances)
        self.load()

    def make_training_instances(self, examples: Iterable[Example]) -> TrainingInstances:
        """Label the pairs of predicted docs from the reference docs. Raises ValueError if a gold label is unknown."""
        training = make_training_instances(
            examples, self.candidates, self.schema, self.attr, use_gold_pairs=self.use_gold_pairs
        )
        for topic, warning in (
            ("proposed", training.describe_proposed()),
            ("unannotated", training.describe_unannotated()),
        ):
            if warning:
                self._warn_once(topic, warning)
        return training

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
            self._warn_once(
                "untrainable",
                f"its model ({type(self.model).__name__}) cannot be trained in a pipeline and stays as it is. Tune it "
                "with `python -m spacy slmre tune`, or freeze the component.",
            )
            return losses
        self._n_updates += 1
        training = self.make_training_instances(examples)
        kept = training.sample(self.schema.negative_label, self.settings.negative_rate, self._sampler)
        fitting = self.model.truncate(kept, self.schema, self.max_context_tokens)
        if warning := describe_training_truncation(kept, fitting, "max_context_tokens"):
            self._warn_once("training", f"in a training batch, {warning}")
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
        annotated = (gold_pairs(example.reference, self.attr) for example in examples)
        if unknown := sorted({label for one in annotated for label in one.unknown_labels(self.schema)}):
            self._warn_once(
                "unknown labels",
                f"the gold data has labels that the component can never predict: {', '.join(unknown)}.",
            )
        options = {"propose": lambda doc: self.propose(doc).pairs, **kwargs}
        options |= {"labels": self.labels, "negative_label": self.schema.negative_label}
        options |= {"inverse_of": self.schema.inverse_of, "mirrors": self.schema.mirrors}
        scores = self.scorer(examples, attr=self.attr, **options)
        if scores.get("rel_candidate_recall") == 0.0:
            self._warn_once(
                "recall",
                "the component proposes none of the annotated pairs, so all scores are 0. `spacy evaluate` starts from "
                "the text: the pipeline must find the entities itself. To score the annotated pairs, use `python -m "
                "spacy slmre evaluate`.",
            )
        return scores

    # -- serialization -------------------------------------------------------------------------------------

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write labels, changed settings and the model to a folder."""
        writers = {
            "cfg.json": lambda file: srsly.write_json(file, self._get_config()),
            "model": lambda folder: self.model.save(folder, embed=self.weights == "embed"),
        }
        util.to_disk(path, writers, exclude)

    def _read(self, path: str | Path, exclude: Iterable[str], *, temporary: bool = False) -> Self:
        readers = {
            "cfg.json": lambda file: read_record(file, lambda data: self._set_config(data, from_bytes=temporary)),
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
        check_fields(config, configured=dict, schema=dict, has_own_labels=bool, label_weights=dict)
        check_fields(config["label_weights"], **dict.fromkeys(config["label_weights"], (float, int)))
        before, now = config["configured"], self.settings.to_dict()
        same = {name for name in now if now[name] == before[name] or from_bytes}
        if set(LABEL_SETTINGS) <= same:
            self._schema = LabelSchema.from_dict(config["schema"]).extend_types(self.settings.type_map)
            self._schema_was_set = config["has_own_labels"]
            self._doc_schemas.clear()
            self._label_weights = config["label_weights"] if self.settings.class_weights else {}
        saved = {name: config[name] for name in same & set(CHANGEABLE)}
        replace(self.settings, **saved).check(self.name)
        for name, value in saved.items():
            setattr(self, name, value)
        self._check_thresholds()

    def _warn_problems(self, doc: Doc, prediction: DocPrediction) -> None:
        for topic, message in find_problems(doc, self.candidates, prediction.schema, prediction.report, self.attr):
            # If other documents have pairs, it is normal that one has only entities of other types.
            if topic != "types" or not self._has_scored:
                self._warn_once(topic, message)
        self._has_scored |= prediction.report["scored"] > 0

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(f"{self.name}: {message}", stacklevel=5)
