"""Models through the chat completions API of OpenAI or of a compatible server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spacy_slmre.llm.chat import ChatPrompt
from spacy_slmre.llm.service import ChatService, Reply


@dataclass(kw_only=True, repr=False)
class OpenAIChat(ChatService):
    """The model `@llm_models = "spacy-slmre.OpenAI.v1"`; see `ChatService` for its settings.

    vLLM, llama.cpp, Ollama and most other servers are compatible: set `base_url` to their address, for example
    "http://localhost:8000/v1", and `api_key_env` to null if they need no key. For models that reject `temperature` or
    `max_tokens`, set these to null and use, for example, `max_completion_tokens` in `extra_body`.
    """

    package: ClassVar[str] = "openai"
    client_class: ClassVar[str] = "OpenAI"

    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"

    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """Return the fields of the request."""
        return {
            "model": self.name,
            "messages": list(prompt.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def send(self, client: Any, body: dict[str, Any], headers: dict[str, Any]) -> Any:
        """Call the chat completions API; `extra_body` also passes fields unknown to the package."""
        return client.chat.completions.create(
            model=body["model"], messages=body["messages"], extra_body=body, extra_headers=headers
        )

    def read(self, response: Any) -> Reply:
        """Read the first choice."""
        choice, usage = response.choices[0], response.usage
        if not isinstance(choice.message.content, str | None):
            raise TypeError("the content is not a text")
        return Reply(
            text=choice.message.content,
            stop_reason=str(choice.message.refusal or choice.finish_reason),
            truncated=choice.finish_reason == "length",
            input_tokens=(usage and usage.prompt_tokens) or 0,
            output_tokens=(usage and usage.completion_tokens) or 0,
        )
