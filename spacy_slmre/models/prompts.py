"""Prompts as trees: prefix, context, query and answer are tokenized separately, so that their tokens can be shared.

A prompt consists of

* the *prefix*, the same for a whole corpus: instruction, label list, few-shot examples and the start of the user's
  turn;
* the *context*: the text with numbered mentions, and the start of the model's turn;
* the *query*: the pair; it is part of the model's turn, so that all pairs of a context share what comes before it;
* the *answer*: the wording of a label, which continues the query.

The tokens of the parts are concatenated in training and inference alike, so that a prefix is computed only once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from jinja2.sandbox import SecurityError

from spacy_slmre.instances import Context, RelationInstance
from spacy_slmre.models.few_shot import labeled_instances, read_examples
from spacy_slmre.models.sandbox import SafeTemplate
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.json_files import check_fields

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTS = ("system", "context", "query")
# Variables of the context template, and whether they include entity types.
_NUMBERED = {"text": False, "typed_text": True}
# Placeholder for the user's turn in the rendered chat template.
_PLACEHOLDER = "\u2402GAP\u2403"
# Private characters that replace special tokens in the texts of the user, one for each.
_FIRST_MASK = 0xF0000
_MASKED = re.compile("([\U000f0000-\U000ffffd])")
# An empty or unfinished thought.
_THINKING = re.compile(r"<think>\s*(</think>\s*|\Z)")


def default_templates() -> dict[str, str]:
    """Return the built-in templates."""
    folder = files("spacy_slmre.models") / "templates"
    return {part: (folder / f"{part}.jinja").read_text("utf-8").removesuffix("\n") for part in PARTS}


def read_templates(folder: str | Path) -> dict[str, str]:
    """Read system.jinja, context.jinja and query.jinja from a folder; built-in templates replace missing ones.

    Raises:
        ValueError: None of them exists, or one cannot be read.
    """
    files = {part: file for part in PARTS if (file := Path(folder) / f"{part}.jinja").exists()}
    if not files:
        names = ", ".join(f"{part}.jinja" for part in PARTS)
        raise ValueError(f'templates = "{folder}" must be a folder with at least one of {names}.')
    own = {}
    for part, file in files.items():
        try:
            own[part] = file.read_text("utf-8").removesuffix("\n")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"The template {file} cannot be read: {error}") from error
    return default_templates() | own


def read_style(
    label_list: bool | None, definitions: bool | None, examples: str | None, templates: str | None
) -> dict[str, Any]:
    """Return the arguments of `PromptStyle` that settings specify, with the content of the files that they name.

    Raises ValueError if a file cannot be read; see `read_examples` and `read_templates`.
    """
    style: dict[str, Any] = {"label_list": label_list, "definitions": definitions}
    style["examples"] = None if examples is None else read_examples(examples)
    style["templates"] = None if templates is None else read_templates(templates)
    return {name: value for name, value in style.items() if value is not None}


@dataclass(frozen=True)
class PromptStyle:
    """How instances are turned into prompts. An adapter records the style that it was tuned with.

    Attributes:
        label_list: List the labels in the instruction ("schema-enumerated" in the study; otherwise "generic").
        definitions: Include definitions in the list.
        examples: Few-shot examples as returned by `RelationInstance.to_dict`. An example with a "schema" (the
            `answers_key` of a label set) is only shown with that label set, so that a style can serve several.
        templates: Jinja templates for "system" (variables `labels` and `definitions`), "context" (`text`, or
            `typed_text` with entity types) and "query" (`head` and `tail`, each with `number`, `text`, `type` and
            `repeated`: whether another mention has the same text, which makes it ambiguous).
    """

    label_list: bool = True
    definitions: bool = True
    examples: tuple[Mapping[str, Any], ...] = ()
    templates: Mapping[str, str] = field(default_factory=default_templates)

    def examples_for(self, schema: LabelSchema) -> list[Mapping[str, Any]]:
        """Return the examples to show with a label set."""
        return [shown for shown in self.examples if shown.get("schema") in (None, schema.answers_key)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "label_list": self.label_list,
            "definitions": self.definitions,
            "examples": [dict(example) for example in self.examples],
            "templates": dict(self.templates),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptStyle:
        """Read the result of `to_dict`.

        Raises:
            KeyError: A key is missing.
            TypeError, ValueError: A value is invalid.
        """
        check_fields(data, label_list=bool, definitions=bool, examples=(list, tuple), templates=dict)
        for example in data["examples"]:
            RelationInstance.from_dict(example)
        check_fields(data["templates"], **dict.fromkeys(PARTS, str))
        return cls(data["label_list"], data["definitions"], tuple(data["examples"]), dict(data["templates"]))


class PromptTexts:
    """Renders the texts of prompts, independent of a tokenizer.

    Raises:
        ValueError: A template has an error.
    """

    def __init__(self, style: PromptStyle) -> None:
        self.style = style
        self._system, self._context, self._query = (
            SafeTemplate(style.templates[part], f"prompt template {part}") for part in PARTS
        )
        self._numbered = {name: types for name, types in _NUMBERED.items() if name in self._context.variables}
        if not self._numbered:
            raise ValueError(f"The prompt template context must show the text: use one of {', '.join(_NUMBERED)}.")

    def system(self, schema: LabelSchema) -> str:
        """Return the instruction, with the labels if the style lists them."""
        labels = schema.labels if self.style.label_list else ()
        return self._system.render(labels=labels, definitions=self.style.definitions)

    def context(self, context: Context) -> str:
        """Return the text with numbered mentions."""
        return self._context.render(
            **{name: number_mentions(context, types=types) for name, types in self._numbered.items()}
        )

    def query(self, instance: RelationInstance) -> str:
        """Return the text that asks about the pair."""
        return self._query.render(head=_describe(instance, instance.head), tail=_describe(instance, instance.tail))

    def examples(self, schema: LabelSchema) -> list[tuple[RelationInstance, str]]:
        """Return the few-shot examples for a label set, each with the wording of its label.

        Raises:
            ValueError: An example has a label that is not in the schema.
        """
        shown = labeled_instances(self.style.examples_for(schema), schema)
        return [(instance, schema.labels[schema.index[instance.label or ""]].wording) for instance in shown]


class FrameEncoder:
    """Tokenizes rendered chat templates, in which only the special tokens of the template are special.

    Those in the texts of the user, such as "<|im_end|>", are replaced by private characters before a text is inserted
    into the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._special = {token.content: chr(_FIRST_MASK + n) for n, token in enumerate(t for t in added if t.special)}

    def mask(self, text: str) -> str:
        """Replace special tokens by private characters, which chat templates do not change."""
        # Longer tokens first, because one may contain another.
        for token in sorted(self._special, key=len, reverse=True):
            text = text.replace(token, self._special[token])
        return text

    def unmask(self, text: str) -> str:
        """Return the text that was masked."""
        for token, character in self._special.items():
            text = text.replace(character, token)
        return text

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the tokens of a text with masked parts."""
        first, *others = _MASKED.split(text)
        tokens = list(self._tokenizer(first, add_special_tokens=add_special_tokens)["input_ids"])
        for position, piece in enumerate(others):
            if is_masked := position % 2 == 0:
                piece = self.unmask(piece)
            if piece:
                options = {"add_special_tokens": False, "split_special_tokens": is_masked}
                tokens += self._tokenizer(piece, **options)["input_ids"]
        return tokens


class PromptBuilder:
    """Makes the tokens of prompts, for one tokenizer and one style.

    Raises:
        ValueError: A template has an error.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle) -> None:
        self.tokenizer = tokenizer
        self.style = style
        self.texts = PromptTexts(style)
        self._frames = FrameEncoder(tokenizer)
        # Contexts are needed twice, for truncation and for scoring.
        self._context_tokens: WeakKeyDictionary[Context, list[int]] = WeakKeyDictionary()

    def prefix(self, schema: LabelSchema) -> list[int]:
        """Return the tokens before the context."""
        # A chat template adds the begin-of-text token itself if the model needs one.
        return self._frames.encode(self._frame(schema)[0], add_special_tokens=not self.tokenizer.chat_template)

    def contexts(self, contexts: Sequence[Context]) -> list[list[int]]:
        """Return the tokens of contexts, each followed by the start of the model's turn."""
        if new := [context for context in contexts if context not in self._context_tokens]:
            encoded = self._encode([self.texts.context(context) for context in new])
            for context, tokens in zip(new, encoded, strict=True):
                self._context_tokens[context] = [*tokens, *self._opening]
        return [self._context_tokens[context] for context in contexts]

    def queries(self, instances: Sequence[RelationInstance]) -> list[list[int]]:
        """Return the tokens of queries."""
        return self._encode([self.texts.query(instance) for instance in instances])

    def answers(self, schema: LabelSchema) -> list[list[int]]:
        """Return the tokens of each label's wording, followed by the end token."""
        wordings = self._encode([_answer_text(label.wording) for label in schema.labels])
        return [[*tokens, self.end_token] for tokens in wordings]

    def text(self, instance: RelationInstance, schema: LabelSchema) -> str:
        """Return the complete prompt of an instance as text."""
        before, after = self._frame(schema)
        return self._frames.unmask(before) + self.texts.context(instance.context) + after + self.texts.query(instance)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the character offsets (start, end) of the tokens of a text."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
        return encoded["offset_mapping"]

    @cached_property
    def end_token(self) -> int:
        """The token that ends an answer: the end-of-turn token, or a line break."""
        if self.tokenizer.eos_token_id is not None:
            return int(self.tokenizer.eos_token_id)
        return self._encode(["\n"])[0][-1]

    @cached_property
    def _opening(self) -> list[int]:
        # The same for every schema, with or without examples.
        return self._frames.encode(self._wrap("", [])[1])

    def _frame(self, schema: LabelSchema) -> tuple[str, str]:
        """Return the text before and after the context, with masked special tokens in the texts of the user."""
        turns = [
            (
                self._frames.mask(self.texts.context(shown.context)),
                self._frames.mask(self.texts.query(shown) + _answer_text(wording)),
            )
            for shown, wording in self.texts.examples(schema)
        ]
        return self._wrap(self._frames.mask(self.texts.system(schema)), turns)

    def _wrap(self, system: str, turns: Sequence[tuple[str, str]]) -> tuple[str, str]:
        if not self.tokenizer.chat_template:
            shown = "".join(f"{question}\n{answer}\n\n" for question, answer in turns)
            return f"{system}\n\n{shown}", "\n"
        messages = [{"role": "system", "content": system}]
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": _PLACEHOLDER})
        # Remove the thought that templates of reasoning models insert: the answer is only a label.
        rendered = _THINKING.sub("", render_chat(self.tokenizer, messages))
        before, found, after = rendered.rpartition(_PLACEHOLDER)
        if not found:
            raise ValueError("The chat template of the model does not show the user's message. Use another model.")
        return before, after

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Tokenize user text, in which special tokens such as "<|im_end|>" are ordinary strings."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _answer_text(wording: str) -> str:
    return f" {wording}"


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """Render messages with "role" and "content" by a model's chat template, up to its answer and without thinking.

    Raises:
        ValueError: The chat template has an error, or takes too long.
    """
    template = _chat_template(str(tokenizer.get_chat_template()))

    def render(messages: Sequence[Mapping[str, str]]) -> str:
        return template.render(
            **tokenizer.special_tokens_map,
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            enable_thinking=False,
        )

    try:
        return render(messages)
    except ValueError as error:
        refused = isinstance(error.__cause__, TemplateError) and not isinstance(error.__cause__, SecurityError)
        if not refused or len(messages) < 2 or messages[0]["role"] != "system":
            raise
        # Some models have no system turn: prepend the instruction to the first user turn.
        system, first, *rest = messages
        return render([{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest])


@lru_cache
def _chat_template(source: str) -> SafeTemplate:
    return SafeTemplate(source, "chat template of the model", is_chat=True)


def number_mentions(context: Context, *, types: bool = False) -> str:
    """Put mentions in numbered brackets: "Ann met Bo" becomes "[1 Ann] met [2 Bo]".

    With types, it becomes "[1 Ann (PERSON)] met [2 Bo (PERSON)]".
    """
    inserts: list[tuple[int, int, int, str]] = []
    for number, mention in enumerate(context.mentions, 1):
        # At the same position, close brackets before opening others; longer mentions open first and close last.
        inserts.append((mention.start, 1, -mention.end, f"[{number} "))
        kind = f" ({mention.type})" if types and mention.type else ""
        inserts.append((mention.end, 0, -mention.start, f"{kind}]"))
    pieces, position = [], 0
    for place, _, _, insert in sorted(inserts):
        pieces += [context.text[position:place], insert]
        position = place
    return "".join([*pieces, context.text[position:]])


def _describe(instance: RelationInstance, position: int) -> dict[str, Any]:
    mention = instance.context.mentions[position]
    text = instance.text_of(mention)
    return {
        "number": position + 1,
        "text": text,
        "type": mention.type,
        "repeated": sum(instance.text_of(other) == text for other in instance.context.mentions) > 1,
    }
