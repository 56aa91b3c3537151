"""Quality of pooled tuning with the packaged SmolLM2-135M: tune, select on dev, evaluate on the test splits.

    python benchmarks/tuning_quality.py RAW CORPORA OUTPUT [--shots 2] [--pairs 0] [--training.max_steps N] …

RAW contains the raw files, and CORPORA their conversion by `slmre study convert-all`. Benchmarks without a training
split are tuned on their dev split, except for sentences that are also in the test split. Re-DocRED is reduced to its
relations, as in the study. The results of both are written to OUTPUT/corpora. If a benchmark has no other dev split,
15 % of its documents are held out. All settings of the tuning config can be overridden. Rerun the same command to
resume. Prints the settings, the hashes of the data, and the scores on the test splits.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import spacy
from common import make_parser, micro_f1
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
from spacy_slmre.util.io import temporary_output

CONFIG = Path(__file__).parent.parent / "configs" / "tune" / "pooled.cfg"
BENCHMARKS = ("semeval2010_task8", "conll04", "gids", "nyt", "re_docred")


def main() -> None:
    """Tune, score and print."""
    parser = make_parser(__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shots", type=int, choices=(0, 2), default=2)
    parser.add_argument("--pairs", type=int, default=0, help="maximum number of training pairs; 0 for all")
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
        scores = run.metrics
        table.add_row(
            name,
            f"{dev['scores']['sets'][name]['f']:.3f}",
            f"{run.info['pairs']:,}",
            micro_f1(scores),
            f"{scores['micro_any']['f']:.3f}",
            f"{scores['ceiling']:.3f}",
        )
    made = json.loads((tuned / "run.json").read_text(encoding="utf-8"))
    print(json.dumps({"overrides": overrides, "data": made["key"]["data"], "versions": made["versions"]}))
    Console().print(f"{os.cpu_count()} processors; {dev['steps']} steps, {dev['seconds'] / 60:.0f} min", table)


def prepare(raw: Path, corpora: Path, output: Path) -> None:
    """Make the training, dev and test splits that do not exist yet."""
    install_extensions()
    for name in BENCHMARKS:
        folder, source = output / name, corpora / name
        if folder.exists():
            continue
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
        with temporary_output(folder) as temporary:
            temporary.mkdir()
            if (source / "train.spacy").exists():
                for file in source.glob("*.spacy"):
                    shutil.copy(file, temporary)
                continue
            shutil.copy(source / "test.spacy", temporary)
            vocab = spacy.blank("en").vocab
            seen = {doc.text for doc in read_docs(source / "test.spacy", vocab)}
            with DocBinWriter(temporary / "train.spacy") as writer:
                for doc in read_docs(source / "dev.spacy", vocab):
                    if doc.text not in seen:
                        writer.add(doc)


if __name__ == "__main__":
    main()
