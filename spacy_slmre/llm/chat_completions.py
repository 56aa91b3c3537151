"""Chat models behind the chat completions API: OpenAI's, and servers of one's own that speak it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spacy_slmre.llm.chat import ChatPrompt
from spacy_slmre.llm.replies import Reply
from spacy_slmre.llm.service import ChatService


@dataclass(kw_only=True)
class ChatCompletions(ChatService):
    """Registered as `@llm_models = "spacy-slmre.ChatCompletions.v1"`; see `ChatService` for the settings.

    vLLM, llama.cpp, Ollama and most other servers speak this API too: give their address as `endpoint` and,
    where they ask for no key, null as `key_variable`. Models that refuse `temperature` or `max_tokens` want
    null there, and, say, `max_completion_tokens` in `extra`.
    """

    endpoint: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"

    @property
    def url(self) -> str:
        """Where requests go."""
        address = self.endpoint.rstrip("/")
        return address if address.endswith("/chat/completions") else f"{address}/chat/completions"

    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """The request for a prompt."""
        return {
            "model": self.name,
            "messages": list(prompt.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def authorization(self, key: str | None) -> dict[str, str]:
        """Headers that carry the key."""
        return {"Authorization": f"Bearer {key}"} if key is not None else {}

    def read(self, data: Any) -> Reply:
        """The reply in the JSON of an answer."""
        choice, usage = data["choices"][0], data.get("usage") or {}
        text = choice["message"].get("content")
        if not isinstance(text, str | None):
            raise TypeError("the content is no text")
        ending = str(choice["message"].get("refusal") or choice.get("finish_reason"))
        return Reply(
            text,
            ending,
            choice.get("finish_reason") == "length",
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
        )
