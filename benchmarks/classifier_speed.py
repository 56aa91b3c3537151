"""Measure the speed of `rel_classifier` by length, pairs per sentence, markers and runtime, and that of its training.

    python benchmarks/classifier_speed.py [--rounds 5] [--threads 2] [--output classifier.json]
    python scripts/readme_table.py --classifier classifier.json

Training is compared with the same network in a plain torch loop. All variants are measured in every round of one run,
and the ratios are what counts. The weights are those of the packaged encoder with an untrained head, because speed does
not depend on them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from itertools import permutations, product
from pathlib import Path

import torch
import torch.nn.functional as F
from common import make_parser
from speed.tables import classifier_tables, show
from thinc.api import Adam

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.hub import PACKAGED_ENCODER, resolve_dtype
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.system import hardware, versions

SCHEMA = LabelSchema.from_labels([f"relation {n}" for n in range(18)])
TYPED = "typed markers, float32"
COMPONENT = "`update` and `finish_update`"
NAMES = ("Ann", "Rome", "Paul", "Paris")
WORDS = ["the", "old", "mill", "was", "sold", "in", "spring", "and", "nobody", "knew", "why", "she", "left"]


def make_instances(sentences: int, tokens: int, mentions: int = 2) -> list[RelationInstance]:
    """Make all ordered pairs of the mentions of sentences with about `tokens` tokens, special tokens included."""
    instances: list[RelationInstance] = []
    for _ in range(sentences):
        words = [WORDS[n % len(WORDS)] for n in range(tokens - 2)]
        places = [n * (len(words) - 1) // (mentions - 1) for n in range(mentions)]
        for place, name in zip(places, NAMES, strict=False):
            words[place] = name
        starts = [sum(len(word) + 1 for word in words[:place]) for place in places]
        found = [Mention(start, start + len(words[place]), "PER") for start, place in zip(starts, places, strict=True)]
        context = Context(" ".join(words), tuple(found))
        for head, tail in permutations(range(mentions), 2):
            label = SCHEMA.names[len(instances) % len(SCHEMA.names)]
            instances.append(RelationInstance(context, head, tail, label))
    return instances


def make_model(**settings: object) -> EncoderClassifier:
    """Return an encoder with a new head."""
    model = EncoderClassifier(EncoderSettings(**settings))
    model.start(SCHEMA.names, ("PER", "LOC"))
    return model


def compare(ways: dict[str, Callable[[], int]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure pairs per second of each function by round, in a different order in each round."""
    names = list(ways)
    for name in names:
        ways[name]()
    rates: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, pairs = time.perf_counter(), 0
            while (spent := time.perf_counter() - started) < seconds:
                pairs += ways[name]()
            rates[name].append(pairs / spent)
    return rates


def inference(base: str, lengths: Sequence[int], rounds: int, seconds: float) -> list[dict]:
    """Measure pairs per second of whole calls, tokenization included."""
    settings: dict[str, dict] = {
        TYPED: {"dtype": "float32"},
        "typed markers, OpenVINO": {"runtime": "openvino"},
        "levitated markers, float32": {"dtype": "float32", "markers": "levitated"},
    }
    if resolve_dtype("auto", torch.device("cpu")) == torch.bfloat16:
        settings["typed markers, bfloat16"] = {"dtype": "bfloat16"}
        settings["levitated markers, bfloat16"] = {"dtype": "bfloat16", "markers": "levitated"}
    models = {name: make_model(base=base, device="cpu", **given) for name, given in settings.items()}
    results = []
    for tokens, mentions in product(lengths, (2, 4)):
        batch = make_instances(64 if mentions == 2 else 16, tokens, mentions)

        def run(model: EncoderClassifier, batch: list = batch) -> int:
            model.top_k(batch, SCHEMA)
            return len(batch)

        ways = {name: (lambda model=model: run(model)) for name, model in models.items()}
        rates = compare(ways, rounds, seconds)
        reference = rates[TYPED]
        for name, values in rates.items():
            results.append(
                {
                    "tokens": tokens,
                    "pairs per sentence": mentions * (mentions - 1),
                    "way": name,
                    "pairs/s": statistics.median(values),
                    "ratio": statistics.median(value / other for value, other in zip(values, reference, strict=True)),
                }
            )
    return results


def training(base: str, rounds: int, seconds: float) -> list[dict]:
    """Compare `update` and `finish_update` with the same network in a plain torch loop."""
    batch = make_instances(8, 50)
    ours, plain = (make_model(base=base, device="cpu", mixed_precision=False) for _ in range(2))
    optimizer = Adam(1e-5, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0, use_averages=False)
    network = plain.network.train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-5, weight_decay=0.01)
    ((_, inputs),) = plain._batches(batch)
    gold = torch.tensor([SCHEMA.index[instance.label or ""] for instance in batch])

    def component() -> int:
        ours.update(batch, SCHEMA, drop=0.1)
        ours.finish_update(optimizer)
        return len(batch)

    def loop() -> int:
        adamw.zero_grad(set_to_none=False)
        F.cross_entropy(network(*inputs), gold).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adamw.step()
        return len(batch)

    rates = compare({"plain torch loop": loop, COMPONENT: component}, rounds, seconds)
    ratios = [a / b for a, b in zip(rates[COMPONENT], rates["plain torch loop"], strict=True)]
    return [
        {"way": "plain torch loop", "pairs/s": statistics.median(rates["plain torch loop"]), "ratio": 1.0},
        {"way": COMPONENT, "pairs/s": statistics.median(rates[COMPONENT]), "ratio": statistics.median(ratios)},
    ]


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--base", default=PACKAGED_ENCODER, help="another encoder")
    parser.add_argument("--tokens", type=int, nargs="+", default=[48, 96], help="lengths of sentences")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each variant per round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {
        "hardware": hardware(),
        "versions": versions(),
        "date": date.today().isoformat(),
        "rounds": arguments.rounds,
        "inference": inference(arguments.base, arguments.tokens, arguments.rounds, arguments.seconds),
        "training": training(arguments.base, arguments.rounds, arguments.seconds),
    }
    for table in classifier_tables(results):
        show(table)
    if arguments.output:
        atomic_write(arguments.output, json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
