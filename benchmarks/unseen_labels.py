"""Measure a model on label sets that it was not tuned on: all pairs of a passage with gold entities.

    python benchmarks/unseen_labels.py FOLDER … [--sets conll04 …] [--adapter ADAPTER] [--pairs 2000] [--shots 0 1 3 8]
        [--thresholds] [--temperatures] [-o OUTPUT.json]
    python benchmarks/unseen_labels.py FOLDER … --encoder auto [--cascade 0 0.2 0.4] …

The first measures the language model with an adapter, the second the encoder for any labels and, with values of
`min_prob`, also the language model and cascades of both.

A FOLDER has label sets as in `assets/universal_corpus`. For each set, whole passages with at most `--pairs` pairs are
scored. With `--shots`, labels are fitted to that many few-shot examples of each label, and of pairs without a relation,
from other passages; with `--example-tokens`, examples of up to this many tokens become part of a language model's
prompt instead. Relations are decoded as by the components, with both directions of a pair together.
Prints for each set and number of examples:

* precision, recall and micro-F1 of the positive labels; the row "mean" is the mean over sets;
* reversed: the share of predicted relations whose label holds only in the other direction;
* co-occurring: the share of pairs without a relation in either direction that are given one;
* ECE: the expected calibration error of the most probable label;
* pairs/s: computed like a component does, on at most 300 pairs.

`--thresholds` adds a table of the mean F1 at several thresholds, to choose the default, and `--temperatures` one of the
mean ECE and negative log-likelihood at several temperatures, and of the best mean F1.
"""

from __future__ import annotations

import json
import random
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spacy_slmre.calibration import apply_temperature, calibration_error
from spacy_slmre.corpus.label_sets import LabelSetCorpus, LabelSetReader, PairIndices, Passage
from spacy_slmre.decoding import Decoding, Directions, decode
from spacy_slmre.instances import RelationInstance
from spacy_slmre.metrics import PRF, count
from spacy_slmre.models.base import RelationModel
from spacy_slmre.models.cascade import Cascade
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.encoder.universal import UniversalEncoder, make_universal_encoder
from spacy_slmre.schema import LabelSchema

MAX_CONTEXT_TOKENS = 512
TIMED_PAIRS = 300
THRESHOLDS = np.round(np.arange(0.0, 1.0, 0.05), 2).tolist()
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.7, 2.0)

Pair = tuple[int, PairIndices]


@dataclass
class Scored:
    """The pairs of a label set with the log-probabilities of all labels, (n_pairs, n_labels)."""

    corpus: LabelSetCorpus
    passages: list[Passage]
    pairs: list[Pair]
    log_probs: np.ndarray
    pairs_per_second: float
    n_prefix: int

    @property
    def schema(self) -> LabelSchema:
        """The labels."""
        return self.corpus.schema

    @cached_property
    def mentions(self) -> list[tuple[Any, Any]]:
        """Keys of the head and tail of each pair."""
        return [((number, head), (number, tail)) for number, (head, tail) in self.pairs]

    @cached_property
    def directions(self) -> Directions:
        """How the pairs depend on each other."""
        return Directions.of_mentions(self.mentions, self.schema)

    @cached_property
    def gold(self) -> set[tuple[Pair, str]]:
        """The annotated relations, including those of pairs that do not fit the model."""
        return gold_relations(self.passages)

    def relations(self, threshold: float | None, temperature: float = 1.0) -> set[tuple[Pair, str]]:
        """Return the predicted relations."""
        log_probs = apply_temperature(self.log_probs, temperature)
        decoded = decode(log_probs, self.directions, self.mentions, self.schema, Decoding(threshold))
        return {(self.pairs[row], self.schema.names[column]) for row, column, _ in decoded}

    def counts(self, threshold: float | None, temperature: float = 1.0) -> PRF:
        """Return the counts of positive labels."""
        return count(self.gold, self.relations(threshold, temperature))

    def calibration(self, temperature: float = 1.0) -> tuple[float, float]:
        """Return the expected calibration error of the most probable label, and the mean loss of the gold labels."""
        log_probs = self.directions.combine(apply_temperature(self.log_probs, temperature))
        row_of = {pair: row for row, pair in enumerate(self.pairs)}
        is_gold = np.zeros(log_probs.shape, dtype=bool)
        for pair, name in self.gold:
            if pair in row_of:
                is_gold[row_of[pair], self.schema.index[name]] = True
        if self.schema.negative_label is not None:
            is_gold[~is_gold.any(axis=1), self.schema.index[self.schema.negative_label]] = True
        rows, best = np.arange(len(self.pairs)), log_probs.argmax(axis=1)
        return calibration_error(np.exp(log_probs[rows, best]), is_gold[rows, best]), float(-log_probs[is_gold].mean())

    def summary(self, threshold: float | None) -> dict[str, float]:
        """Return the numbers of a row."""
        relations, labels = self.relations(threshold), defaultdict(set)
        for pair, label in self.gold:
            labels[pair].add(label)

        def other(pair: Pair) -> Pair:
            return pair[0], (pair[1][1], pair[1][0])

        found = {pair for pair, _ in relations}
        unrelated = [pair for pair in self.pairs if not labels[pair] and not labels[other(pair)]]
        turned = [1 for pair, label in relations if label not in labels[pair] and label in labels[other(pair)]]
        return {
            "pairs": len(self.pairs),
            "relations": len(self.gold),
            **self.counts(threshold).to_dict(),
            "reversed": len(turned) / len(relations) if relations else 0.0,
            "co-occurring": sum(pair in found for pair in unrelated) / len(unrelated) if unrelated else 0.0,
            "ece": self.calibration()[0],
            "pairs/s": self.pairs_per_second,
            "prefix": self.n_prefix,
        }


def take_passages(corpus: LabelSetCorpus, max_pairs: int) -> list[Passage]:
    """Return passages from the start of a shuffled corpus that have at most `max_pairs` known pairs."""
    taken, number = [], 0
    for passage in corpus.passages:
        size = len(passage.labels) + (len(passage.negatives) if corpus.schema.negative_label else 0)
        if number + size <= max_pairs:
            taken.append(passage)
            number += size
    return taken


def gold_relations(passages: Sequence[Passage]) -> set[tuple[Pair, str]]:
    """Return the annotated relations of passages, including those of pairs that do not fit the model."""
    return {
        ((number, pair), name)
        for number, passage in enumerate(passages)
        for pair, names in passage.labels.items()
        for name in names
    }


def fitting_pairs(
    model: RelationModel, passages: Sequence[Passage], schema: LabelSchema
) -> tuple[list[Pair], list[RelationInstance]]:
    """Return the pairs of passages with known labels, each once, and their instances, without those that do not fit."""
    known = {
        (number, (instance.head, instance.tail)): instance
        for number, passage in enumerate(passages)
        for instance in passage.instances(schema.negative_label)
    }
    fitting = zip(known, model.truncate(list(known.values()), schema, MAX_CONTEXT_TOKENS), strict=True)
    kept = [(pair, instance) for pair, instance in fitting if instance is not None]
    return [pair for pair, _ in kept], [instance for _, instance in kept]


def draw_examples(corpus: LabelSetCorpus, passages: Sequence[Passage], shots: int) -> list[RelationInstance]:
    """Draw `shots` examples of each label from other passages, short ones first, one of each label in turn."""
    used = {passage.context.text for passage in passages}
    pool = [passage for passage in corpus.passages if passage.context.text not in used]
    rng = random.Random(0)
    rng.shuffle(pool)
    pool.sort(key=lambda passage: len(passage.context.text) > 200)
    by_label: dict[str, list[RelationInstance]] = defaultdict(list)
    negative = corpus.schema.negative_label
    for passage in pool:
        known = [(pair, name) for pair, names in passage.labels.items() for name in sorted(names)]
        if negative is not None:
            known += [(pair, negative) for pair in rng.sample(passage.negatives, min(1, len(passage.negatives)))]
        for (head, tail), name in known:
            if len(by_label[name]) < shots:
                sides = [passage.context.mentions[index] for index in (head, tail)]
                offsets = [(side.start, side.end, side.type) for side in sides]
                by_label[name].append(RelationInstance.from_offsets(passage.context.text, *offsets, name))
    return [found[number] for number in range(shots) for found in by_label.values() if number < len(found)]


def set_examples(model: RelationModel, examples: Sequence[RelationInstance], max_tokens: int | None) -> None:
    """Fit labels to few-shot examples or, if the number of tokens is given, put them into the prompt."""
    if isinstance(model, Cascade):
        set_examples(model.first, examples, None)
        set_examples(model.second, examples, max_tokens)
    elif isinstance(model, SmallLM) and max_tokens is not None:
        sizes = np.cumsum([len(tokens) + 30 for tokens in model.prompts.contexts([one.context for one in examples])])
        chosen = list(examples[: int(np.searchsorted(sizes, max_tokens))])
        random.Random(0).shuffle(chosen)
        model.set_prompt_style(replace(model.style, examples=tuple(example.to_dict() for example in chosen)))
    else:
        assert isinstance(model, SmallLM | UniversalEncoder)
        model.set_examples(examples)


def score(
    model: RelationModel, corpus: LabelSetCorpus, max_pairs: int, shots: int = 0, max_tokens: int | None = None
) -> Scored:
    """Score the pairs of a label set."""
    passages = take_passages(corpus, max_pairs)
    schema = corpus.schema
    set_examples(model, draw_examples(corpus, passages, shots), max_tokens)
    n_prefix = len(model.prompts.prefix(schema)) if isinstance(model, SmallLM) else 0
    pairs, instances = fitting_pairs(model, passages, schema)
    model.set_labels(schema)
    log_probs = model.log_probs(instances, schema)
    decoding = Decoding(model.default_threshold)
    timed = instances[:TIMED_PAIRS]
    start = time.perf_counter()
    model.log_probs(timed, schema, k=decoding.n_needed(len(schema.names)), min_prob=decoding.min_threshold)
    seconds = time.perf_counter() - start
    return Scored(corpus, passages, pairs, log_probs, len(timed) / seconds, n_prefix)


def make_systems(arguments: Namespace) -> list[tuple[str, RelationModel, int]]:
    """Return the name, the model and the number of examples per label of each system."""
    models: dict[str, RelationModel] = {}
    if arguments.cascade or not arguments.encoder:
        models["language model"] = lm = make_small_lm(adapter=arguments.adapter)
    if arguments.encoder:
        models["encoder"] = encoder = make_universal_encoder(weights=arguments.encoder)
        for value in arguments.cascade or ():
            models[f"cascade {value}"] = Cascade(encoder, lm, value, arguments.weight)
    return [
        (f"{name}, {shots} examples" if shots else name, model, shots)
        for shots in arguments.shots
        for name, model in models.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--sets", nargs="*", default=[], help="names of label sets (default: all)")
    parser.add_argument("--adapter", default="auto", help="adapter folder, or auto for the shipped one")
    parser.add_argument("--encoder", nargs="?", const="auto", help="measure the encoder, with these or its own weights")
    parser.add_argument(
        "--cascade", type=float, nargs="+", help="with --encoder: values of min_prob; measures all three"
    )
    parser.add_argument("--weight", type=float, default=Cascade.weight, help="weight of the encoder in a cascade")
    parser.add_argument("--pairs", type=int, default=2000, help="maximum number of pairs of a set")
    parser.add_argument("--shots", type=int, nargs="+", default=[0], help="numbers of examples per label")
    parser.add_argument("--example-tokens", type=int, help="maximum number of tokens of examples in the prompt")
    parser.add_argument("--threshold", type=float, help="default: that of each model")
    parser.add_argument("--thresholds", action="store_true", help="compare thresholds")
    parser.add_argument("--temperatures", action="store_true", help="compare temperatures")
    parser.add_argument("--output", "-o", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    if arguments.cascade and not arguments.encoder:
        parser.error("--cascade needs --encoder.")
    systems = make_systems(arguments)
    corpora = LabelSetReader(tuple(arguments.folders), tuple(arguments.sets))()
    jobs = [(corpus, *system) for corpus in corpora for system in systems]
    scored: list[tuple[str, str, Scored]] = []
    rows: list[dict[str, Any]] = []
    for corpus, name, model, shots in track(jobs, "Scoring …", console=Console(stderr=True)):
        one = score(model.load(), corpus, arguments.pairs, shots, arguments.example_tokens)
        threshold = model.default_threshold if arguments.threshold is None else arguments.threshold
        scored.append((corpus.name, name, one))
        rows.append({"set": corpus.name, "system": name, "threshold": threshold, **one.summary(threshold)})
    console = Console(width=130)
    names = [name for name, _, _ in systems]
    if arguments.thresholds:
        table = Table("threshold", *names, title="Mean F1")
        for value in THRESHOLDS:
            means = [fmean(o.counts(value).f1 for _, system, o in scored if system == name) for name in names]
            table.add_row(f"{value:.2f}", *(f"{mean:.3f}" for mean in means))
        console.print(table)
    if arguments.temperatures:
        table = Table("temperature", *(f"{name}: ECE, loss, F1" for name in names), title="Means")
        for value in TEMPERATURES:
            cells = []
            for name in names:
                ones = [one for _, system, one in scored if system == name]
                ece, loss = (fmean(column) for column in zip(*(one.calibration(value) for one in ones), strict=True))
                best = max(fmean(one.counts(threshold, value).f1 for one in ones) for threshold in THRESHOLDS)
                cells.append(f"{ece:.3f} {loss:.3f} {best:.3f}")
            table.add_row(f"{value:.1f}", *cells)
        console.print(table)
    values = [name for name in rows[0] if name not in ("set", "system")]
    table = Table("set", "system", *values)
    for row in rows:
        table.add_row(row["set"], row["system"], *(_format(value, row[value]) for value in values))
    for name in names:
        of_system = [row for row in rows if row["system"] == name]
        mean: dict[str, Any] = {
            value: fmean(row[value] for row in of_system) for value in values if value not in ("prefix", "threshold")
        }
        table.add_row("mean", name, *(_format(value, mean[value]) if value in mean else "" for value in values))
    console.print(table)
    if arguments.output:
        arguments.output.write_text(json.dumps({"rows": rows}, indent=2), encoding="utf-8")


def _format(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if name in ("pairs", "relations", "pairs/s", "prefix") else f"{value:.3f}"


if __name__ == "__main__":
    main()
