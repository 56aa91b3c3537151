"""Simulate `slmre review` with gold answers: F1 after tuning on pairs chosen by uncertainty, and on random ones.

    python benchmarks/review_simulation.py POOL OUTPUT.json --test TEST.spacy [--reviewed 50 100 200] [--seeds 1 2 3]
    python benchmarks/review_simulation.py FOLDER OUTPUT.json --set knowledgenet …

POOL and TEST are corpora with gold labels (`slmre convert`). A FOLDER has label sets as in `assets/universal_corpus`;
then half of the passages of one set are the test data. The model before tuning ranks the pairs of the pool as `slmre
review` does, with all pairs as near misses. The first pairs, or random ones, get their gold labels, and an adapter is
tuned on them as `configs/tune/own.cfg` describes, with every seventh pair as dev data. Settings of that config can be
overridden (`--training.max_steps N`). Rerun the same command to resume. Prints the micro-F1 on the test pairs: the mean
over the seeds, with the lowest and the highest.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from common import make_parser, read_instances
from rich.console import Console
from rich.table import Table
from spacy.cli._util import parse_config_overrides

from spacy_slmre.cli.output import log
from spacy_slmre.corpus.label_sets import LabelSetReader
from spacy_slmre.decoding import Decoding, top_labels
from spacy_slmre.evaluation.gold import read_gold
from spacy_slmre.instances import Context, RelationInstance
from spacy_slmre.metrics import count
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.review.ranking import N_LABELS, boundary
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TuningConfig, read_config, resolve_config
from spacy_slmre.training.data import CORPUS, TuningSet
from spacy_slmre.training.tune import train_adapter
from spacy_slmre.util.io import atomic_write

CONFIG = Path(__file__).parent.parent / "configs" / "tune" / "own.cfg"
MAX_CONTEXT_TOKENS = 512
CHOICES = ("uncertain", "random")


@dataclass(frozen=True)
class GoldAnswers:
    """The instances of each pair, one for each of its labels."""

    schema: LabelSchema
    pool: list[list[RelationInstance]]
    test: list[list[RelationInstance]]


def read_answers(source: Path, test: Path | None, name: str | None, max_pairs: int) -> GoldAnswers:
    """Read corpora, or a label set, with at most `max_pairs` pairs of each."""
    if name is not None:
        (corpus,) = LabelSetReader((str(source),), (name,))()
        negative = corpus.schema.negative_label
        instances = [list(passage.instances(negative)) for passage in corpus.passages]
        halves = [[one for passage in instances[start::2] for one in passage] for start in (0, 1)]
        return GoldAnswers(corpus.schema, *(by_pair(half)[:max_pairs] for half in halves))
    if test is None:
        raise SystemExit("Give --test TEST.spacy, or --set NAME if the first argument is a folder of label sets.")
    schema = read_gold(source).schema
    pool, held_out = (by_pair(read_instances(corpus, schema)[0])[:max_pairs] for corpus in (source, test))
    return GoldAnswers(schema, pool, held_out)


def by_pair(instances: Sequence[RelationInstance]) -> list[list[RelationInstance]]:
    """Group instances by pair."""
    pairs: dict[tuple[Context, int, int], list[RelationInstance]] = {}
    for instance in instances:
        pairs.setdefault((instance.context, instance.head, instance.tail), []).append(instance)
    return list(pairs.values())


class Simulation:
    """Chooses pairs of the pool, tunes on them, and scores on the test pairs.

    Args:
        answers: The pairs with their gold labels.
        overrides: Settings of the tuning config.
    """

    def __init__(self, answers: GoldAnswers, overrides: dict[str, Any]) -> None:
        self.answers = answers
        self.overrides = {"paths.train": "pool", "paths.dev": "pool", **overrides}
        lm = self.config(0).model.load()
        self.f1_before = self.f1(lm)
        self._ranked = self._rank(lm)

    def config(self, seed: int) -> TuningConfig:
        """Return the tuning config, with a model that is not tuned yet."""
        return resolve_config(read_config(CONFIG, {**self.overrides, "training.seed": seed}), str(CONFIG))

    def probabilities(
        self, lm: SmallLM, pairs: Sequence[Sequence[RelationInstance]]
    ) -> list[tuple[tuple[str, float], ...]]:
        """Return the most probable labels of pairs; none for those that do not fit the model."""
        schema = self.answers.schema
        fitting = lm.truncate([instances[0] for instances in pairs], schema, MAX_CONTEXT_TOKENS)
        instances = [instance for instance in fitting if instance is not None]
        found = iter(top_labels(lm.log_probs(instances, schema, k=N_LABELS), schema, N_LABELS))
        return [() if instance is None else next(found) for instance in fitting]

    def choose(self, choice: str, number: int, seed: int) -> list[list[RelationInstance]]:
        """Choose pairs of the pool in random order."""
        chosen = self._ranked[:number] if choice == "uncertain" else self._ranked
        return random.Random(seed).sample(chosen, min(number, len(chosen)))

    def run(self, choice: str, number: int, seed: int) -> float:
        """Return the micro-F1 after tuning."""
        config, reviewed = self.config(seed), self.choose(choice, number, seed)
        dev = [one for instances in reviewed[::7] for one in instances]
        train = [one for place, instances in enumerate(reviewed) if place % 7 for one in instances]
        data = TuningSet(CORPUS, self.answers.schema, train, dev, [str(place) for place in range(len(train))])
        lm = config.model
        with tempfile.TemporaryDirectory() as folder:
            train_adapter(lm, [data], config.training, config.lora, Path(folder))
        return self.f1(lm)

    def f1(self, lm: SmallLM) -> float:
        """Return the micro-F1 on the test pairs."""
        negative, decoding = self.answers.schema.negative_label, Decoding(lm.default_threshold)
        gold = {(place, one.label or "") for place, pair in enumerate(self.answers.test) for one in pair}
        best = [decoding.best_label(labels, negative) for labels in self.probabilities(lm, self.answers.test)]
        predicted = {(place, label) for place, label in enumerate(best) if label is not None}
        return count({item for item in gold if item[1] != negative}, predicted).f1

    def _rank(self, lm: SmallLM) -> list[list[RelationInstance]]:
        """Return the pairs of the pool, the least certain first."""
        negative, decoding = self.answers.schema.negative_label, Decoding(lm.default_threshold)
        ranked = []
        for place, labels in enumerate(self.probabilities(lm, self.answers.pool)):
            if positive := [one for one in labels if one[0] != negative]:
                label, score = positive[0]
                ranked.append((abs(score - boundary(label, labels, decoding)), place))
        return [self.answers.pool[place] for _, place in sorted(ranked)]


def main() -> None:
    """Simulate and print."""
    parser = make_parser(__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--test", type=Path, help="test corpus")
    parser.add_argument("--set", help="name of a label set")
    parser.add_argument("--pairs", type=int, default=2000, help="maximum number of pairs to review, and of test pairs")
    parser.add_argument("--reviewed", type=int, nargs="+", default=[50, 100, 200], help="numbers of reviewed pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments, rest = parser.parse_known_args()
    overrides = parse_config_overrides(rest)
    settings = {
        "source": str(arguments.source),
        "test": str(arguments.test),
        "set": arguments.set,
        "pairs": arguments.pairs,
    }
    settings |= overrides
    results: dict[str, Any] = {"settings": settings, "f1": {}}
    if arguments.output.exists():
        results = json.loads(arguments.output.read_text(encoding="utf-8"))
        if results["settings"] != settings:
            raise SystemExit(f"{arguments.output} has results with other settings. Choose another output.")
    simulation = Simulation(read_answers(arguments.source, arguments.test, arguments.set, arguments.pairs), overrides)
    answers = simulation.answers
    for number in arguments.reviewed:
        for choice in CHOICES:
            for seed in arguments.seeds:
                if (name := f"{choice} {number} {seed}") not in results["f1"]:
                    results["f1"][name] = simulation.run(choice, number, seed)
                    log(f"{name}: {results['f1'][name]:.3f}")
                    atomic_write(arguments.output, json.dumps(results, indent=2))
    table = Table(
        "reviewed pairs", *CHOICES, title=f"{len(answers.pool):,} pairs to review, {len(answers.test):,} test"
    )
    table.add_row("0", *[f"{simulation.f1_before:.3f}"] * len(CHOICES))
    for number in arguments.reviewed:
        scores = [[results["f1"][f"{choice} {number} {seed}"] for seed in arguments.seeds] for choice in CHOICES]
        table.add_row(str(number), *(f"{fmean(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in scores))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
