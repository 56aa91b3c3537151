"""Measure what quantizing a base model to NF4 costs: loss and divergence on raw text, by kind of layer.

    python benchmarks/rounding.py CORPUS [--base smollm2-135m-instruct] [--blocks 6] [--rank 16]

CORPUS was written by `slmre convert`; only its texts are used. Prints the mean loss of the next token, and the mean
Kullback-Leibler divergence of its distribution from that of the stored weights: with all linear layers in NF4, with one
kind of them, and with all in NF4 and initial LoRA weights: those of LoftQ (arXiv 2310.08659), the best
approximation of the quantization error, or those of `lora.init_lora = "qera"`, which also considers the magnitude of
the inputs, measured on other blocks of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from spacy.vocab import Vocab
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.models.causal_lm.loading import load_base
from spacy_slmre.models.causal_lm.loss import Batch
from spacy_slmre.models.causal_lm.qera import input_sizes, low_rank_factors
from spacy_slmre.models.hub import PACKAGED_BASE, locate_base

BLOCK = 256
BLOCKS_FOR_SIZES = 32


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--base", default=PACKAGED_BASE)
    parser.add_argument("--blocks", type=int, default=6, help=f"blocks of {BLOCK} tokens, drawn with seed 0")
    parser.add_argument("--rank", type=int, default=16, help="rank of the LoRA weights")
    arguments = parser.parse_args()
    model, tokenizer = load_base(
        locate_base(arguments.base), quantization=None, dtype=torch.float32, device=torch.device("cpu")
    )
    texts = dict.fromkeys(doc.text for doc in read_docs(arguments.corpus, Vocab()))
    tokens = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    blocks = tokens[: len(tokens) // BLOCK * BLOCK].view(-1, BLOCK)
    blocks = blocks[torch.randperm(len(blocks), generator=torch.Generator().manual_seed(0))]
    others = blocks[arguments.blocks :][:BLOCKS_FOR_SIZES]
    blocks = blocks[: arguments.blocks]
    layers = {name: module for name, module in model.get_decoder().named_modules() if isinstance(module, nn.Linear)}
    weights = {name: layer.weight.data for name, layer in layers.items()}
    sizes = input_sizes(model, map(as_batch, others))
    kinds = sorted({name.rpartition(".")[2] for name in layers})
    changes: dict[str, Callable[[str, Tensor], Tensor]] = {
        "stored": lambda name, weight: weight,
        "NF4": lambda name, weight: nf4(weight),
        f"NF4, LoftQ of rank {arguments.rank}": lambda name, weight: loftq(weight, arguments.rank),
        f"NF4, QERA of rank {arguments.rank}": lambda name, weight: loftq(weight, arguments.rank, sizes[name]),
    }
    for kind in kinds:
        changes[f"NF4 in {kind}"] = lambda name, weight, kind=kind: nf4(weight) if name.endswith(kind) else weight
    table = Table("weights", "loss", "divergence")
    reference: Tensor | None = None
    for title, change in track(list(changes.items()), "Scoring", console=Console(stderr=True)):
        for name, layer in layers.items():
            layer.weight.data = change(name, weights[name])
        with torch.inference_mode():
            found = torch.cat([model(block[None]).logits for block in blocks]).log_softmax(-1)
        reference = found if reference is None else reference
        loss = cross_entropy(found[:, :-1].flatten(0, 1), blocks[:, 1:].flatten())
        divergence = kl_div(found.flatten(0, 1), reference.flatten(0, 1), reduction="batchmean", log_target=True)
        table.add_row(title, f"{loss:.3f}", f"{divergence:.3f}")
    Console().print(table)


def nf4(weight: Tensor) -> Tensor:
    """Round weights to NF4 with double quantization."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    return dequantize_4bit(*quantize_4bit(weight, quant_type="nf4", compress_statistics=True))


def loftq(weight: Tensor, rank: int, sizes: Tensor | float = 1.0) -> Tensor:
    """Round to NF4 and add the best low-rank approximation of the error for inputs of these sizes."""
    rounded = nf4(weight)
    left, right = low_rank_factors((weight - rounded) * sizes, rank)
    return rounded + left @ right / sizes


def as_batch(block: Tensor) -> Batch:
    """Return a block of text as a packed sequence without decisions."""
    nothing = torch.zeros(1, dtype=torch.long)
    return {
        "input_ids": block[None],
        "position_ids": torch.arange(len(block))[None],
        "mask": torch.ones(len(block), len(block), dtype=torch.bool).tril(),
        "positions": nothing,
        "targets": nothing,
        "weights": nothing.float(),
    }


if __name__ == "__main__":
    main()
