"""Prompts as trees: the tokens of prefix, context, query and answer, made apart so that parts are shared.

A prompt reads: instruction and label list, demonstrations, the opening of the user's turn (together the
*prefix*, the same for a whole corpus); the text with its entities numbered, and the opening of the model's
turn (the *context*); the pair (the *query*), to which the label is the model's continuation. The pair
stands in the model's turn so that all pairs of a context share what opens it. Every part is tokenised on
its own and their tokens are joined, in tuning and in use alike, so that a prefix computed once fits every
context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTS = ("system", "context", "query")
# What a context's template may read, and whether types of mentions stand in it.
_NUMBERED = {"text": False, "typed_text": True}
# Stands for the user's turn while the chat template is rendered around it.
_GAP = "\u2402GAP\u2403"
# A chat template that states today's date would make another prompt, and other answers, every day.
_FIXED_DATE = "{%- macro strftime_now(format) -%}01 January 2025{%- endmacro -%}"
# An empty thought, or one that is opened for the model to go on with.
_THINKING = re.compile(r"<think>\s*(</think>\s*|\Z)")


def default_templates() -> dict[str, str]:
    """The templates that come with this package."""
    folder = files("spacy_slmre.models") / "templates"
    return {part: _strip_last_newline((folder / f"{part}.jinja").read_text("utf-8")) for part in PARTS}


def read_templates(folder: str | Path) -> dict[str, str]:
    """A folder's system.jinja, context.jinja and query.jinja; one that it lacks is the default.

    Raises:
        ValueError: None of them is there, or one cannot be read.
    """
    found = {part: file for part in PARTS if (file := Path(folder) / f"{part}.jinja").exists()}
    if not found:
        raise ValueError(
            f'templates = "{folder}": expected a folder with {", ".join(f"{part}.jinja" for part in PARTS)}, '
            "or some of them; found none."
        )
    own = {}
    for part, file in found.items():
        try:
            own[part] = _strip_last_newline(file.read_text("utf-8"))
        except (OSError, UnicodeError) as error:
            raise ValueError(f"The template {file} cannot be read: {error}") from error
    return default_templates() | own


@dataclass(frozen=True)
class PromptStyle:
    """How instances are put into words. An adapter records the style that it was tuned with.

    Attributes:
        label_list: The instruction lists the labels ("schema-enumerated"); without, it is "generic".
        definitions: The list gives each label's definition.
        demonstrations: TrainingInstances instances shown before the question, as `RelationInstance.to_dict` gives
            them; two of them make the study's 2-shot style. One that has a "schema" (the `answers_key` of a
            label set) is shown with that label set only, so that one style serves a mixture of them.
        two_way: The tokens of a context see all of it, and not only what stands before them. A decoder has to
            be tuned for that.
        templates: Jinja text of "system" (gets `labels`, `definitions`), "context" (`text`, and `typed_text`
            with the types of mentions) and "query" (`head` and `tail`, each with `number`, `text`, `type` and
            `repeated`: whether another mention has the same text, so that this does not tell which is meant).
    """

    label_list: bool = True
    definitions: bool = True
    demonstrations: tuple[Mapping[str, Any], ...] = ()
    two_way: bool = False
    templates: Mapping[str, str] = field(default_factory=default_templates)

    def demonstrations_for(self, schema: LabelSchema) -> list[Mapping[str, Any]]:
        """The demonstrations that are shown with a label set."""
        return [shown for shown in self.demonstrations if shown.get("schema") in (None, schema.answers_key)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "label_list": self.label_list,
            "definitions": self.definitions,
            "demonstrations": [dict(demonstration) for demonstration in self.demonstrations],
            "two_way": self.two_way,
            "templates": dict(self.templates),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptStyle:
        """The inverse of `to_dict`."""
        return cls(
            label_list=bool(data["label_list"]),
            definitions=bool(data["definitions"]),
            demonstrations=tuple(data["demonstrations"]),
            two_way=bool(data.get("two_way", False)),
            templates=dict(data["templates"]),
        )


class PromptTexts:
    """The words of the parts of prompts in one style, before any tokenizer.

    Raises:
        ValueError: A template has an error.
    """

    def __init__(self, style: PromptStyle) -> None:
        self.style = style
        # Templates may come with a downloaded adapter: the sandbox lets them fill in text and no more.
        environment = ImmutableSandboxedEnvironment(autoescape=False)
        try:
            self._templates = {part: environment.from_string(style.templates[part]) for part in PARTS}
            read = meta.find_undeclared_variables(environment.parse(style.templates["context"]))
        except TemplateError as error:
            raise ValueError(f"A prompt template has an error: {error}") from error
        self._numbered = {name: types for name, types in _NUMBERED.items() if name in read}

    def system(self, schema: LabelSchema) -> str:
        """The instruction, with the labels where the style lists them."""
        labels = schema.labels if self.style.label_list else ()
        return self._templates["system"].render(labels=labels, definitions=self.style.definitions)

    def context(self, context: Context) -> str:
        """The text, with every mention numbered."""
        texts = {name: number_mentions(context, types=types) for name, types in self._numbered.items()}
        return self._templates["context"].render(texts)

    def query(self, instance: RelationInstance) -> str:
        """The pair."""
        return self._templates["query"].render(
            head=_describe(instance, instance.head), tail=_describe(instance, instance.tail)
        )

    def demonstrations(self, schema: LabelSchema) -> list[tuple[RelationInstance, str]]:
        """The demonstrations for a label set, each with the wording of its label.

        Raises:
            ValueError: One has a label that the schema lacks.
        """
        shown = [RelationInstance.from_dict(data) for data in self.style.demonstrations_for(schema)]
        for instance in shown:
            if instance.label not in schema.index:
                raise ValueError(
                    f'A demonstration has the label "{instance.label}", which the schema lacks. Its labels '
                    f"are: {', '.join(schema.names)}."
                )
        return [(instance, schema.labels[schema.index[instance.label or ""]].wording) for instance in shown]


class PromptBuilder:
    """Token ids of the parts of prompts, for one tokenizer and one style.

    Raises:
        ValueError: A template has an error.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle) -> None:
        self.tokenizer = tokenizer
        self.style = style
        self.texts = PromptTexts(style)

    def prefix(self, schema: LabelSchema) -> list[int]:
        """Everything before the context."""
        # A chat template writes the begin-of-text token itself where the model wants one.
        return self._encode_frame(self._frame(schema)[0], bare=not self.tokenizer.chat_template)

    def contexts(self, contexts: Sequence[Context]) -> list[list[int]]:
        """The texts, with every mention numbered, and the opening of the model's turn."""
        encoded = self._encode([self.texts.context(context) for context in contexts])
        return [[*tokens, *self._opening] for tokens in encoded]

    def queries(self, instances: Sequence[RelationInstance]) -> list[list[int]]:
        """The pairs."""
        return self._encode([self.texts.query(instance) for instance in instances])

    def answers(self, schema: LabelSchema) -> list[list[int]]:
        """The labels' wordings, each closed by the end token; (n_labels,) lists."""
        wordings = self._encode([self._answer_text(label.wording) for label in schema.labels])
        return [[*tokens, self.end_token] for tokens in wordings]

    def text(self, instance: RelationInstance, schema: LabelSchema) -> str:
        """The whole prompt of one instance, to be read or to be given to another program."""
        before, after = self._frame(schema)
        return before + self.texts.context(instance.context) + after + self.texts.query(instance)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character offsets (start, end) of the tokens of a bare text."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
        )
        return encoded["offset_mapping"]

    @cached_property
    def end_token(self) -> int:
        """The token that closes an answer: the end of the turn, else a line break."""
        if self.tokenizer.eos_token_id is not None:
            return int(self.tokenizer.eos_token_id)
        return self._encode(["\n"])[0][-1]

    @cached_property
    def _opening(self) -> list[int]:
        # The same for every schema, with demonstrations or without.
        return self._encode_frame(self._wrap("", [])[1])

    def _frame(self, schema: LabelSchema) -> tuple[str, str]:
        """The text before and after the user's words."""
        turns = [
            (self.texts.context(shown.context), self.texts.query(shown) + self._answer_text(wording))
            for shown, wording in self.texts.demonstrations(schema)
        ]
        return self._wrap(self.texts.system(schema), turns)

    def _wrap(self, system: str, turns: Sequence[tuple[str, str]]) -> tuple[str, str]:
        if not self.tokenizer.chat_template:
            told = "".join(f"{question}\n{answer}\n\n" for question, answer in turns)
            return f"{system}\n\n{told}", "\n"
        rendered = self._render_chat(system, turns)
        before, _, after = rendered.rpartition(_GAP)
        return before, after

    def _render_chat(self, system: str, turns: Sequence[tuple[str, str]]) -> str:
        messages = [
            {"role": "system", "content": system},
            *(
                {"role": role, "content": content}
                for turn in turns
                for role, content in zip(("user", "assistant"), turn, strict=True)
            ),
            {"role": "user", "content": _GAP},
        ]
        # Templates of models that reason put in a thought; the answer here is a label and no more.
        return _THINKING.sub("", render_chat(self.tokenizer, messages))

    def _answer_text(self, wording: str) -> str:
        return f" {wording}"

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Tokens of the users' words, in which "<|im_end|>" is nothing but characters."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _encode_frame(self, text: str, *, bare: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=bare)["input_ids"]


def read_demonstrations(path: Path) -> tuple[dict[str, Any], ...]:
    """TrainingInstances instances from JSONL.

    Raises:
        ValueError: The file cannot be read, or a line is no labelled instance.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f'demonstrations = "{path}" cannot be read: {error.strerror}.') from error
    demonstrations = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            instance = RelationInstance.from_dict(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        if not instance.label:
            raise ValueError(f'{path}:{number}: a demonstration needs a "label".')
        demonstrations.append(instance.to_dict())
    return tuple(demonstrations)


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """Messages in the words of a model's chat template, without thinking, up to where the model answers.

    Args:
        tokenizer: Has the template.
        messages: Each with "role" and "content".
    """

    def render(told: Sequence[Mapping[str, str]]) -> str:
        return tokenizer.apply_chat_template(  # type: ignore[return-value]
            [dict(message) for message in told],
            chat_template=_FIXED_DATE + str(tokenizer.chat_template),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )

    try:
        return render(messages)
    except TemplateError:
        if len(messages) < 2 or messages[0]["role"] != "system":
            raise
        # Some models know no system turn: the first user turn begins with the instruction.
        system, first, *rest = messages
        return render([{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest])


def number_mentions(context: Context, *, types: bool = False) -> str:
    """The text with each mention in brackets behind its number: "[1 Ann] met [2 Bo]".

    Args:
        context: The text and its mentions.
        types: Their types stand there, too: "[1 Ann (PERSON)] met [2 Bo (PERSON)]".
    """
    inserts: list[tuple[int, int, int, str]] = []
    for number, mention in enumerate(context.mentions, 1):
        # At one place, brackets close before others open; the longer mention opens first, closes last.
        inserts.append((mention.start, 1, -mention.end, f"[{number} "))
        kind = f" ({mention.type})" if types and mention.type else ""
        inserts.append((mention.end, 0, -mention.start, f"{kind}]"))
    pieces, position = [], 0
    for place, _, _, insert in sorted(inserts):
        pieces += [context.text[position:place], insert]
        position = place
    return "".join([*pieces, context.text[position:]])


def _describe(instance: RelationInstance, position: int) -> dict[str, Any]:
    mention: Mention = instance.context.mentions[position]
    text = instance.text_of(mention)
    return {
        "number": position + 1,
        "text": text,
        "type": mention.type,
        "repeated": sum(instance.text_of(other) == text for other in instance.context.mentions) > 1,
    }


def _strip_last_newline(text: str) -> str:
    return text.removesuffix("\n")
