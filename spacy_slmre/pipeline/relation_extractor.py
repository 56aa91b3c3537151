"""What every relation component does, whatever model labels its pairs.

Documents become candidate pairs and instances, instances of many documents are labelled together, and the
labels become records on the documents. The model behind it sees instances only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import srsly
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab

from spacy_slmre.calibration import apply_temperature
from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.doc_instances import DocInstances, describe_truncation, make_doc_instances
from spacy_slmre.pipeline.examples import gold_labels, resolve_labels
from spacy_slmre.pipeline.learning_pipe import LearningPipe
from spacy_slmre.relations import (
    RELATIONS,
    Record,
    install_extensions,
    make_record,
    report_name,
    write_records,
    write_report,
)
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, UnreadSchema
from spacy_slmre.util.io import read_files, write_files


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """A candidate pair and what the model says of it.

    Attributes:
        head: The head.
        tail: The tail.
        labels: The most probable labels, negative one included, with their probabilities, best first.
        shortened: Whether the model saw a part of the context only.
    """

    head: Span
    tail: Span
    labels: tuple[tuple[str, float], ...]
    shortened: bool


class RelationExtractor(LearningPipe):
    """Base of the relation components.

    Args:
        vocab: The pipeline's vocabulary.
        model: What labels the instances.
        name: The component's name in the pipeline.
        schema: The labels; None takes the model's own, else the general schema.
        negative_label: What the negative label is called where labels are taken from training data.
        candidates: Proposes the pairs.
        threshold: A relation is written if its probability is at least this; 0 writes every pair whose
            most probable label is not the negative one.
        label_thresholds: Thresholds of single labels, in place of `threshold`.
        temperature: Probabilities are taken at this temperature, see `spacy_slmre.calibration`; any other
            than 1 has the model compute all labels of a pair.
        negative_rate: The share of negative pairs that an update learns from, another sample each time.
        class_weights: None, or "balanced": the rarer a label is in training, the more its pairs count.
        batch_size: Instances that are labelled together, across documents.
        max_context_tokens: Longer contexts are shortened around their pair, counted in the model's tokens.
        attr: Relations are written to `doc._.<attr>`.
        weights: What saving does with weights that others have too: "reference" or "embed".
        scorer: Scores predicted documents.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: RelationModel,
        name: str,
        *,
        schema: LabelSchema | UnreadSchema | None,
        negative_label: str | None = NEGATIVE_LABEL,
        candidates: CandidateGenerator,
        threshold: float = 0.0,
        label_thresholds: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        negative_rate: float = 1.0,
        class_weights: str | None = None,
        batch_size: int = 128,
        max_context_tokens: int = 512,
        attr: str = RELATIONS,
        weights: str = "reference",
        scorer: Callable | None = None,
    ) -> None:
        for setting, value in (("batch_size", batch_size), ("max_context_tokens", max_context_tokens)):
            if value < 1:
                raise ValueError(f"{name}.{setting} = {value}, but it must be at least 1.")
        if temperature <= 0:
            raise ValueError(f"{name}.temperature = {temperature}, but it must be above 0.")
        if weights not in ("reference", "embed"):
            raise ValueError(f'{name}.weights = "{weights}": use "reference" or "embed".')
        super().__init__(name, negative_rate, class_weights)
        install_extensions(attr)
        self.vocab = vocab
        self.model = model
        self.candidates = candidates
        self.batch_size = batch_size
        self.max_context_tokens = max_context_tokens
        self.attr = attr
        self.weights = weights
        self.scorer = scorer
        self.problem = schema.error if isinstance(schema, UnreadSchema) else None
        given = schema if isinstance(schema, LabelSchema) else None
        self.negative_label = negative_label
        self.schema_given = schema is not None or model.schema is not None
        self.schema = given or model.schema or LabelSchema.general()
        self.threshold = threshold
        self.label_thresholds = dict(label_thresholds or {})
        self.temperature = temperature
        if self.problem is None:
            self._check_thresholds()
        # What the config itself says: the model's own labels may come from files that will not stay.
        self._configured = {**self._state(), "schema": given.to_dict() if given else None}

    # -- labels ------------------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all labels, the negative one included."""
        return self.schema.names

    @property
    def label_data(self) -> dict[str, Any]:
        """What `initialize` needs to have the same labels again (`spacy init labels` writes it)."""
        return self.schema.to_dict()

    def add_label(self, label: str) -> int:
        """Add a relation, worded after its name.

        Returns:
            1, or 0 where the label is there already.
        """
        if not isinstance(label, str):
            raise ValueError(f"A label is a string, not {label!r}.")
        if label in self.schema.index:
            return 0
        self.schema = self.schema.with_name(label)
        self.schema_given = True
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        # Built-in names only: spaCy resolves the annotation in another module to check [initialize].
        labels: list[str] | dict[str, object] | None = None,
    ) -> None:
        """Settle the labels, and have the model ready to annotate or to learn.

        Args:
            get_examples: Gold documents; where no labels were configured, theirs are taken.
            nlp: The pipeline.
            labels: Names, or what `label_data` gave; they replace those that were configured.

        Raises:
            ValueError: The labels or the examples are not what the component can work with.
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        negative = self.schema.negative_label if self.schema_given else self.negative_label
        given = self.schema if self.schema_given else None
        self.schema = resolve_labels(labels, given, get_examples, negative, self.attr) or self.schema
        self.problem = None if labels is not None else self.problem
        self._check_thresholds()
        self._begin(get_examples)
        self.ready()

    def ready(self) -> None:
        """Have model and labels ready now rather than at the first document.

        Raises:
            ValueError: They cannot be had, or do not fit each other.
        """
        if self.problem is not None:
            raise self.problem
        self._check_schema()
        self.model.load()
        self.model.set_labels(self.schema)

    def _check_schema(self) -> None:
        """Refuse labels that are worded otherwise than the model was tuned with."""
        tuned = self.model.schema
        for label in tuned.labels if tuned is not None else ():
            column = self.schema.index.get(label.name)
            wording = label.wording if column is None else self.schema.labels[column].wording
            if wording != label.wording:
                raise ValueError(
                    f'{self.name}: the label "{label.name}" is worded "{wording}" in the schema, but the '
                    f'model was tuned with "{label.wording}". Use its wording, give the label another name, '
                    "or take a model without that tuning (for a language model: model.adapter = null)."
                )

    # -- annotation --------------------------------------------------------------------------------

    def __call__(self, doc: Doc) -> Doc:
        """Write the relations of one document to `doc._.<attr>`."""
        self.ready()
        try:
            self._annotate([self._ask(doc)])
        except Exception as error:
            self.get_error_handler()(self.name, self, [doc], error)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotate a stream; instances of several documents are labelled together.

        A document that fails goes to the error handler alone.

        Args:
            stream: Documents.
            batch_size: Most documents held back at a time; how many instances are labelled together is the
                component's own `batch_size`.
        """
        self.ready()
        handle = self.get_error_handler()
        held: list[DocInstances] = []
        instances = 0
        for doc in stream:
            try:
                held.append(self._ask(doc))
            except Exception as error:
                handle(self.name, self, [doc], error)
                continue
            instances += len(held[-1].instances)
            if len(held) >= batch_size or instances >= self.batch_size:
                yield from self._annotated(held, handle)
                held, instances = [], 0
        yield from self._annotated(held, handle)

    def _annotated(self, held: list[DocInstances], handle: Callable) -> Iterator[Doc]:
        try:
            self._annotate(held)
        except Exception as error:
            if len(held) == 1:
                handle(self.name, self, [held[0].doc], error)
                return
            # One of them fails: each is tried alone, so that the others keep their relations.
            for asked in held:
                yield from self._annotated([asked], handle)
            return
        yield from (asked.doc for asked in held)

    def _ask(self, doc: Doc) -> DocInstances:
        """The instances of a document, and the report of what is left out."""
        return make_doc_instances(
            doc,
            self.candidates,
            self.schema,
            lambda instances: self.model.truncate(instances, self.schema, self.max_context_tokens),
        )

    def _annotate(self, asked: Sequence[DocInstances]) -> None:
        """Label all instances together and write the records; no document is written if one fails."""
        columns, log_probs = self._best(asked)
        start = 0
        results = []
        for one in asked:
            rows = range(start, start + len(one.pairs))
            start = rows.stop
            found = (
                self._decide(one.doc, pair, int(columns[row, 0]), float(log_probs[row, 0]))
                for pair, row in zip(one.pairs, rows, strict=True)
            )
            results.append([record for record in found if record is not None])
        for one, records in zip(asked, results, strict=True):
            write_records(one.doc, records, self.attr)
            write_report(one.doc, one.report, self.attr)
            self._warn(one.report)

    def predict_proba(self, docs: Iterable[Doc], k: int = 1) -> list[list[PairPrediction]]:
        """What the model says of each candidate pair, for one who wants more than the relations.

        Args:
            docs: Documents, which stay as they are.
            k: How many labels of each pair.

        Returns:
            For each document its pairs; those that the model cannot read in full length or shortened are
            not among them.
        """
        self.ready()
        asked = [self._ask(doc) for doc in docs]
        columns, log_probs = self._best(asked, k)
        ranked, row = [], 0
        for one in asked:
            pairs = []
            for (head, tail), shortened in zip(one.pairs, one.shortened, strict=True):
                labels = zip(columns[row].tolist(), np.exp(log_probs[row]).tolist(), strict=True)
                named = tuple((self.schema.names[column], score) for column, score in labels if score > 0)
                pairs.append(PairPrediction(head, tail, named, shortened))
                row += 1
            ranked.append(pairs)
        return ranked

    def passes_threshold(self, label: str, score: float) -> bool:
        """Whether a pair's most probable label is written as a relation."""
        return label != self.schema.negative_label and score >= self.label_thresholds.get(
            label, self.threshold
        )

    def _best(self, asked: Sequence[DocInstances], k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The most probable (allowed) labels of each instance: columns and log-probabilities, (n, k) each."""
        instances = [instance for one in asked for instance in one.instances]
        allowed = self._allowed(asked)
        k = min(k, len(self.schema.labels))
        if self.temperature == 1.0:
            return self.model.top_k(instances, self.schema, k, allowed)
        log_probs = apply_temperature(self.model.log_probs(instances, self.schema), self.temperature)
        if allowed is not None:
            log_probs = np.where(allowed, log_probs, -np.inf)
        columns = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        return columns, np.take_along_axis(log_probs, columns, axis=1)

    def _allowed(self, asked: Sequence[DocInstances]) -> np.ndarray | None:
        """Which labels the types of each instance allow: bool (n_instances, n_labels); None allows all."""
        if not any(label.types for label in self.schema.labels):
            return None
        everything = np.ones(len(self.schema.labels), dtype=bool)
        rows = [
            self.schema.allowed(instance.head_mention.type, instance.tail_mention.type)
            if one.typed
            else everything
            for one in asked
            for instance in one.instances
        ]
        return np.stack(rows) if rows else None

    def _decide(self, doc: Doc, pair: tuple[Span, Span], column: int, log_prob: float) -> Record | None:
        label, score = self.schema.names[column], float(np.exp(log_prob))
        if log_prob == -np.inf or not self.passes_threshold(label, score):  # -inf: the types allow no label
            return None
        return make_record(doc, (*pair, label, score))

    def _warn(self, report: Mapping[str, Any]) -> None:
        if cuts := describe_truncation(report, report_name(self.attr)):
            self._warn_once("cut", cuts)

    # -- scoring -----------------------------------------------------------------------------------

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score predicted relations against gold ones; see `spacy_slmre.scorer.score_relations`."""
        if self.scorer is None:
            return {}
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.score")
        gold = {
            label
            for example in examples
            for some in gold_labels(example.reference, self.attr)[0].values()
            for label in some
        }
        if unknown := sorted(gold - set(self.schema.names)):
            self._warn_once(
                "unknown labels",
                "the gold data have labels that the component lacks, and can never find: "
                f"{', '.join(unknown)}.",
            )
        return self.scorer(
            examples,
            **{
                "attr": self.attr,
                "labels": self.labels,
                "propose": lambda doc: self.candidates(doc, self.schema).pairs,
                **kwargs,
            },
        )

    # -- serialisation -----------------------------------------------------------------------------

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write labels, changed settings and the model into a folder."""
        writers = {
            "cfg.json": lambda file: srsly.write_json(file, self._saved()),
            "model": lambda folder: self.model.save(folder, embed=self.weights == "embed"),
        }
        util.to_disk(path, writers, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Read what `to_disk` wrote."""
        readers = {
            "cfg.json": lambda file: self._restore(srsly.read_json(file)),
            "model": self._restore_model,
        }
        util.from_disk(path, readers, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The same as bytes."""
        writers = {"cfg": lambda: srsly.json_dumps(self._saved()), "model": self._model_to_bytes}
        return util.to_bytes(writers, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> RelationExtractor:
        """Read what `to_bytes` gave."""
        readers: dict[str, Callable[[bytes], Any]] = {
            "cfg": lambda data: self._restore(srsly.json_loads(data)),
            "model": self._model_from_bytes,
        }
        util.from_bytes(bytes_data, readers, exclude)
        return self

    def _restore_model(self, folder: Path) -> None:
        self.model = self.model.restore(folder)

    def _model_to_bytes(self) -> bytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "model"
            self.model.save(folder, embed=self.weights == "embed")
            return srsly.msgpack_dumps(read_files(folder))

    def _model_from_bytes(self, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as name:
            write_files(Path(name), srsly.msgpack_loads(data))
            self.model = self.model.restore(Path(name), temporary=True)

    def _state(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_dict(),
            "threshold": self.threshold,
            "label_thresholds": dict(self.label_thresholds),
            "temperature": self.temperature,
        }

    def _saved(self) -> dict[str, Any]:
        return {
            "configured": self._configured,
            "current": self._state(),
            "schema_given": self.schema_given,
            "label_weights": self._label_weights,
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        # What was changed since the component was made (labels learnt, thresholds fitted) is restored;
        # what the config now says otherwise than when it was saved was changed on purpose, and stays.
        unread = self.problem is not None
        state = {
            key: saved["current"][key]
            if key in saved["current"]
            and (self._configured[key] == saved["configured"][key] or (key == "schema" and unread))
            else own
            for key, own in self._state().items()
        }
        self._label_weights = saved.get("label_weights", {})
        self.problem = None
        self.schema_given = saved.get("schema_given", True)
        self.schema = LabelSchema.from_dict(state["schema"])
        self.threshold = state["threshold"]
        self.label_thresholds = dict(state["label_thresholds"])
        self.temperature = state["temperature"]
        self._check_thresholds()

    def _check_thresholds(self) -> None:
        for label, value in [("threshold", self.threshold), *self.label_thresholds.items()]:
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{self.name}: the threshold {label} = {value} is no probability (0 to 1).")
        if unknown := set(self.label_thresholds) - set(self.schema.names):
            raise ValueError(
                f"{self.name}.label_thresholds has unknown labels: {', '.join(sorted(unknown))}. "
                f"The labels are: {', '.join(self.schema.names)}."
            )
