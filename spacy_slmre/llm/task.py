"""The spacy-llm task: one prompt a pair, whose answer is a label."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import srsly
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples

from spacy_slmre.candidates import CandidateGenerator, EntityPairs
from spacy_slmre.instances import Context, RelationInstance, make_gold_instances, shorten
from spacy_slmre.llm.chat import chat_prompts
from spacy_slmre.llm.outcome import Outcome, ResponseReader
from spacy_slmre.llm.words import word_offsets
from spacy_slmre.models.prompts import PromptStyle, PromptTexts, read_demonstrations, read_templates
from spacy_slmre.pipeline.component_settings import choose_schema
from spacy_slmre.pipeline.doc_instances import DocInstances, describe_truncation, make_doc_instances
from spacy_slmre.pipeline.examples import resolve_labels
from spacy_slmre.relations import (
    RELATIONS,
    install_extensions,
    report_name,
    write_answers,
    write_records,
    write_report,
)
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema, UnreadSchema
from spacy_slmre.scorer import score_relations

# spacy-llm reads these annotations when it checks that task and model fit, and knows no others.
Prompts = typing.Iterable[typing.Tuple[typing.Iterable[Any], typing.Iterable[Doc]]]  # noqa: UP006
Shards = typing.Iterable[typing.Iterable[Doc]]
Responses = typing.Iterable[typing.Iterable[Any]]


def make_relation_task(
    schema: LabelSchema | UnreadSchema | None = None,
    labels: list[str] | None = None,
    negative_label: str | None = NEGATIVE_LABEL,
    candidates: Callable | None = None,
    label_list: bool = True,
    definitions: bool = True,
    demonstrations: str | None = None,
    templates: str | None = None,
    max_context_words: int = 512,
    attr: str = RELATIONS,
    scorer: Callable | None = None,
) -> RelationTask:
    """Registered as `@llm_tasks = "spacy-slmre.RelationClassification.v1"`.

    Args:
        schema: Labels with wordings, definitions and types, for instance by
            `@misc = "spacy-slmre.SchemaFile.v1"`. Without labels, the general schema is used.
        labels: Names of labels, in place of a schema.
        negative_label: The label among `labels` that says "no relation"; added where absent. Null where
            every pair has a relation.
        candidates: Which pairs are asked about (one prompt each); by default
            `@misc = "spacy-slmre.EntityPairs.v1"`.
        label_list: The instruction lists the labels ("schema-enumerated"); without, it is "generic".
        definitions: The list gives their definitions.
        demonstrations: JSONL file of labelled instances shown before the question, each with "text",
            "head" and "tail" as [start, end, type], and "label".
        templates: Folder with system.jinja, context.jinja and query.jinja; one that it lacks is the default.
        max_context_words: Longer contexts are shortened around their pair.
        attr: Relations are written to `doc._.<attr>`.
        scorer: Scores predicted documents; by default as `spacy-slmre.RelationScorer.v1`.

    Raises:
        ValueError: A setting is out of its range.
    """
    # A saved pipeline brings demonstrations and templates along, while its config still names the files that
    # they came from: that these are gone is an error only when they are wanted.
    problem: ValueError | None = None
    style: dict[str, Any] = {"label_list": label_list, "definitions": definitions}
    try:
        if demonstrations is not None:
            style["demonstrations"] = read_demonstrations(Path(demonstrations))
        if templates is not None:
            style["templates"] = read_templates(templates)
    except ValueError as error:
        problem = error
    return RelationTask(
        choose_schema("task", schema, labels, negative_label, None),
        PromptStyle(**style),
        negative_label=negative_label,
        candidates=candidates or EntityPairs(),
        max_context_words=max_context_words,
        attr=attr,
        scorer=scorer or score_relations,
        problem=problem,
        configured_style=[label_list, definitions, demonstrations, templates],
    )


class RelationTask:
    """Asks for the label of each candidate pair, and writes what was answered.

    Relations go to `doc._.<attr>`, every answer as it was written to `doc._.relation_answers`, and numbers
    to `doc._.<attr>_report`: of pairs "considered", "scored" (asked about), "shortened" and "skipped" as
    `slm_relations` counts them, and of answers "out_of_schema" (they name no label), "ill_typed" (the label
    does not join such entities, and is not written as a relation) and "unanswered".

    Args:
        schema: The labels; None takes the general schema, or in `initialize` those of the examples.
        style: How instances are put into words.
        negative_label: What the negative label is called where labels are taken from examples.
        candidates: Proposes the pairs.
        max_context_words: Longer contexts are shortened around their pair.
        attr: Relations are written to `doc._.<attr>`.
        scorer: Scores predicted documents.
        problem: An error in the style that a saved pipeline would mend.
        configured_style: What the config says of the style, to notice where it is changed after saving.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        schema: LabelSchema | UnreadSchema | None,
        style: PromptStyle,
        *,
        negative_label: str | None = NEGATIVE_LABEL,
        candidates: CandidateGenerator,
        max_context_words: int = 512,
        attr: str = RELATIONS,
        scorer: Callable[..., dict[str, Any]] = score_relations,
        problem: ValueError | None = None,
        configured_style: Sequence[Any] = (),
    ) -> None:
        if max_context_words < 1:
            raise ValueError(f"max_context_words = {max_context_words}, but it must be at least 1.")
        install_extensions(attr)
        self.style = style
        self.negative_label = negative_label
        self.candidates = candidates
        self.max_context_words = max_context_words
        self.attr = attr
        self._scorer = scorer
        self._style_problem = problem
        self._schema_problem = schema.error if isinstance(schema, UnreadSchema) else None
        self._schema_given = schema is not None
        given = schema if isinstance(schema, LabelSchema) else None
        self._schema: LabelSchema | None = given or LabelSchema.general()
        self._configured = {
            "schema": given.to_dict() if given else None,
            "style": list(configured_style),
        }
        self._warned: set[str] = set()

    # -- labels ------------------------------------------------------------------------------------

    @property
    def schema(self) -> LabelSchema:
        """The labels.

        Raises:
            ValueError: `clear` took all of them away.
        """
        if self._schema is None:
            raise ValueError("The task has no labels any more: give it some with add_label.")
        return self._schema

    @schema.setter
    def schema(self, schema: LabelSchema) -> None:
        self._schema, self._schema_given, self._schema_problem = schema, True, None

    @property
    def schema_given(self) -> bool:
        """Whether anything said what the labels are; if not, they are those of the general schema."""
        return self._schema_given

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all labels, the negative one included."""
        return self._schema.names if self._schema is not None else ()

    def add_label(self, label: str, label_definition: str | None = None) -> int:
        """Add a relation, worded after its name.

        Returns:
            1, or 0 where the label is there already.
        """
        if not isinstance(label, str):
            raise ValueError(f"A label is a string, not {label!r}.")
        if label in self.labels:
            return 0
        if self._schema is None:
            schema = {"labels": [{"name": label, "definition": label_definition}]}
            self._schema = LabelSchema.from_dict({**schema, "negative_label": self.negative_label})
        else:
            self._schema = self._schema.with_name(label, label_definition or "")
        self._schema_given = True
        return 1

    def clear(self) -> None:
        """Forget all labels."""
        self._schema = None

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        nlp: Language | None = None,
        # Built-in names only: spaCy resolves the annotation in another module to check [initialize].
        labels: list[str] | dict[str, object] | None = None,
        n_prompt_examples: int = 0,
    ) -> None:
        """Settle the labels, and take demonstrations from examples if wanted. Nothing is contacted.

        Args:
            get_examples: Gold documents; where no labels were configured, theirs are taken.
            nlp: The pipeline.
            labels: Names, or a schema as plain data; they replace those that were configured.
            n_prompt_examples: How many labelled pairs of the examples are shown as demonstrations; -1 shows
                all. Those that were configured count, and come first.

        Raises:
            ValueError: The labels or the examples are not what the task can work with.
        """
        validate_get_examples(get_examples, "RelationTask.initialize")
        given = self._schema if self._schema_given else None
        negative = given.negative_label if given else self.negative_label
        settled = resolve_labels(labels, given, get_examples, negative, self.attr)
        if settled is not None and settled is not given:
            self.schema = settled
        if n_prompt_examples:
            self._show(get_examples(), n_prompt_examples)

    def _show(self, examples: Iterable[Example], number: int) -> None:
        shown = list(self.style.demonstrations)
        for example in examples:
            for instance in make_gold_instances(example.reference, self.schema):
                if number < 0 or len(shown) < number:
                    shown.append(instance.to_dict())
        self.style = PromptStyle.from_dict({**self.style.to_dict(), "demonstrations": shown})

    def ready(self) -> None:
        """Check labels and prompts now rather than at the first document.

        Raises:
            ValueError: They cannot be had, or do not fit each other.
        """
        for problem in (self._schema_problem, self._style_problem):
            if problem is not None:
                raise problem
        texts = PromptTexts(self.style)
        texts.system(self.schema)
        texts.demonstrations(self.schema)

    # -- prompts and answers -----------------------------------------------------------------------

    @property
    def prompt_template(self) -> str:
        """All that makes the prompts of a document what they are (spacy-llm's document cache compares it)."""
        return srsly.json_dumps({"schema": self.schema.to_dict(), "style": self.style.to_dict()})

    def generate_prompts(self, docs: Iterable[Doc], context_length: int | None = None) -> Prompts:
        """The prompts of each document, and the document itself as its only shard.

        Args:
            docs: Documents with entities.
            context_length: Taken for spacy-llm's sake. Contexts are shortened to `max_context_words`, and a
                model leaves unanswered what is too long for it.

        Raises:
            ValueError: Labels or prompts cannot be had.
        """
        self.ready()
        texts = PromptTexts(self.style)
        for doc in docs:
            yield chat_prompts(texts, self._ask(doc).instances, self.schema), [doc]

    def parse_responses(self, shards: Shards, responses: Responses) -> typing.Iterable[Doc]:
        """Write the answers to the documents, which are given back themselves.

        Args:
            shards: What `generate_prompts` gave beside the prompts: each document alone in a list.
            responses: The answers to the prompts of each document, in their order.

        Raises:
            ValueError: A document has more or fewer answers than prompts.
        """
        read = ResponseReader(self.schema)
        written: list[tuple[Doc, set]] = []
        try:
            for (doc,), answers in zip(shards, responses, strict=True):
                asked = self._ask(doc)
                self._write(asked, read(asked, list(answers)))
                written.append((doc, set(doc.user_data)))
                yield doc
        finally:
            # spacy-llm 0.7.4 assigns None to extension attributes that other packages left unset. It lets go
            # of this generator, which brings us here, before it hands on the documents.
            for doc, keys in written:
                for key in doc.user_data.keys() - keys:
                    if isinstance(key, tuple) and key[0] == "._.":
                        del doc.user_data[key]

    def _ask(self, doc: Doc) -> DocInstances:
        # DocInstances for twice, before and after the model: nothing has to be kept beside the documents.
        return make_doc_instances(doc, self.candidates, self.schema, self._fit)

    def _fit(self, instances: Sequence[RelationInstance]) -> list[RelationInstance | None]:
        def count_words(contexts: Sequence[Context]) -> list[int]:
            return [len(word_offsets(context)) for context in contexts]

        return shorten(instances, self.max_context_words, count_tokens=count_words, offsets_of=word_offsets)

    def _write(self, asked: DocInstances, outcome: Outcome) -> None:
        write_records(asked.doc, outcome.relations, self.attr)
        write_answers(asked.doc, outcome.answers)
        write_report(asked.doc, {**asked.report, **outcome.numbers}, self.attr)
        if cuts := describe_truncation(asked.report, report_name(self.attr)):
            self._warn_once("cut", cuts)
        if outcome.reason is not None:
            self._warn_once(
                "unanswered",
                f"a pair got no answer ({outcome.reason}). Such pairs are counted in "
                f"doc._.{report_name(self.attr)}; later ones are without a warning.",
            )

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(f"RelationClassification: {message}", stacklevel=3)

    # -- scoring -----------------------------------------------------------------------------------

    def scorer(self, examples: Iterable[Example]) -> dict[str, Any]:
        """Score predicted relations against gold ones; see `spacy_slmre.scorer.score_relations`."""
        return self._scorer(examples, attr=self.attr, labels=self.labels, propose=self.propose)

    def propose(self, doc: Doc) -> list[tuple[Span, Span]]:
        """The candidate pairs of a document."""
        return self.candidates(doc, self.schema).pairs

    # -- serialisation -----------------------------------------------------------------------------

    def to_bytes(self, *, exclude: tuple[str, ...] = ()) -> bytes:
        """Labels and prompt style as bytes."""
        return util.to_bytes({"cfg": lambda: srsly.json_dumps(self._saved())}, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: tuple[str, ...] = ()) -> RelationTask:
        """Read what `to_bytes` gave."""
        util.from_bytes(bytes_data, {"cfg": lambda data: self._restore(srsly.json_loads(data))}, exclude)
        return self

    def to_disk(self, path: str | Path, *, exclude: tuple[str, ...] = ()) -> None:
        """Write labels and prompt style into a folder."""
        util.to_disk(path, {"cfg.json": lambda file: srsly.write_json(file, self._saved())}, exclude)

    def from_disk(self, path: str | Path, *, exclude: tuple[str, ...] = ()) -> RelationTask:
        """Read what `to_disk` wrote."""
        util.from_disk(path, {"cfg.json": lambda file: self._restore(srsly.read_json(file))}, exclude)
        return self

    def _saved(self) -> dict[str, Any]:
        schema = self._schema.to_dict() if self._schema is not None else None
        return {
            "configured": self._configured,
            "schema": schema,
            "schema_given": self._schema_given,
            "style": self.style.to_dict(),
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        # What the config now says otherwise than when it was saved was changed on purpose, and stays.
        if self._schema_problem is not None or saved["configured"]["schema"] == self._configured["schema"]:
            self._schema = LabelSchema.from_dict(saved["schema"]) if saved["schema"] else None
            self._schema_problem, self._schema_given = None, saved["schema_given"]
        if saved["configured"]["style"] == self._configured["style"]:
            self.style = PromptStyle.from_dict(saved["style"])
            self._style_problem = None
