"""The spacy-llm task, which asks for the label of each candidate pair in a separate prompt."""

from __future__ import annotations

import re
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import srsly
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples

from spacy_slmre.candidates import EntityPairs
from spacy_slmre.instances import (
    Context,
    DocInstances,
    RelationInstance,
    invented_instance,
    make_doc_instances,
    truncate_instances,
)
from spacy_slmre.label_parser import LabelParser
from spacy_slmre.llm.chat import Unanswered, chat_prompts
from spacy_slmre.models.prompts import PromptStyle, PromptTexts, read_style
from spacy_slmre.pipeline.examples import make_gold_instances, resolve_labels
from spacy_slmre.pipeline.problems import find_problems
from spacy_slmre.relations import (
    RELATIONS,
    PlainRecord,
    install_extensions,
    make_record,
    report_name,
    write_answers,
    write_label_properties,
    write_records,
    write_report,
)
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, is_file_reference
from spacy_slmre.scorer import score_relations

# spacy-llm compares these annotations when it checks that task and model are compatible, so they must be
# exactly these types.
Prompts = typing.Iterable[typing.Tuple[typing.Iterable[Any], typing.Iterable[Doc]]]  # noqa: UP006
Shards = typing.Iterable[typing.Iterable[Doc]]
Responses = typing.Iterable[typing.Iterable[Any]]

# Long strings, and scripts without spaces, are split into pieces of at most 12 characters.
_WORD = re.compile(r"\w{1,12}|[^\w\s]")


class RelationTask:
    """The task `@llm_tasks = "spacy-slmre.RelationClassification.v1"`.

    Relations are written to `doc._.<attr>`, all answers to `doc._.relation_answers`, and counts to
    `doc._.<attr>_report`: those of `slm_relations` ("considered", "scored", "truncated", "skipped"), and the numbers of
    answers that are "out_of_schema" (not a label), "ill_typed" (a label that does not allow the entity types, so no
    relation is written) or "unanswered".

    Files are read at first use and saved with the task.

    Args:
        schema: Labels with wordings, definitions and types: a list, a dict, the path of a JSON, YAML or ontology file,
            or a registered function. By default the general schema.
        labels: Label names, instead of a schema.
        negative_label: The label that means "no relation"; added to the labels if missing. None if every pair has a
            relation.
        candidates: Proposes the pairs; `EntityPairs` by default.
        label_list: List the labels in the instruction ("schema-enumerated" in the study; otherwise "generic").
        definitions: Also list their definitions.
        examples: JSONL file of few-shot examples: documents with entities and relations, as `slmre extract` writes
            them, or pairs with "text", "head" and "tail" as [start, end, type], and "label".
        templates: Folder with system.jinja, context.jinja and query.jinja; missing files have defaults.
        max_context_words: Longer contexts are truncated around the pair.
        attr: Relations are written to `doc._.<attr>`.
        scorer: Scores predicted documents; `score_relations` by default.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        schema: Any = None,
        labels: list[str] | None = None,
        negative_label: str | None = NEGATIVE_LABEL,
        candidates: Callable | None = None,
        label_list: bool = True,
        definitions: bool = True,
        examples: str | None = None,
        templates: str | None = None,
        max_context_words: int = 512,
        attr: str = RELATIONS,
        scorer: Callable | None = None,
    ) -> None:
        if max_context_words < 1:
            raise ValueError(f"max_context_words = {max_context_words}, but it must be at least 1.")
        install_extensions(attr)
        if labels is not None and schema is not None:
            raise ValueError("Set either `labels` or `schema`, not both.")
        configured = schema if labels is None else labels
        self.has_own_labels = configured is not None
        if configured is None:
            configured = LabelSchema.general()
        elif not is_file_reference(configured):  # a file is read at first use
            configured = LabelSchema.from_any(configured, negative_label)
        self._schema: Any = configured
        self._style: PromptStyle | None = None
        self._style_settings = (label_list, definitions, examples, templates)
        # Compared with the saved values when the task is loaded: settings that were changed since take precedence.
        source = configured.fingerprint if isinstance(configured, LabelSchema) else str(configured)
        self._configured = {"schema": source, "style": list(self._style_settings)}
        self.negative_label = negative_label
        self.candidates = candidates or EntityPairs()
        self.max_context_words = max_context_words
        self.attr = attr
        self._scorer = scorer or score_relations
        self._warned: set[str] = set()

    # -- labels and prompt style -----------------------------------------------------------------------------

    @property
    def schema(self) -> LabelSchema:
        """The labels.

        Raises:
            ValueError: The schema file cannot be read, or `clear` removed all labels.
        """
        if is_file_reference(self._schema):
            self._schema = LabelSchema.from_any(self._schema)
        if self._schema is None:
            raise ValueError("The task has no labels: add some with add_label.")
        return self._schema

    @schema.setter
    def schema(self, schema: LabelSchema) -> None:
        self._schema, self.has_own_labels = schema, True

    @property
    def style(self) -> PromptStyle:
        """The prompt style.

        Raises:
            ValueError: The examples or templates cannot be read.
        """
        if self._style is None:
            self._style = PromptStyle(**read_style(*self._style_settings))
        return self._style

    @style.setter
    def style(self, style: PromptStyle) -> None:
        self._style = style

    @property
    def labels(self) -> tuple[str, ...]:
        """All label names, including the negative one; empty until a schema file is read."""
        return self._schema.names if isinstance(self._schema, LabelSchema) else ()

    def add_label(self, label: str, label_definition: str | None = None) -> int:
        """Add a relation; its wording is derived from its name.

        Returns:
            1, or 0 if the label already exists.
        """
        if not isinstance(label, str):
            raise ValueError(f"A label must be a string, not {label!r}.")
        if self._schema is None:
            labels = {"labels": [{"name": label, "definition": label_definition}]}
            self.schema = LabelSchema.from_dict({**labels, "negative_label": self.negative_label})
        elif label in self.schema.index:
            return 0
        else:
            self.schema = self.schema.with_name(label, label_definition or "")
        return 1

    def clear(self) -> None:
        """Remove all labels."""
        self._schema = None

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        nlp: Language | None = None,
        # Built-in names only: spaCy resolves the annotation in another module to check [initialize].
        labels: list[str] | dict[str, object] | None = None,
        n_prompt_examples: int = 0,
    ) -> None:
        """Set the labels and optionally few-shot examples. Nothing is sent.

        Args:
            get_examples: Gold documents, whose labels are used if none are configured.
            nlp: The pipeline.
            labels: Names, or a schema as plain data, instead of the configured labels.
            n_prompt_examples: Number of few-shot examples, first the configured ones, then pairs of the gold documents.
                -1 uses all.

        Raises:
            ValueError: The labels or the examples are invalid.
        """
        validate_get_examples(get_examples, "RelationTask.initialize")
        given = self.schema if self.has_own_labels and self._schema is not None else None
        negative = given.negative_label if given else self.negative_label
        schema = resolve_labels(labels, given, get_examples, negative, self.attr)
        if schema is not None:
            self.schema = schema
        if n_prompt_examples:
            shown = list(self.style.examples)
            for example in get_examples():
                for instance in make_gold_instances(example.reference, self.schema, self.attr):
                    if n_prompt_examples < 0 or len(shown) < n_prompt_examples:
                        shown.append(instance.to_dict())
            self.style = replace(self.style, examples=tuple(shown))

    def load(self) -> None:
        """Read files, and make the prompt of an invented pair to check templates and few-shot examples.

        Raises:
            ValueError: A file cannot be read, a template has an error, or a few-shot example has an unknown label.
        """
        chat_prompts(PromptTexts(self.style), [invented_instance()], self.schema)

    # -- prompts and answers ---------------------------------------------------------------------------------

    @property
    def prompt_template(self) -> str:
        """The data that determine a document's prompts; spacy-llm's cache of documents compares them."""
        try:
            return srsly.json_dumps({"schema": self.schema.to_dict(), "style": self.style.to_dict()})
        except ValueError:
            # spacy-llm reads this at construction, when the configured files of a saved pipeline may be missing.
            return ""

    def generate_prompts(self, docs: Iterable[Doc], context_length: int | None = None) -> Prompts:
        """Yield the prompts of each document, with the document as its only shard.

        `context_length`, which spacy-llm passes, is not used: contexts are truncated to `max_context_words`, and models
        do not answer prompts that are too long.

        Raises:
            ValueError: The labels or prompts cannot be read.
        """
        self.load()
        texts = PromptTexts(self.style)
        for doc in docs:
            yield chat_prompts(texts, self._make_instances(doc).instances, self.schema), [doc]

    def parse_responses(self, shards: Shards, responses: Responses) -> typing.Iterable[Doc]:
        """Write the answers of each shard of `generate_prompts` to its document and yield the documents.

        Raises:
            ValueError: The number of answers differs from the number of prompts.
        """
        parser = LabelParser(self.schema)
        written: list[tuple[Doc, set]] = []
        try:
            for (doc,), answers in zip(shards, responses, strict=True):
                self._write(self._make_instances(doc), list(answers), parser)
                written.append((doc, set(doc.user_data)))
                yield doc
        finally:
            # spacy-llm 0.7.4 sets unset extension attributes of other packages to None. It then closes this generator,
            # so that they can be removed here before the documents are returned.
            for doc, keys in written:
                for key in doc.user_data.keys() - keys:
                    if isinstance(key, tuple) and key[0] == "._.":
                        del doc.user_data[key]

    def _make_instances(self, doc: Doc) -> DocInstances:
        # Called before and after the model, so that nothing needs to be stored with the documents.
        return make_doc_instances(doc, self.candidates, self.schema, self._truncate)

    def _truncate(self, instances: Sequence[RelationInstance]) -> list[RelationInstance | None]:
        def count_words(contexts: Sequence[Context]) -> list[int]:
            return [len(_word_offsets(context)) for context in contexts]

        return truncate_instances(instances, self.max_context_words, count_tokens=count_words, offsets_of=_word_offsets)

    def _write(self, instances: DocInstances, responses: Sequence[Any], parser: LabelParser) -> None:
        doc = instances.doc
        if len(responses) != len(instances.pairs):
            raise ValueError(
                f"The model returned {len(responses)} answers to the {len(instances.pairs)} prompts of the "
                f'document "{doc.text[:50]}". It must return one answer per prompt, in the same order.'
            )
        counts: Counter[str] = Counter(out_of_schema=0, ill_typed=0, unanswered=0)
        relations: list[PlainRecord] = []
        answers: list[PlainRecord] = []
        for (head, tail), instance, response in zip(instances.pairs, instances.instances, responses, strict=True):
            answered = isinstance(response, str) and not isinstance(response, Unanswered)
            label = (parser.parse(response) or self.schema.negative_label) if answered else None
            if label not in self.schema.index:
                label = None
            answers.append(
                {
                    "head": [head.start_char, head.end_char],
                    "tail": [tail.start_char, tail.end_char],
                    "answer": str(response) if answered else None,
                    "label": label,
                }
            )
            if not answered:
                counts["unanswered"] += 1
                reason = getattr(response, "reason", f"the model returned {response!r:.80}")
                self._warn_once(
                    "unanswered",
                    f"a pair was not answered ({reason}). Unanswered pairs are counted in "
                    f"doc._.{report_name(self.attr)}; this warning is shown only once.",
                )
            elif label is None:
                counts["out_of_schema"] += 1
            elif label != self.schema.negative_label:
                allowed = self.schema.allowed(instance.head_mention.type, instance.tail_mention.type)
                if not instances.typed or allowed[self.schema.index[label]]:
                    relations.append(make_record(doc, (head, tail, label)))
                else:
                    counts["ill_typed"] += 1
        write_records(doc, relations, self.attr)
        schema = self.schema
        write_label_properties(doc, schema.inverse_of, schema.iris, schema.limits, self.attr)
        write_answers(doc, answers)
        write_report(doc, {**instances.report, **counts}, self.attr)
        for topic, message in find_problems(doc, self.candidates, self.schema, instances.report, self.attr):
            self._warn_once(topic, message)

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"RelationClassification: {message}", stacklevel=4)

    # -- scoring and serialization ---------------------------------------------------------------------------

    def scorer(self, examples: Iterable[Example]) -> dict[str, Any]:
        """Score predicted relations; see `spacy_slmre.scorer.score_relations`."""
        options: dict[str, Any] = {
            "labels": self.labels,
            "negative_label": self.schema.negative_label,
            "inverse_of": self.schema.inverse_of,
            "mirrors": self.schema.mirrors,
            "propose": self.propose,
        }
        return self._scorer(examples, attr=self.attr, **options)

    def propose(self, doc: Doc) -> list[tuple[Span, Span]]:
        """Return the candidate pairs of a document."""
        return self.candidates(doc, self.schema).pairs

    def to_bytes(self, *, exclude: tuple[str, ...] = ()) -> bytes:
        """Serialize labels and prompt style."""
        return util.to_bytes({"cfg": lambda: srsly.json_dumps(self._to_dict())}, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: tuple[str, ...] = ()) -> RelationTask:
        """Restore the output of `to_bytes`."""
        util.from_bytes(
            bytes_data, {"cfg": lambda data: self._from_dict(srsly.json_loads(data), self._configured)}, exclude
        )
        return self

    def to_disk(self, path: str | Path, *, exclude: tuple[str, ...] = ()) -> None:
        """Write labels and prompt style to a folder."""
        util.to_disk(path, {"cfg.json": lambda file: srsly.write_json(file, self._to_dict())}, exclude)

    def from_disk(self, path: str | Path, *, exclude: tuple[str, ...] = ()) -> RelationTask:
        """Restore labels and prompt style from a folder."""
        util.from_disk(path, {"cfg.json": lambda file: self._from_dict(srsly.read_json(file))}, exclude)
        return self

    def _to_dict(self) -> dict[str, Any]:
        schema = self.schema.to_dict() if self._schema is not None else None
        values = {"schema": schema, "has_own_labels": self.has_own_labels, "style": self.style.to_dict()}
        return {**values, "configured": self._configured}

    def _from_dict(self, saved: Mapping[str, Any], configured: Mapping[str, Any] | None = None) -> None:
        configured = configured or saved["configured"]
        if self._configured["schema"] == configured["schema"]:
            self._schema = LabelSchema.from_dict(saved["schema"]) if saved["schema"] else None
            self.has_own_labels = saved["has_own_labels"]
        if self._configured["style"] == configured["style"]:
            self.style = PromptStyle.from_dict(saved["style"])


def _word_offsets(context: Context) -> list[tuple[int, int]]:
    """Return the character offsets of words and punctuation marks, which serve as tokens."""
    return [match.span() for match in _WORD.finditer(context.text)]
