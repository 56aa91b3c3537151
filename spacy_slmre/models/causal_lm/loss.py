"""The loss: the negative log of the gold label's probability, over packed sequences.

With the objective "trie" it is the same product of softmaxes that scoring gives as the label's probability,
so that training and use agree; with "lm" it is the plain loss of a language model on the answer's tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from spacy_slmre.models.causal_lm.attention import attention_inputs
from spacy_slmre.models.causal_lm.sequences import TrainingSequence

Batch = dict[str, torch.Tensor]


def as_batch(sequence: TrainingSequence) -> Batch:
    """The tensors of one sequence, as `packed_loss` reads them."""
    packed = sequence.packed
    batch = {
        "input_ids": torch.from_numpy(packed.tokens)[None],
        "position_ids": torch.from_numpy(packed.positions)[None],
        "mask": torch.from_numpy(packed.mask),
        "places": torch.from_numpy(sequence.places),
        "targets": torch.from_numpy(sequence.targets),
        "weights": torch.from_numpy(sequence.weights),
    }
    if sequence.choices is not None:
        batch["choices"] = torch.from_numpy(sequence.choices)
    return batch


def packed_loss(network: Any, batch: Batch) -> torch.Tensor:
    """The sum of the losses of all instances in a sequence; divide it by the sequence's `count`.

    Args:
        network: A causal language model, called as such (so that wrappers for several devices work).
        batch: What `as_batch` gave, on the network's device.
    """
    # Logits where something is decided only: a vocabulary is wide.
    output = network(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        **attention_inputs(batch["mask"]),
        logits_to_keep=batch["places"],
        use_cache=False,
    )
    logits = output.logits[0].float()
    if "choices" in batch:
        choices = batch["choices"]
        logits = logits.gather(1, choices.clamp(min=0)).masked_fill(choices < 0, -torch.inf)
    losses = F.cross_entropy(logits, batch["targets"], reduction="none")
    return (losses * batch["weights"]).sum()
