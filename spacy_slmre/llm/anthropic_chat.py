"""Claude models through Anthropic's messages API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spacy_slmre.llm.chat import ChatPrompt
from spacy_slmre.llm.service import ChatService, Reply


@dataclass(kw_only=True, repr=False)
class AnthropicChat(ChatService):
    """The model `@llm_models = "spacy-slmre.Anthropic.v1"`; see `ChatService` for its settings.

    Raises:
        ValueError: `max_tokens` is None, which this API does not allow.
    """

    package: ClassVar[str] = "anthropic"
    client_class: ClassVar[str] = "Anthropic"

    base_url: str = "https://api.anthropic.com"
    api_key_env: str | None = "ANTHROPIC_API_KEY"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens is None:
            raise ValueError("model.max_tokens = null, but Anthropic's API requires a number.")

    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """Return the fields of the request, with system messages in a separate field."""
        system = "\n\n".join(message["content"] for message in prompt.messages if message["role"] == "system")
        return {
            "model": self.name,
            "system": system or None,
            "messages": [message for message in prompt.messages if message["role"] != "system"],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def send(self, client: Any, body: dict[str, Any], headers: dict[str, Any]) -> Any:
        """Call the messages API."""
        required = {name: body[name] for name in ("model", "messages", "max_tokens")}
        return client.messages.create(**required, extra_body=body, extra_headers=headers)

    def read(self, response: Any) -> Reply:
        """Read the text blocks; reasoning blocks are ignored."""
        usage = response.usage
        text = "".join(block.text for block in response.content if block.type == "text")
        # Tokens in the provider's prompt cache are counted separately.
        counts = (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
        return Reply(
            text=None if response.stop_reason == "refusal" else text,
            stop_reason=str(response.stop_reason),
            truncated=response.stop_reason == "max_tokens",
            input_tokens=sum(count or 0 for count in counts),
            output_tokens=usage.output_tokens or 0,
        )
