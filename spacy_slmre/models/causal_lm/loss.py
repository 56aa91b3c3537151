"""The loss: the negative log of the gold label's probability, over packed sequences.

With the objective "trie" it is the same product of softmaxes that scoring returns as the label's probability, so
training and use agree; with "lm" it is the plain language-model loss on the answer's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from spacy_slmre.models.causal_lm.attention import attention_inputs
from spacy_slmre.models.causal_lm.sequences import TrainingSequence

Batch = dict[str, torch.Tensor]


def as_batch(sequence: TrainingSequence) -> Batch:
    """Return the tensors of a sequence, the input of `packed_loss`."""
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
    """Compute the summed loss of all instances in a sequence; divide it by the sequence's `count`.

    Args:
        network: A causal language model. It is called as such, so wrappers for several devices work.
        batch: Result of `as_batch`, on the network's device.
    """
    # Logits only where something is decided: vocabularies are large.
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
    """Accumulate the gradients of the mean loss over all instances of some sequences.

    Returns:
        The mean loss. If it is not finite, all gradients have been cleared.
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
