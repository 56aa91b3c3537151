"""Measure what packing saves in tuning: tokens per epoch, pairs per second, memory of a step.

Usage: python benchmarks/packing.py CORPUS … [--pairs 300] [--max-tokens 1024] [--rounds 2] [--output FILE]

A CORPUS is a converted benchmark (a .spacy file or a folder). Tokens are counted for all of them. A model is
tuned on pairs of the first one in two ways, in alternating rounds, with the same loss and optimizer: packed, one
sequence per step, and as one prompt per pair, sorted by length and right-padded, at most 16 per step. The first step of
each is not timed. Memory is the peak of a separate process in a step of one full sequence, compared with the memory
before it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import make_parser, read_instances
from rich.console import Console
from rich.table import Table

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.loss import as_batch, packed_loss
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.causal_lm.trie import LabelTrie
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.system import peak_memory, reset_peak_memory


def separate_prompts(lm: SmallLM, instances: Sequence[RelationInstance], schema: LabelSchema) -> list[list[int]]:
    """Return one prompt per pair, followed by the answer."""
    prefix, answers = lm.prompts.prefix(schema), lm.prompts.answers(schema)
    contexts = lm.prompts.contexts([one.context for one in instances])
    queries = lm.prompts.queries(instances)
    return [
        [*prefix, *context, *query, *answers[schema.index[str(one.label)]]]
        for one, context, query in zip(instances, contexts, queries, strict=True)
    ]


def unpacked_loss(lm: SmallLM, prompts: Sequence[list[int]], gold: Sequence[int], schema: LabelSchema) -> torch.Tensor:
    """Compute the same loss from a padded batch of separate prompts."""
    answers = lm.prompts.answers(schema)
    trie = LabelTrie(answers)
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), lm.prompts.end_token)
    mask = torch.zeros((len(prompts), length), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    hidden = lm.network.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    loss = torch.zeros(())
    for row, (prompt, column) in enumerate(zip(prompts, gold, strict=True)):
        place = len(prompt) - len(answers[column]) - 1
        for index, choice in trie.paths[column]:
            node = trie.nodes[index]
            place += len(node.prefix_tokens)
            weight = lm.network.get_output_embeddings().weight[list(node.tokens)]
            loss = loss + F.cross_entropy((hidden[row, place] @ weight.T).float(), torch.tensor(choice))
    return loss


def make_trainable() -> SmallLM:
    """Return the packaged model with new LoRA weights, in the default precision of this processor."""
    lm = make_small_lm(adapter=None, device="cpu")
    lm.begin_training(LabelSchema.general(), LoraSettings())
    lm.network.train()
    return lm


def as_tuned(lm: SmallLM) -> torch.autocast:
    """Return the autocast context that Hugging Face `Trainer` uses."""
    return torch.autocast("cpu", torch.bfloat16, enabled=lm.network.dtype == torch.bfloat16)


def measure_memory(corpus: Path, max_tokens: int, checkpointing: bool) -> dict[str, float]:
    """Return the GB of this process before a tuning step of one full sequence, and its peak."""
    instances, schema = read_instances(corpus)
    lm = make_trainable()
    if checkpointing:
        lm.network.activation_checkpointing_enable({"use_reentrant": False})
    room = max_tokens - len(lm.prompts.prefix(schema))
    sequences = TrainingSequences(lm.prompts, instances, schema, max_tokens=room, seed=0)
    sequence = max((sequences[n] for n in range(min(20, len(sequences)))), key=lambda s: len(s.packed.tokens))
    optimizer = torch.optim.AdamW(lm.trainable_parameters(), lr=1e-4)
    reset_peak_memory()
    before = peak_memory()
    for _ in range(2):
        with as_tuned(lm):
            loss = packed_loss(lm.network, as_batch(sequence)) / sequence.count
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"tokens": len(sequence.packed.tokens), "before_gb": before, "peak_gb": peak_memory()}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS")
    parser.add_argument(
        "--pairs", type=int, default=300, help="approximate number of pairs timed per round; 0 only counts tokens"
    )
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--memory", choices=["plain", "checkpointing"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(measure_memory(args.corpora[0], args.max_tokens, args.memory == "checkpointing")))
        return
    lm = make_trainable()
    found: dict[str, Any] = {
        "max_tokens": args.max_tokens,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {lm.network.dtype}",
        "tokens": {str(corpus): count_tokens(lm, corpus, args.max_tokens) for corpus in args.corpora},
    }
    if args.pairs:
        found["speed"] = measure_speed(lm, args.corpora[0], args.max_tokens, args.pairs, args.rounds)
        found["memory"] = {}
        for way in ("plain", "checkpointing"):
            command = [sys.executable, __file__, str(args.corpora[0]), "--max-tokens", str(args.max_tokens)]
            done = subprocess.run([*command, "--memory", way], capture_output=True, text=True, check=True)
            found["memory"][way] = json.loads(done.stdout.splitlines()[-1])
    show(found)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2), encoding="utf-8")


def show(found: dict[str, Any]) -> None:
    """Print the results."""
    console = Console()
    title = f"Tokens per epoch, sequences of {found['max_tokens']}"
    table = Table("corpus", "pairs", "packed", "one prompt per pair", "ratio", title=title)
    counts = found["tokens"]
    total = {key: sum(one[key] for one in counts.values()) for key in ("pairs", "packed", "separate")}
    for name, one in {**counts, **({"total": total} if len(counts) > 1 else {})}.items():
        row = (f"{one['pairs']:,}", f"{one['packed']:,}", f"{one['separate']:,}")
        table.add_row(name, *row, f"{one['separate'] / one['packed']:.1f}")
    console.print(table)
    if "speed" in found:
        speed = found["speed"]
        for name in ("packed", "separate"):
            console.print(f"{name}, pairs/s by round: {', '.join(f'{one:.2f}' for one in speed[name])}")
        console.print(f"ratio by round: {', '.join(f'{one:.1f}' for one in speed['ratios'])}")
        console.print(f"{speed['pairs']} pairs; {found['machine']}")
        for way, one in found["memory"].items():
            console.print(
                f"Step of {one['tokens']} tokens ({way}): {one['peak_gb']:.2f} GB peak, {one['before_gb']:.2f} before"
            )


def count_tokens(lm: SmallLM, corpus: Path, max_tokens: int) -> dict[str, int]:
    """Count the tokens of an epoch: packed (with padding) and as one prompt per pair (without padding)."""
    instances, schema = read_instances(corpus)
    room = max_tokens - len(lm.prompts.prefix(schema))
    instances = [one for one in lm.truncate(instances, schema, room - 32) if one is not None]
    if not instances:
        raise SystemExit(f"No instance of {corpus} fits behind the label list: increase --max-tokens.")
    sequences = TrainingSequences(lm.prompts, instances, schema, max_tokens=room, seed=0)
    return {
        "pairs": len(instances),
        "packed": sum(sequences.size(position) for position in range(len(sequences))),
        "separate": sum(map(len, separate_prompts(lm, instances, schema))),
    }


def measure_speed(lm: SmallLM, corpus: Path, max_tokens: int, number: int, rounds: int) -> dict[str, Any]:
    """Measure pairs per second of both ways, by round."""
    instances, schema = read_instances(corpus)
    room = max_tokens - len(lm.prompts.prefix(schema))
    sequences = TrainingSequences(lm.prompts, instances, schema, max_tokens=room, seed=0)
    prompts = separate_prompts(lm, instances, schema)
    optimizer = torch.optim.AdamW(lm.trainable_parameters(), lr=1e-4)

    def step(loss: torch.Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def tune_packed(position: int) -> None:
        sequence = sequences[position]
        with as_tuned(lm):
            loss = packed_loss(lm.network, as_batch(sequence)) / sequence.count
        step(loss)

    def tune_separate(rows: Sequence[int]) -> None:
        gold = [schema.index[str(instances[row].label)] for row in rows]
        with as_tuned(lm):
            loss = unpacked_loss(lm, [prompts[row] for row in rows], gold, schema) / len(rows)
        step(loss)

    together: list[int] = []
    while sum(len(sequences[n].instances) for n in together) < number and len(together) < len(sequences):
        together.append(len(together))
    rows = sorted((row for n in together for row in sequences[n].instances), key=lambda row: len(prompts[row]))
    batches = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    tune_packed(0)
    tune_separate(batches[0])
    speeds: dict[str, list[float]] = {"packed": [], "separate": []}
    for round_ in range(rounds):
        for name in ("packed", "separate") if round_ % 2 == 0 else ("separate", "packed"):
            start = time.perf_counter()
            if name == "packed":
                for position in together:
                    tune_packed(position)
            else:
                for batch in batches:
                    tune_separate(batch)
            speeds[name].append(len(rows) / (time.perf_counter() - start))
    ratios = [one / other for one, other in zip(speeds["packed"], speeds["separate"], strict=True)]
    return {"pairs": len(rows), **speeds, "ratios": ratios}


if __name__ == "__main__":
    main()
