"""Pairs a second of packed label scoring, beside Hugging Face `generate` on the same prompts in one run.

Usage: python benchmarks/inference.py [--rounds 3] [--sentences 8] [--dtype auto] [--output FILE.json]

Every round measures both, in alternating order; the table gives medians over the rounds and the ratio of
each round's pair, since the machine's speed may drift. `generate` decodes greedily, 8 new tokens at the
most, at the batch size given, prompts left-padded and sorted by length.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.schema import LabelSchema
from spacy_slmre.slm.architecture import make_small_lm
from spacy_slmre.slm.model import SmallLM

LABELS = """\
place of birth, place of death, date of birth, date of death, residence, country of citizenship, spouse,
mother, father, child, sibling, employer, member of, educated at, author, composer, director, performer,
founded by, inception, headquarters location, part of, located in, capital of, continent, country,
official language, religion, position held, award received, participant in, subsidiary, owned by,
manufacturer, publisher, genre, occupation, military branch, notable work, no relation"""
NAMES = ["Marie Curie", "Warsaw", "Pierre Curie", "the University of Paris"]
TYPES = ["PER", "LOC", "PER", "ORG"]


def make_instances(sentences: int, pairs: int) -> list[RelationInstance]:
    """Sentences of about 30 tokens with four entities, asked about 12 ordered pairs or the first of them."""
    instances = []
    for number in range(sentences):
        text, mentions = f"In {1890 + number} it was said that", []
        for name, type, joint in zip(
            NAMES, TYPES, (" of", " had met", " at", ", and so it was."), strict=True
        ):
            mentions.append(Mention(len(text) + 1, len(text) + 1 + len(name), type))
            text += f" {name}{joint}"
        context = Context(text, tuple(mentions))
        ordered = [(head, tail) for head in range(4) for tail in range(4) if head != tail]
        instances += [RelationInstance(context, head, tail) for head, tail in ordered[:pairs]]
    return instances


def generate(lm: SmallLM, prompts: list[str], batch_size: int) -> None:
    """Free greedy generation, the usual way."""
    tokenizer = lm.prompts.tokenizer
    tokenizer.padding_side = "left"
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(
            prompts[start : start + batch_size], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(lm.network.device)
        with torch.inference_mode():
            lm.network.generate(
                **batch, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.eos_token_id
            )


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sentences", type=int, default=8, help="sentences with 12 pairs; four times as many with 1"
    )
    parser.add_argument("--batch", type=int, default=32, help="batch size of generate")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--base", default=None)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    lm = make_small_lm(base=args.base, dtype=args.dtype).load()
    schema = LabelSchema.from_labels(
        [label.strip() for label in LABELS.split(",")], negative_label="no relation"
    )
    rows = []
    for pairs in (12, 1):
        instances = make_instances(args.sentences * (1 if pairs == 12 else 4), pairs)
        prompts = sorted((lm.prompts.text(instance, schema) for instance in instances), key=len)
        ways: list[tuple[str, Callable[[], object]]] = [
            ("ours", lambda instances=instances: lm.best(instances, schema)),
            ("generate", lambda prompts=prompts: generate(lm, prompts, args.batch)),
        ]
        lm.best(instances[:2], schema)
        seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
        for number in range(args.rounds):
            for name, way in ways if number % 2 == 0 else ways[::-1]:
                seconds[name].append(_timed(way))
        ratios = [g / o for o, g in zip(seconds["ours"], seconds["generate"], strict=True)]
        rows.append(
            {
                "pairs_a_sentence": pairs,
                "instances": len(instances),
                "prompt_tokens": len(lm.prompts.tokenizer(prompts[0])["input_ids"]),
                "ours_pairs_s": len(instances) / statistics.median(seconds["ours"]),
                "generate_pairs_s": len(instances) / statistics.median(seconds["generate"]),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
        )
    setting = f"{lm.settings.base}, {lm.network.dtype}, {lm.network.device}, {len(schema.labels)} labels"
    setting += f", generate at batch {args.batch}, {torch.get_num_threads()} threads, {platform.machine()}"
    table = Table(title=setting)
    for column in (
        "pairs a sentence",
        "prompt tokens",
        "ours, pairs/s",
        "generate, pairs/s",
        "ratio (rounds)",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["pairs_a_sentence"]),
            str(row["prompt_tokens"]),
            f"{row['ours_pairs_s']:.1f}",
            f"{row['generate_pairs_s']:.1f}",
            f"{row['ratio']:.1f} ({', '.join(f'{ratio:.1f}' for ratio in row['ratios'])})",
        )
    Console().print(table)
    if args.output:
        args.output.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2), encoding="utf-8")
        print(f"Written to {args.output}")


if __name__ == "__main__":
    main()
