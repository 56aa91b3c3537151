"""The loss of packed sequences: the negative log-probability of the gold labels.

With the objective "trie", probabilities are the same products of softmaxes that scoring computes, so training and
inference agree; with "lm", the loss is the plain language-model loss on the answer's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from spacy_slmre.models.attention import attention_inputs
from spacy_slmre.models.causal_lm.sequences import TrainingSequence

Batch = dict[str, torch.Tensor]


def as_batch(sequence: TrainingSequence) -> Batch:
    """Return the tensors of a sequence as input for `packed_loss`."""
    packed = sequence.packed
    batch = {
        "input_ids": torch.from_numpy(packed.tokens)[None],
        "position_ids": torch.from_numpy(packed.positions)[None],
        "mask": torch.from_numpy(packed.mask),
        "positions": torch.from_numpy(sequence.positions),
        "targets": torch.from_numpy(sequence.targets),
        "weights": torch.from_numpy(sequence.weights),
    }
    if sequence.choices is not None:
        batch["choices"] = torch.from_numpy(sequence.choices)
    return batch


def packed_loss(network: Any, batch: Batch) -> torch.Tensor:
    """Return the summed loss of all instances in a sequence; the mean is this divided by the sequence's `count`.

    Args:
        network: A causal language model, or a wrapper of one for several devices.
        batch: Result of `as_batch`, on the network's device.
    """
    # Vocabularies are large, so logits are only computed where a decision is made.
    output = network(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        **attention_inputs(batch["mask"]),
        logits_to_keep=batch["positions"],
        use_cache=False,
    )
    logits = output.logits[0].float()
    if "choices" in batch:
        choices = batch["choices"]
        logits = logits.gather(1, choices.clamp(min=0)).masked_fill(choices < 0, -torch.inf)
    losses = F.cross_entropy(logits, batch["targets"], reduction="none")
    return (losses * batch["weights"]).sum()


def accumulate_gradients(network: Any, sequences: Sequence[TrainingSequence], n_instances: int) -> float:
    """Accumulate the gradients of the mean loss over all instances, and return the loss.

    If the loss is not finite, all gradients are cleared.
    """
    total = 0.0
    for sequence in sequences:
        batch = {name: tensor.to(network.device) for name, tensor in as_batch(sequence).items()}
        loss = packed_loss(network, batch) / n_instances
        value = float(loss.detach())
        if not math.isfinite(value):
            network.zero_grad()
            return value
        loss.backward()
        total += value
    return total
