"""Claude models behind Anthropic's messages API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spacy_slmre.llm.chat import ChatPrompt
from spacy_slmre.llm.replies import Reply
from spacy_slmre.llm.service import ChatService

API_VERSION = "2023-06-01"


@dataclass(kw_only=True)
class AnthropicMessages(ChatService):
    """Registered as `@llm_models = "spacy-slmre.AnthropicMessages.v1"`; see `ChatService` for the settings.

    Raises:
        ValueError: `max_tokens` is None, which this API does not allow.
    """

    endpoint: str = "https://api.anthropic.com/v1"
    key_variable: str | None = "ANTHROPIC_API_KEY"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens is None:
            raise ValueError("model.max_tokens = null, but the messages API wants a number.")

    @property
    def url(self) -> str:
        """Where requests go."""
        address = self.endpoint.rstrip("/")
        return address if address.endswith("/messages") else f"{address}/messages"

    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """The request for a prompt; the system's words stand apart from the messages."""
        system = "\n\n".join(told["content"] for told in prompt.messages if told["role"] == "system")
        return {
            "model": self.name,
            "system": system or None,
            "messages": [told for told in prompt.messages if told["role"] != "system"],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def authorization(self, key: str | None) -> dict[str, str]:
        """Headers that carry the key and the version of the API."""
        version = {"anthropic-version": API_VERSION}
        return {**version, "x-api-key": key} if key is not None else version

    def read(self, data: Any) -> Reply:
        """The reply in the JSON of an answer: its blocks of text, without thoughts."""
        ending, usage = data.get("stop_reason"), data.get("usage") or {}
        texts = [block["text"] for block in data["content"] if block["type"] == "text"]
        # With the service's own prompt cache in use, what it held already is counted apart.
        read = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return Reply(
            None if ending == "refusal" else "".join(texts),
            str(ending),
            ending == "max_tokens",
            sum(int(usage.get(kind) or 0) for kind in read),
            int(usage.get("output_tokens") or 0),
        )
