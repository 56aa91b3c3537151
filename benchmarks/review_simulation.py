"""Simulate `slmre review` with gold answers: F1 after tuning on pairs chosen by uncertainty, and on random ones.

    python benchmarks/review_simulation.py POOL OUTPUT.json --test TEST.spacy [--reviewed 50 100 200] [--seeds 1 2 3]
    python benchmarks/review_simulation.py FOLDER OUTPUT.json --set knowledgenet …

POOL and TEST are corpora with gold labels (`slmre convert`). A FOLDER has label sets as in `assets/universal_corpus`;
then half of the passages of one set are the test data. The model before tuning ranks the pairs of the pool as `slmre
review` does, with all pairs as near misses. The first pairs, random ones, or half of each get their gold labels, are
written as `slmre review` writes them, and `slmre tune --data` tunes on them. If they are too few for that, the model
stays as it was. Settings of the tuning config can be overridden (`--training.max_steps N`). Rerun the same command to
resume. Prints the micro-F1 on the test pairs: the mean over the seeds, with the lowest and the highest.
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

import spacy
from common import make_parser, read_instances
from rich.console import Console
from rich.table import Table
from spacy.cli._util import parse_config_overrides

from spacy_slmre.cli.output import log
from spacy_slmre.corpus.label_sets import LabelSetReader
from spacy_slmre.decoding import Decoding, Directions, decode, mention_keys, top_labels
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.evaluation.gold import read_gold
from spacy_slmre.instances import Context, RelationInstance
from spacy_slmre.metrics import count
from spacy_slmre.models.base import RelationModel
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.pipeline.components import get_relation_extractor
from spacy_slmre.review.ranking import N_LABELS, boundary
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TuningError, parse_config, resolve_config
from spacy_slmre.training.own_data import make_config
from spacy_slmre.training.tune import tune
from spacy_slmre.util.io import atomic_write

MAX_CONTEXT_TOKENS = 512
CHOICES = ("uncertain", "random", "mixed")


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


def as_documents(pairs: Sequence[Sequence[RelationInstance]]) -> list[RelationDocument]:
    """Return documents that annotate these pairs; all others are unknown."""
    by_context: dict[Context, list[DocumentRelation]] = {}
    for instance in (one for instances in pairs for one in instances):
        mentions = mentions_of(instance.context)
        row = DocumentRelation(mentions[instance.head], mentions[instance.tail], instance.label or "")
        by_context.setdefault(instance.context, []).append(row)
    return [
        RelationDocument(
            f"reviewed-{number}",
            context.text,
            tuple(mentions_of(context)),
            sentences=((0, len(context.text)),),
            pairs=tuple(rows),
        )
        for number, (context, rows) in enumerate(by_context.items())
    ]


def mentions_of(context: Context) -> list[EntityMention]:
    """Return the mentions of a context in the form of documents."""
    return [EntityMention(one.start, one.end, context.text[one.start : one.end], one.type) for one in context.mentions]


class Simulation:
    """Chooses pairs of the pool, tunes on them, and scores on the test pairs.

    Args:
        answers: The pairs with their gold labels.
        overrides: Settings of the tuning config.
    """

    def __init__(self, answers: GoldAnswers, overrides: dict[str, Any]) -> None:
        self.answers = answers
        self.overrides = overrides
        model = {name.removeprefix("model."): value for name, value in overrides.items() if name.startswith("model.")}
        lm = make_small_lm(definitions=True, **model).load()
        self.f1_before = self.f1(lm)
        self._ranked = self._rank(lm)

    def choose(self, choice: str, number: int, seed: int) -> list[list[RelationInstance]]:
        """Choose pairs of the pool in random order."""
        n_uncertain = {"uncertain": number, "random": 0, "mixed": number // 2}[choice]
        chosen, others = self._ranked[:n_uncertain], self._ranked[n_uncertain:]
        rng = random.Random(seed)
        chosen = chosen + rng.sample(others, min(number - len(chosen), len(others)))
        return rng.sample(chosen, len(chosen))

    def run(self, choice: str, number: int, seed: int) -> float:
        """Return the micro-F1 after tuning."""
        with tempfile.TemporaryDirectory() as name:
            data, labels, output = (Path(name) / file for file in ("reviewed.jsonl", "labels.json", "tuned"))
            documents = as_documents(self.choose(choice, number, seed))
            data.write_text("".join(json.dumps(one.to_dict()) + "\n" for one in documents), encoding="utf-8")
            labels.write_text(json.dumps(self.answers.schema.to_dict()), encoding="utf-8")
            overrides = {**self.overrides, "training.seed": seed}
            try:
                config = make_config(data, schema=str(labels), overrides=overrides)
                tune(resolve_config(parse_config(config, overrides), str(data)), output, log=log)
            except TuningError as error:
                log(f"Not tuned: {error}")
                return self.f1_before
            return self.f1(get_relation_extractor(spacy.load(output))[1].model.load())

    def f1(self, lm: RelationModel) -> float:
        """Return the micro-F1 on the test pairs."""
        schema, test = self.answers.schema, self.answers.test
        places, instances = self._fitting(lm, test)
        mentions = mention_keys(instances)
        directions = Directions.of_mentions(mentions, schema)
        decoded = decode(lm.log_probs(instances, schema), directions, mentions, schema, Decoding(lm.default_threshold))
        predicted = {(places[row], schema.names[column]) for row, column, _ in decoded}
        gold = {(place, one.label or "") for place, pair in enumerate(test) for one in pair}
        return count({item for item in gold if item[1] != schema.negative_label}, predicted).f1

    def _fitting(
        self, lm: RelationModel, pairs: Sequence[Sequence[RelationInstance]]
    ) -> tuple[list[int], list[RelationInstance]]:
        """Return an instance of each pair that fits the model, and the places of these pairs."""
        fitting = lm.truncate([instances[0] for instances in pairs], self.answers.schema, MAX_CONTEXT_TOKENS)
        places = [place for place, instance in enumerate(fitting) if instance is not None]
        return places, [instance for instance in fitting if instance is not None]

    def _rank(self, lm: SmallLM) -> list[list[RelationInstance]]:
        """Return the pairs of the pool, the least certain first."""
        schema, decoding = self.answers.schema, Decoding(lm.default_threshold)
        places, instances = self._fitting(lm, self.answers.pool)
        probable = top_labels(lm.log_probs(instances, schema, k=N_LABELS), schema, N_LABELS)
        ranked = []
        for place, labels in zip(places, probable, strict=True):
            if positive := [one for one in labels if one[0] != schema.negative_label]:
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
