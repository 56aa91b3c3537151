"""What is said to a chat model, and what may come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.prompts import PromptTexts
from spacy_slmre.schema import LabelSchema

Message = dict[str, str]
"""A message with its "role" ("system", "user", "assistant") and "content"."""

BYTES_A_TOKEN = 4
TOKENS_A_MESSAGE = 4


class ChatPrompt(str):
    """A prompt as chat messages. Models that know no messages read all of it as one text.

    Attributes:
        messages: The messages; the last one is the user's.
    """

    messages: tuple[Message, ...]

    def __new__(cls, messages: Iterable[Message]) -> ChatPrompt:
        """A prompt of messages."""
        messages = tuple(messages)
        prompt = super().__new__(cls, "\n\n".join(message["content"] for message in messages))
        prompt.messages = messages
        return prompt

    @classmethod
    def of(cls, prompt: Any) -> ChatPrompt:
        """Any prompt: the plain text of another task is one message of the user."""
        return prompt if isinstance(prompt, cls) else cls([{"role": "user", "content": str(prompt)}])

    def __getnewargs__(self) -> tuple[tuple[Message, ...]]:  # type: ignore[override]
        """For pickle."""
        return (self.messages,)


class Unanswered(str):
    """Stands for the answer that did not come; to tasks that know nothing of it, an empty text.

    Attributes:
        reason: Why, for people.
    """

    reason: str

    def __new__(cls, reason: str) -> Unanswered:
        """No answer, for a reason."""
        answer = super().__new__(cls, "")
        answer.reason = reason
        return answer

    def __getnewargs__(self) -> tuple[str]:
        """For pickle."""
        return (self.reason,)


def chat_prompts(
    texts: PromptTexts, instances: Sequence[RelationInstance], schema: LabelSchema
) -> list[ChatPrompt]:
    """The prompt of each instance: instruction and labels by the system, text and pair by the user.

    Demonstrations stand between them, as turns that were answered with a label's wording.

    Raises:
        ValueError: A demonstration has a label that the schema lacks.
    """
    opening = [{"role": "system", "content": texts.system(schema)}]
    for shown, wording in texts.demonstrations(schema):
        opening.append({"role": "user", "content": _question(texts, shown)})
        opening.append({"role": "assistant", "content": wording})
    return [
        ChatPrompt([*opening, {"role": "user", "content": _question(texts, instance)}])
        for instance in instances
    ]


def _question(texts: PromptTexts, instance: RelationInstance) -> str:
    return f"{texts.context(instance.context)}\n{texts.query(instance)}"


def estimate_tokens(text: str) -> int:
    """How many tokens a text has, roughly: one for every four bytes of its UTF-8.

    Tokenizers differ. English comes out within about a fifth, and scripts of several bytes a character near
    one token a character.
    """
    return -(-len(text.encode(errors="surrogatepass")) // BYTES_A_TOKEN)


def estimate_prompt_tokens(prompt: ChatPrompt) -> int:
    """How many tokens a prompt has, roughly: those of its texts, and four a message for its frame."""
    return sum(estimate_tokens(message["content"]) + TOKENS_A_MESSAGE for message in prompt.messages)
