"""Quality of pooled tuning with the packaged SmolLM2-135M: tune, choose on dev, score each test split once.

    python benchmarks/tuning_quality.py RAW CORPORA OUTPUT [--shots 2] [--pairs 0] [--training.max_steps N] …

RAW holds the raw files and CORPORA their conversion by `slmre study convert-all`. A benchmark without a training
split gives its dev split for one, less the sentences that stand in its test split too, and of Re-DocRED its
relations alone, as the study has it: these go to OUTPUT/corpora. 15 % of the documents are held out for
choices where a benchmark has no other dev split. Any setting of the tuning config may be given. Interrupted,
the same command goes on; what is done in OUTPUT is not done again. Prints the settings, the data's hashes,
and scores on the test splits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import spacy
from rich.console import Console
from rich.table import Table
from spacy.cli._util import parse_config_overrides

from spacy_slmre.cli.evaluate import evaluate_on
from spacy_slmre.cli.output import log
from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import DocBinWriter, read_docs
from spacy_slmre.evaluation.systems import EvaluationSettings
from spacy_slmre.relations import install_extensions
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.study.mixtures import Mixture, make_manifest
from spacy_slmre.training.config import read_config, resolve_config
from spacy_slmre.training.tune import tune

CONFIG = Path(__file__).parent.parent / "configs" / "tune" / "pooled.cfg"
BENCHMARKS = ("semeval2010_task8", "conll04", "gids", "nyt", "re_docred")


def main() -> None:
    """Tune, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shots", type=int, choices=(0, 2), default=2)
    parser.add_argument("--pairs", type=int, default=0, help="most training pairs; 0 takes all")
    arguments, rest = parser.parse_known_args()
    corpora, tuned = arguments.output / "corpora", arguments.output / f"pooled-{arguments.shots}shot"
    overrides = {"tune.shots": arguments.shots, "paths.corpora": str(corpora), **parse_config_overrides(rest)}
    if not tuned.exists():
        prepare(arguments.raw, arguments.corpora, corpora)
        mixture = Mixture(
            name="pooled", benchmarks=BENCHMARKS, caps={"train": arguments.pairs, "dev": 0}, balance="none"
        )
        manifest = make_manifest(mixture, corpora)
        (corpora / "pooled.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        settings = resolve_config(read_config(CONFIG, overrides), str(CONFIG))
        tune(settings, tuned, log=log)
    table = Table("benchmark", "dev F1", "test pairs", "test F1", "any gold label", "one-label ceiling")
    dev = json.loads((tuned / "metrics.json").read_text(encoding="utf-8"))
    for name in BENCHMARKS:
        run = evaluate_on(str(tuned), corpora / name / "test.spacy", arguments.output / "runs", EvaluationSettings())
        scores, interval = run.metrics, run.metrics["interval"]
        table.add_row(
            name,
            f"{dev['scores']['sets'][name]['f']:.3f}",
            f"{run.info['pairs']:,}",
            f"{scores['micro']['f']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})",
            f"{scores['micro_any']['f']:.3f}",
            f"{scores['ceiling']:.3f}",
        )
    made = json.loads((tuned / "run.json").read_text(encoding="utf-8"))
    print(json.dumps({"overrides": overrides, "data": made["key"]["data"], "versions": made["versions"]}))
    Console().print(f"{os.cpu_count()} processors; {dev['steps']} steps, {dev['seconds'] / 60:.0f} min", table)


def prepare(raw: Path, corpora: Path, output: Path) -> None:
    """The training, dev and test splits that are tuned and scored on, where they are not there yet."""
    install_extensions()
    for name in BENCHMARKS:
        folder, source = output / name, corpora / name
        if folder.exists():
            continue
        aside = output / f".{name}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if name == "re_docred":
            source = output / ".relations_of_re_docred"
            for split in ("dev", "test"):
                convert(
                    get_benchmark(name),
                    raw / name / f"{split}_revised.json",
                    source / f"{split}.spacy",
                    split=split,
                    settings={"negatives": 0},
                )
        if (source / "train.spacy").exists():
            for file in source.glob("*.spacy"):
                shutil.copy(file, aside)
        else:
            shutil.copy(source / "test.spacy", aside)
            vocab = spacy.blank("en").vocab
            seen = {doc.text for doc in read_docs(source / "test.spacy", vocab)}
            with DocBinWriter(aside / "train.spacy") as writer:
                for doc in read_docs(source / "dev.spacy", vocab):
                    if doc.text not in seen:
                        writer.add(doc)
        aside.rename(folder)


if __name__ == "__main__":
    main()
