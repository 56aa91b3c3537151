"""Chat models on this machine, through transformers: greedy answers, written token by token."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from spacy_slmre.llm.chat import ChatPrompt, Unanswered

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Stands for a message's content while the chat template is rendered around it.
_GAP = "\u2402{}\u2403"


@dataclass(kw_only=True)
class HuggingFaceChat:
    """Registered as `@llm_models = "spacy-slmre.HuggingFaceChat.v1"`. Weights are loaded at the first prompt.

    Attributes:
        base: "smollm2-135m-instruct" (the packaged model), a folder, or a hub id.
        revision: Commit or tag on the hub.
        quantization: "nf4" for 4-bit weights, null for the weights as they lie, or "auto": "nf4" where they
            do not lie in 4 bits already.
        keep_4bit: Keep NF4 weights in 4 bits on a CPU, where they are otherwise brought back to `dtype`.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware computes in it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU where there is one.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts answered together.
        context_length: Most tokens of prompt and answer; a longer prompt stays unanswered. The model's own
            limit counts where it is lower.

    Raises:
        ValueError: A setting is out of its range.
    """

    # For estimates: what runs here costs nothing.
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
    _loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = field(
        default=None, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not self.base:
            raise ValueError("model.base is empty: give the packaged model, a folder or a hub id.")
        if self.quantization not in ("auto", "nf4", None):  # as QUANTIZATIONS, without importing torch
            raise ValueError(f'model.quantization = "{self.quantization}": use "auto", "nf4", or null.')
        for setting in ("max_new_tokens", "batch_size", "context_length"):
            if getattr(self, setting) < 1:
                raise ValueError(f"model.{setting} = {getattr(self, setting)}, but it must be at least 1.")

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes load the weights themselves: sending them would cost more.
        return {**self.__dict__, "_loaded": None}

    def __call__(
        self, prompts: typing.Iterable[typing.Iterable[Any]]
    ) -> typing.Iterable[typing.Iterable[Any]]:
        """Answer the prompts of several documents, all of them together.

        Returns:
            For each prompt what the model wrote, or `Unanswered` where the prompt is too long for it.

        Raises:
            ValueError: The model cannot be had.
        """
        asked = [[self._encode(ChatPrompt.of(prompt)) for prompt in some] for some in prompts]
        encoded = [tokens for some in asked for tokens in some]
        answers: list[str] = [""] * len(encoded)
        limit = self._limit() if encoded else 0
        fitting = []
        for row, tokens in enumerate(encoded):
            if len(tokens) > limit:
                answers[row] = Unanswered(f"the prompt has {len(tokens)} tokens, there is room for {limit}")
            else:
                fitting.append(row)
        for row, answer in zip(fitting, self._write([encoded[row] for row in fitting]), strict=True):
            answers[row] = answer
        remaining = iter(answers)
        return [[next(remaining) for _ in some] for some in asked]

    def ready(self) -> None:
        """Load the weights now rather than at the first prompt; does nothing where they are loaded.

        Raises:
            ValueError: The model cannot be had.
        """
        self._load()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, or of a whole prompt with its frame."""
        if isinstance(text, ChatPrompt):
            return len(self._encode(text))
        return len(self._load()[1](text, add_special_tokens=False)["input_ids"])

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            from spacy_slmre.models.causal_lm import loading

            device = loading.resolve_device(self.device)
            self._loaded = loading.load_base(
                loading.locate_base(self.base, self.revision),
                quantization=self.quantization,
                dtype=loading.resolve_dtype(self.dtype, device),
                device=device,
                keep_4bit=self.keep_4bit,
                any_layers=True,
            )
        return self._loaded

    def _limit(self) -> int:
        """Most tokens of a prompt."""
        positions = getattr(self._load()[0].config, "max_position_embeddings", None) or self.context_length
        return min(self.context_length, positions) - self.max_new_tokens

    def _encode(self, prompt: ChatPrompt) -> list[int]:
        """The tokens of a prompt; in what the messages say, "<|im_end|>" is nothing but characters."""
        from spacy_slmre.models.prompts import render_chat

        tokenizer = self._load()[1]
        if not tokenizer.chat_template:
            return tokenizer(f"{prompt}\n", split_special_tokens=True)["input_ids"]
        gaps = [{**message, "content": _GAP.format(n)} for n, message in enumerate(prompt.messages)]
        pieces = re.split(_GAP.format(r"(\d+)"), render_chat(tokenizer, gaps))
        tokens: list[int] = []
        for position, piece in enumerate(pieces):
            if position % 2:
                words = prompt.messages[int(piece)]["content"]
                tokens += tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            elif piece:
                tokens += tokenizer(piece, add_special_tokens=False)["input_ids"]
        return tokens

    def _write(self, prompts: list[list[int]]) -> list[str]:
        from spacy_slmre.models.causal_lm.generation import complete

        if not prompts:
            return []
        network, tokenizer = self._load()
        ends = network.generation_config.eos_token_id if network.generation_config else None
        stops = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        return complete(
            network,
            tokenizer,
            prompts,
            sorted(stops) or [0],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    def __str__(self) -> str:
        return f"{self.base} on this machine"
