"""Chat prompts, missing answers, and token estimates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.prompts import PromptTexts
from spacy_slmre.schema import LabelSchema

Message = dict[str, str]
"""A message with "role" ("system", "user" or "assistant") and "content"."""

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


class ChatPrompt(str):
    """A prompt with its chat messages; other spacy-llm models read it as plain text.

    Attributes:
        messages: The messages; the last one is the user's.
    """

    messages: tuple[Message, ...]

    def __new__(cls, messages: Iterable[Message]) -> ChatPrompt:
        """Join the messages' contents into the text."""
        messages = tuple(messages)
        prompt = super().__new__(cls, "\n\n".join(message["content"] for message in messages))
        prompt.messages = messages
        return prompt

    @classmethod
    def from_any(cls, prompt: Any) -> ChatPrompt:
        """Return a chat prompt unchanged, and turn any other prompt into one user message."""
        return prompt if isinstance(prompt, cls) else cls([{"role": "user", "content": str(prompt)}])

    def __getnewargs__(self) -> tuple[tuple[Message, ...]]:  # type: ignore[override]
        """Return the arguments of `__new__` for pickle."""
        return (self.messages,)


class Unanswered(str):
    """Replaces a missing answer; other spacy-llm tasks read it as an empty text.

    Attributes:
        reason: Why there is no answer.
    """

    reason: str

    def __new__(cls, reason: str) -> Unanswered:
        """Create an empty text with a reason."""
        answer = super().__new__(cls, "")
        answer.reason = reason
        return answer

    def __getnewargs__(self) -> tuple[str]:
        """Return the arguments of `__new__` for pickle."""
        return (self.reason,)


def chat_prompts(texts: PromptTexts, instances: Sequence[RelationInstance], schema: LabelSchema) -> list[ChatPrompt]:
    """Return the prompt of each instance.

    The system message contains the instruction and the labels, the last user message the text and the pair. Few-shot
    examples in between are user messages and answers with a label's wording.

    Raises:
        ValueError: The label of a few-shot example is not in the schema.
    """
    messages = [{"role": "system", "content": texts.system(schema)}]
    for example, wording in texts.examples(schema):
        messages.append({"role": "user", "content": _question(texts, example)})
        messages.append({"role": "assistant", "content": wording})
    return [ChatPrompt([*messages, {"role": "user", "content": _question(texts, instance)}]) for instance in instances]


def _question(texts: PromptTexts, instance: RelationInstance) -> str:
    return f"{texts.context(instance.context)}\n{texts.query(instance)}"


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text: one per four bytes of UTF-8.

    For English, this is within about 20 % of most tokenizers; for scripts with several bytes per character, it is close
    to one token per character.
    """
    return -(-len(text.encode(errors="surrogatepass")) // BYTES_PER_TOKEN)


def estimate_prompt_tokens(prompt: ChatPrompt) -> int:
    """Estimate the number of tokens of a prompt: those of its contents and four per message."""
    return sum(estimate_tokens(message["content"]) + TOKENS_PER_MESSAGE for message in prompt.messages)
