"""Free greedy generation, the usual way of asking a language model: to compare with scoring the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.loading import ModelError
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.schema import LabelSchema


def generate_answers(
    lm: SmallLM,
    instances: Sequence[RelationInstance],
    schema: LabelSchema,
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
) -> list[str]:
    """What a model writes behind each pair: any words, which may be no label.

    The prompts have the very tokens that scoring computes, each in full.

    Args:
        lm: The model.
        instances: What to ask; contexts fit the model (see `SmallLM.fit`).
        schema: The labels, which the instruction lists if the prompt style says so.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts a batch.

    Returns:
        The answers, in the order of the instances.

    Raises:
        ModelError: The model reads texts two ways, which generation cannot.
    """
    if lm.prompts.style.two_way:
        raise ModelError(
            "The adapter was tuned on texts that are read two ways, and generation reads them one way: score "
            "its labels instead."
        )
    prompts, tokenizer, network = lm.prompts, lm.prompts.tokenizer, lm.network
    prefix = prompts.prefix(schema)
    contexts = prompts.contexts([instance.context for instance in instances])
    sequences = [
        [*prefix, *context, *query]
        for context, query in zip(contexts, prompts.queries(instances), strict=True)
    ]
    return complete(
        network,
        tokenizer,
        sequences,
        [prompts.end_token],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )


def complete(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[Sequence[int]],
    ends: Sequence[int],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """What a model writes greedily behind sequences of tokens, longest first in batches padded on the left.

    Args:
        network: The model.
        tokenizer: Its tokenizer.
        sequences: Tokens of the prompts.
        ends: Tokens that end an answer, at least one.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts a batch.

    Returns:
        The answers, in the order of the prompts, without special tokens and white space at the edges.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    answers = [""] * len(sequences)
    was_training = network.training
    network.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = len(sequences[rows[0]])
        padded = [[ends[0]] * (length - len(sequences[row])) + [*sequences[row]] for row in rows]
        mask = [[0] * (length - len(sequences[row])) + [1] * len(sequences[row]) for row in rows]
        with torch.inference_mode():
            output = network.generate(  # type: ignore[operator]
                input_ids=torch.tensor(padded, device=network.device),
                attention_mask=torch.tensor(mask, device=network.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=ends[0],
                eos_token_id=list(ends),
            )
        for row, tokens in zip(rows, output[:, length:].tolist(), strict=True):
            answers[row] = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    network.train(was_training)
    return answers
