"""Estimate the cost of annotating documents with a chat model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc

from spacy_slmre.llm.chat import BYTES_PER_TOKEN, estimate_prompt_tokens, estimate_tokens
from spacy_slmre.llm.task import RelationTask

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper


@dataclass(frozen=True)
class Estimate:
    """Estimated requests, tokens and cost of annotating documents."""

    model: str  # name and address
    pairs: int  # candidate pairs
    requests: int  # prompts to send, without cached, duplicate and too long ones
    input_tokens: int
    output_tokens: int  # if each answer is as long as the longest label
    counted_by: str  # how the tokens were counted
    cost: float | None  # in US dollars; None if the config has no prices

    def __str__(self) -> str:
        lines = [f"{self.requests:,} request{'s' * (self.requests != 1)} to {self.model}"]
        if skipped := self.pairs - self.requests:
            lines[0] += f" (of {self.pairs:,} pairs, {skipped:,} need none: cached, duplicate or too long)"
        lines.append(
            f"about {self.input_tokens:,} input and {self.output_tokens:,} output tokens ({self.counted_by}; "
            "not including reasoning or longer answers)"
        )
        if self.cost is None:
            lines.append("cost unknown: set model.input_price and model.output_price")
        elif 0 < self.cost < 0.01:
            lines.append("less than 0.01 US dollars")
        else:
            lines.append(f"about {self.cost:,.2f} US dollars")
        return "\n".join(lines)


def estimate(component: LLMWrapper, docs: Iterable[Doc]) -> Estimate:
    """Estimate the cost of annotating documents. Nothing is sent.

    Args:
        component: An `llm` component with our task. For models of other packages, the cost is unknown.
        docs: Documents with entities or given candidate pairs.

    Raises:
        ValueError: The component has another task, or its labels or prompts cannot be read.
    """
    task, model = component.task, component._model  # spacy-llm has no public attribute for the model
    if not isinstance(task, RelationTask):
        raise ValueError(f"Costs can only be estimated for RelationTask, not for {type(task).__name__}.")
    count_tokens = getattr(model, "count_tokens", None)
    pairs = requests = input_tokens = 0
    sent: set[int] = set()  # hashes, because the prompts of a large corpus do not fit into memory
    for of_doc, _ in task.generate_prompts(docs):
        prompts = list(of_doc)
        pairs += len(prompts)
        if hasattr(model, "pending"):
            unsent = {hash(repr(prompt)): prompt for prompt in model.pending(prompts)}
            prompts = [prompt for key, prompt in unsent.items() if key not in sent]
            sent |= unsent.keys()
        requests += len(prompts)
        input_tokens += sum((count_tokens or estimate_prompt_tokens)(prompt) for prompt in prompts)
    longest = max((count_tokens or estimate_tokens)(label.wording) for label in task.schema.labels)
    return Estimate(
        str(model),
        pairs,
        requests,
        input_tokens,
        requests * longest,
        "counted by the model's tokenizer" if count_tokens else f"one token per {BYTES_PER_TOKEN} bytes",
        cost_of(model, input_tokens, requests * longest),
    )


def cost_of(model: Any, input_tokens: int, output_tokens: int) -> float | None:
    """Return the cost in US dollars, or None if the model has no prices."""
    input_price, output_price = (getattr(model, f"{side}_price", None) for side in ("input", "output"))
    if input_price is None or output_price is None:
        return None
    return (input_tokens * input_price + output_tokens * output_price) / 1_000_000
