"""Quality of `rel_classifier` with the packaged encoder: train, select on dev, evaluate on the test split.

    python benchmarks/classifier_quality.py CORPORA OUTPUT [BENCHMARK …] [--markers levitated]

CORPORA is a folder written by `slmre study convert-all`. The settings of each benchmark were chosen on its
development set. Finished classifiers in OUTPUT are not trained again. Prints settings, seed, data hashes and
results.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from common import make_parser, micro_f1
from rich.console import Console
from rich.table import Table

from spacy_slmre.cli.evaluate import evaluate_on
from spacy_slmre.evaluation.systems import EvaluationSettings
from spacy_slmre.study.classifiers import train_classifier

CONFIG = Path(__file__).parent.parent / "configs" / "rel_classifier_cpu.cfg"
# Overrides of the config by benchmark.
SETTINGS: dict[str, dict[str, object]] = {
    "conll04_pairs": {
        "components.rel_classifier.negative_rate": 0.5,
        "training.batcher.size": 64,
        "training.optimizer.learn_rate.initial_rate": 0.0002,
        "training.max_epochs": 10,
    },
    "semeval2010_task8": {"training.optimizer.learn_rate.initial_rate": 0.00015, "training.max_epochs": 4},
    "kbp37": {"training.optimizer.learn_rate.initial_rate": 0.00015, "training.max_epochs": 1},
    "gids": {"training.optimizer.learn_rate.initial_rate": 0.00015, "training.max_epochs": 4},
}


def main() -> None:
    """Train, score and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("benchmark", nargs="*", default=list(SETTINGS))
    parser.add_argument("--markers", default="typed", help="how arguments are marked (default: typed)")
    arguments = parser.parse_args()
    markers = {"components.rel_classifier.model.markers": arguments.markers}
    table = Table("benchmark", "train pairs", "minutes", "dev F1", "test F1", "test macro-F1", "ECE", "calibrated")
    for name in arguments.benchmark:
        folder = arguments.output / name
        run = train_classifier(CONFIG, name, arguments.corpora, folder, overrides=SETTINGS[name] | markers)
        test = arguments.corpora / name / "test.spacy"
        scores = evaluate_on(str(folder), test, arguments.output / "runs", EvaluationSettings()).metrics
        print(json.dumps({key: run[key] for key in ("benchmark", "overrides", "seed", "data", "holdout", "versions")}))
        error = [run["calibration"][when]["ece"] for when in ("before", "after")]
        table.add_row(
            name,
            f"{run['pairs']:,}",
            f"{run['seconds'] / 60:.0f}",
            f"{run['dev']['rel_micro_f']:.3f}",
            micro_f1(scores),
            f"{scores['macro_f']:.3f}",
            *(f"{value:.3f}" for value in error),
        )
    Console().print(f"{os.cpu_count()} processors", table)


if __name__ == "__main__":
    main()
