"""Local chat models through transformers, with greedy decoding."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from spacy_slmre.llm.chat import ChatPrompt, Unanswered
from spacy_slmre.util.settings import check_choice, check_minimum, check_types

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(kw_only=True)
class HuggingFaceChat:
    """The model `@llm_models = "spacy-slmre.HuggingFace.v1"`. Weights are loaded at the first prompt.

    Attributes:
        base: "smollm2-135m-instruct" (the packaged model), a folder, or a hub id.
        revision: Commit or tag on the hub.
        quantization: "nf4" for 4-bit weights, null for the weights as stored, or "auto" ("nf4" unless the stored
            weights already have 4 bits).
        keep_4bit: Keep NF4 weights in 4 bits on a CPU; by default they are dequantized to `dtype`.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 if the hardware supports it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU if there is one.
        max_new_tokens: Maximum tokens of an answer.
        batch_size: Prompts per batch.
        context_length: Maximum tokens of prompt and answer; the model's own limit applies, too. Longer prompts are not
            answered.

    Raises:
        ValueError: A setting is out of range.
    """

    # For cost estimates: local models are free.
    input_price: ClassVar[float] = 0.0
    output_price: ClassVar[float] = 0.0

    base: str = "smollm2-135m-instruct"
    revision: str | None = None
    quantization: str | None = None
    keep_4bit: bool = False
    dtype: str = "auto"
    device: str = "auto"
    max_new_tokens: int = 32
    batch_size: int = 8
    context_length: int = 8_192
    _loaded: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_types(self, "model")
        check_choice(self, "model", quantization=("auto", "nf4", None))  # QUANTIZATIONS would import torch
        check_minimum(self, "model", max_new_tokens=1, batch_size=1, context_length=self.max_new_tokens + 1)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes load the weights themselves, which is cheaper than pickling them.
        return {**self.__dict__, "_loaded": None}

    def __call__(self, prompts: typing.Iterable[typing.Iterable[Any]]) -> typing.Iterable[typing.Iterable[Any]]:
        """Answer the prompts of several documents, batched across documents.

        Returns:
            For each document and prompt the answer, or `Unanswered` if the prompt is too long.

        Raises:
            ModelError: The model is not available.
        """
        encoded = [[self._encode(ChatPrompt.from_any(prompt)) for prompt in doc_prompts] for doc_prompts in prompts]
        rows = [tokens for doc_rows in encoded for tokens in doc_rows]
        limit = self._max_prompt_tokens() if rows else 0
        generated = iter(self._generate([tokens for tokens in rows if len(tokens) <= limit]))
        return [
            [
                next(generated)
                if len(tokens) <= limit
                else Unanswered(f"the prompt has {len(tokens)} tokens, but the limit is {limit}")
                for tokens in doc_rows
            ]
            for doc_rows in encoded
        ]

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, or of a `ChatPrompt` including the chat template."""
        if isinstance(text, ChatPrompt):
            return len(self._encode(text))
        return len(self.load()[1](text, add_special_tokens=False)["input_ids"])

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the weights if necessary, and return the model and its tokenizer.

        Raises:
            ModelError: The model is not available.
        """
        if self._loaded is None:
            from spacy_slmre.models import hub
            from spacy_slmre.models.causal_lm import loading

            device = hub.resolve_device(self.device)
            self._loaded = loading.load_base(
                hub.locate_base(self.base, self.revision),
                quantization=self.quantization,
                dtype=hub.resolve_dtype(self.dtype, device),
                device=device,
                keep_4bit=self.keep_4bit,
                any_layers=True,
            )
        return self._loaded

    def _max_prompt_tokens(self) -> int:
        positions = getattr(self.load()[0].config, "max_position_embeddings", None) or self.context_length
        return min(self.context_length, positions) - self.max_new_tokens

    def _encode(self, prompt: ChatPrompt) -> list[int]:
        """Tokenize a prompt; special tokens in message contents are encoded as ordinary text."""
        from spacy_slmre.models.prompts import FrameEncoder, render_chat

        tokenizer = self.load()[1]
        if not tokenizer.chat_template:
            return tokenizer(f"{prompt}\n", split_special_tokens=True)["input_ids"]
        frames = FrameEncoder(tokenizer)
        messages = [{**message, "content": frames.mask(message["content"])} for message in prompt.messages]
        return frames.encode(render_chat(tokenizer, messages))

    def _generate(self, prompts: list[list[int]]) -> list[str]:
        from spacy_slmre.models.causal_lm.generation import complete

        if not prompts:
            return []
        network, tokenizer = self.load()
        ends = network.generation_config.eos_token_id if network.generation_config else None
        end_tokens = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        return complete(
            network,
            tokenizer,
            prompts,
            sorted(end_tokens) or [0],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    def __str__(self) -> str:
        return f"{self.base} on this machine"
