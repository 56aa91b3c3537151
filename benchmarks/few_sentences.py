"""Measure how well relations are learned from a few annotated sentences, with the defaults of several commands.

    python benchmarks/few_sentences.py OUTPUT NAME=TRAIN,TEST … [--sizes 30 100 300] [--seeds 0 1 2 3 4]
        [--systems shipped examples tune tune-lm tune-base classifier universal one-config] [--pairs 1000]

TRAIN and TEST are corpora in any form that `slmre convert` recognizes, with one sentence per document. For each size
and seed, that many sentences are drawn from TRAIN; a fifth of them is held out by the system itself. Whole documents of
TEST with at most --pairs known pairs are scored, with gold entities. The systems are

    shipped      a cascade of the shipped models, without the sentences
    examples     the same with the sentences as few-shot examples, without training
    tune         `slmre tune --data`: steps and sequence length by the amount of data, and an encoder
    tune-lm      the same without the encoder
    tune-base    the same from the base model instead of the shipped adapter
    one-config   the settings of `smollm2-135m.cfg` for any amount of data, from the shipped adapter
    classifier   `spacy train configs/rel_classifier_cpu.cfg`
    universal    `spacy train configs/rel_classifier_universal.cfg`

Rerun the same command to resume. Prints mean micro-F1 with its standard deviation over the seeds, and seconds.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import spacy
import srsly
from common import known_schema, make_parser
from rich.console import Console
from rich.table import Table
from spacy.cli.train import train as spacy_train
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_slmre.cli.output import log
from spacy_slmre.corpus.gold_docs import holdout_positions, holdout_share
from spacy_slmre.corpus.readers import make_predicted, relation_corpus
from spacy_slmre.gold import gold_pairs
from spacy_slmre.pipeline.examples import collect_schema, make_gold_instances
from spacy_slmre.schema import NEGATIVE_LABEL
from spacy_slmre.training.config import parse_config, resolve_config
from spacy_slmre.training.own_data import HOLDOUT, make_config
from spacy_slmre.training.tune import tune
from spacy_slmre.util.io import atomic_write

CONFIGS = Path(__file__).parent.parent / "configs"
ONE_CONFIG = {
    "training.max_tokens": 1536,
    "training.max_steps": -1,
    "training.num_train_epochs": 2.0,
    "training.eval_steps": 0,
    "training.lr_scheduler_type": "linear",
    "training.target_loss": 0.0,
}
LM_ALONE = {"encoder.weight": 0.0}


def tune_with(sample: Path, output: Path, overrides: dict) -> Path:
    """Tune on a sample with `slmre tune --data` and overrides; return the pipeline's folder."""
    tune(resolve_config(parse_config(make_config(sample), overrides), str(sample)), output)
    return output


def train_classifier(sample: Path, output: Path, config: str) -> Path:
    """Train `rel_classifier` on a sample with `spacy train`; return the pipeline's folder."""
    docs = read(sample)
    share = holdout_share(list(holdout_positions(docs)), HOLDOUT)
    overrides = {"paths.train": str(sample), "paths.dev": str(sample), "vars.holdout": share, "vars.held_out": True}
    if (schema := known_schema(docs)) is not None:  # with definitions, which `slmre tune` finds by itself
        file = output.with_name("schema.json")
        file.write_text(json.dumps(schema.to_dict()), encoding="utf-8")
        overrides["components.rel_classifier.schema"] = str(file)
    spacy_train(CONFIGS / config, output, overrides=overrides)
    return output / "model-best"


def use_shipped(sample: Path, output: Path, *, examples: bool) -> Path:
    """Make a pipeline of the shipped models, with a sample as few-shot examples or only with its labels."""
    docs = read(sample)
    schema = known_schema(docs) or collect_schema(docs, NEGATIVE_LABEL)
    assert schema is not None
    model: dict[str, Any] = {"@architectures": "spacy-slmre.Cascade.v1"}
    if examples:
        model["examples"] = str(output.with_name("examples.jsonl"))
        instances = [instance for doc in docs for instance in make_gold_instances(doc, schema)]
        srsly.write_jsonl(model["examples"], (instance.to_dict() for instance in instances))
    nlp = spacy.blank("en")
    nlp.add_pipe("slm_relations", config={"schema": schema.to_dict(), "model": model})
    nlp.to_disk(output)
    return output


SYSTEMS: dict[str, Callable[[Path, Path], Path]] = {
    "shipped": lambda sample, output: use_shipped(sample, output, examples=False),
    "examples": lambda sample, output: use_shipped(sample, output, examples=True),
    "tune": lambda sample, output: tune_with(sample, output, {}),
    "tune-lm": lambda sample, output: tune_with(sample, output, LM_ALONE),
    "tune-base": lambda sample, output: tune_with(sample, output, {**LM_ALONE, "model.adapter": None}),
    "one-config": lambda sample, output: tune_with(sample, output, {**ONE_CONFIG, **LM_ALONE}),
    "classifier": lambda sample, output: train_classifier(sample, output, "rel_classifier_cpu.cfg"),
    "universal": lambda sample, output: train_classifier(sample, output, "rel_classifier_universal.cfg"),
}


def read(path: Path) -> list[Doc]:
    """Read the annotated documents of a corpus."""
    docs = [example.reference for example in relation_corpus(path)(spacy.blank("en"))]
    return [doc for doc in docs if gold_pairs(doc).known_pairs()]


def score(pipeline: Path, docs: list[Doc]) -> float:
    """Return the micro-F1 of a pipeline on the known pairs of documents."""
    nlp = spacy.load(pipeline)
    nlp = spacy.load(pipeline, config={f"components.{nlp.pipe_names[-1]}.use_gold_pairs": True})
    return float(nlp.evaluate([Example(make_predicted(doc), doc) for doc in docs])["rel_micro_f"] or 0.0)


def measure(system: str, sample: list[Doc], test: list[Doc], folder: Path) -> dict[str, float]:
    """Train a system on a sample and score it, unless that was done before."""
    result = folder / "result.json"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        DocBin(docs=sample, store_user_data=True).to_disk(folder / "sample.spacy")
        start = time.perf_counter()
        pipeline = SYSTEMS[system](folder / "sample.spacy", folder / "model")
        seconds = time.perf_counter() - start
        atomic_write(result, json.dumps({"f": score(pipeline, test), "seconds": seconds}))
    return json.loads(result.read_text("utf-8"))


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("corpora", nargs="+", metavar="NAME=TRAIN,TEST")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--pairs", type=int, default=1000, help="maximum number of pairs to score")
    arguments = parser.parse_args()
    table = Table("corpus", "sentences", "system", "micro-F1", "seconds")
    for corpus in arguments.corpora:
        name, _, paths = corpus.partition("=")
        train, test = (read(Path(path)) for path in paths.split(","))
        random.Random(0).shuffle(test)
        scored: list[Doc] = []
        number = 0
        for doc in test:
            size = len(gold_pairs(doc).known_pairs())
            if number + size <= arguments.pairs:
                scored.append(doc)
                number += size
        log(f"{name}: {len(train):,} sentences to draw from, {len(scored):,} with {number:,} pairs to score")
        for size in arguments.sizes:
            found: dict[str, list[dict[str, float]]] = defaultdict(list)
            for seed in arguments.seeds:
                sample = random.Random(seed).sample(train, size)
                for system in arguments.systems:
                    folder = arguments.output / f"{name}-{size}-{seed}-{system}"
                    found[system].append(measure(system, sample, scored, folder))
                    log(f"{folder.name}: {found[system][-1]['f']:.3f}, {found[system][-1]['seconds']:.0f} s")
            for system, rows in found.items():
                scores = [row["f"] for row in rows]
                shown = f"{fmean(scores):.3f} ± {pstdev(scores):.3f}"
                table.add_row(name, str(size), system, shown, f"{fmean(row['seconds'] for row in rows):.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
