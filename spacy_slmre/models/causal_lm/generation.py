"""Greedy generation of answers, for comparison with scoring labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spacy_slmre.instances import RelationInstance
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
    """Generate an answer for each pair, which is not necessarily a label.

    Prompts have the same tokens as in scoring, but are computed separately.

    Args:
        lm: The model.
        instances: Instances whose contexts fit the model (see `SmallLM.truncate`).
        schema: The labels, which the instruction lists if the prompt style says so.
        max_new_tokens: Maximum number of tokens in an answer.
        batch_size: Prompts per batch.
    """
    prompts = lm.prompts
    prefix = prompts.prefix(schema)
    contexts = prompts.contexts([instance.context for instance in instances])
    sequences = [
        [*prefix, *context, *query] for context, query in zip(contexts, prompts.queries(instances), strict=True)
    ]
    return complete(
        lm.network,
        prompts.tokenizer,
        sequences,
        [prompts.end_token],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )


def complete(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[Sequence[int]],
    end_tokens: Sequence[int],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Complete token sequences greedily, longest first, in left-padded batches.

    Args:
        network: The model.
        tokenizer: Its tokenizer.
        sequences: Tokens of the prompts.
        end_tokens: Tokens that end an answer, at least one.
        max_new_tokens: Maximum number of tokens in an answer.
        batch_size: Prompts per batch.

    Returns:
        The answers in order, without special tokens and surrounding white space.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    answers = [""] * len(sequences)
    was_training = network.training
    network.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = len(sequences[rows[0]])
        padded = [[end_tokens[0]] * (length - len(sequences[row])) + [*sequences[row]] for row in rows]
        mask = [[0] * (length - len(sequences[row])) + [1] * len(sequences[row]) for row in rows]
        with torch.inference_mode():
            output = network.generate(  # type: ignore[operator]
                input_ids=torch.tensor(padded, device=network.device),
                attention_mask=torch.tensor(mask, device=network.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=end_tokens[0],
                eos_token_id=list(end_tokens),
            )
        for row, tokens in zip(rows, output[:, length:].tolist(), strict=True):
            answers[row] = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    network.train(was_training)
    return answers
