"""What a run would take, before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc

from spacy_slmre.llm.chat import BYTES_A_TOKEN, estimate_prompt_tokens, estimate_tokens
from spacy_slmre.llm.task import RelationTask

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper

MILLION = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        model: Which model, and where.
        pairs: Pairs that would be asked about.
        requests: Prompts that would be sent: without those that the cache answers, or that stand twice in a
            document.
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens of the answers, if each is as long as the longest wording of a label.
        counted_by: How tokens were counted, in words.
        cost: US dollars; None where the config has no prices.
    """

    model: str
    pairs: int
    requests: int
    input_tokens: int
    output_tokens: int
    counted_by: str
    cost: float | None

    def __str__(self) -> str:
        lines = [f"{self.requests:,} request{'s' * (self.requests != 1)} to {self.model}"]
        if known := self.pairs - self.requests:
            lines[0] += f" (of {self.pairs:,} pairs, {known:,} without one: answered already, or too long)"
        lines.append(
            f"about {self.input_tokens:,} tokens in, {self.output_tokens:,} out ({self.counted_by}; what a "
            "model thinks or writes beyond a label comes on top)"
        )
        if self.cost is None:
            lines.append("cost unknown: the config has no model.input_price and model.output_price")
        elif 0 < self.cost < 0.01:
            lines.append("less than 0.01 US dollars")
        else:
            lines.append(f"about {self.cost:,.2f} US dollars")
        return "\n".join(lines)


def estimate(component: LLMWrapper, docs: Iterable[Doc]) -> Estimate:
    """What it would take to annotate documents. Nothing is sent.

    Args:
        component: An `llm` component with our task; with models that are not ours, tokens are estimated and
            there is no cost.
        docs: Documents with entities (or given candidate pairs).

    Raises:
        ValueError: It has another task, or its labels or prompts cannot be had.
    """
    task, model = component.task, component._model  # spacy-llm has no public name for the model
    if not isinstance(task, RelationTask):
        raise ValueError(f"Costs are estimated for our own task, not for {type(task).__name__}.")
    own_count = getattr(model, "count_tokens", None)
    pairs = requests = read = 0
    for some, _ in task.generate_prompts(docs):
        prompts = list(some)
        pending = model.pending(prompts) if hasattr(model, "pending") else prompts
        pairs += len(prompts)
        requests += len(pending)
        read += sum((own_count or estimate_prompt_tokens)(prompt) for prompt in pending)
    wordings = [label.wording for label in task.schema.labels]
    written = requests * max((own_count or estimate_tokens)(wording) for wording in wordings)
    return Estimate(
        str(model),
        pairs,
        requests,
        read,
        written,
        "counted by the model's tokenizer" if own_count else f"a token for every {BYTES_A_TOKEN} bytes",
        cost_of(model, read, written),
    )


def cost_of(model: Any, read: int, written: int) -> float | None:
    """US dollars for so many tokens; None where the config has no prices."""
    input_price, output_price = (getattr(model, f"{side}_price", None) for side in ("input", "output"))
    if input_price is None or output_price is None:
        return None
    return (read * input_price + written * output_price) / MILLION
