"""Compare ways to combine the scores of the relations that state a fact.

    python benchmarks/fact_scores.py DOCUMENTS PIPELINE [--limit 50] [--threshold 0.05] [-o OUTPUT.json]

DOCUMENTS is a .spacy file with gold mentions and relations, such as Re-DocRED with whole documents:

    python -m spacy slmre convert test_revised.json -o documents.spacy --format re_docred --set unit=document

The component of PIPELINE gets the gold mentions and the labels of the corpus, and writes all relations with at least
the given score. Its facts are then scored in several ways:

* highest: the highest score of the relations, as in `doc._.facts`;
* mean: their mean;
* noisy-or: 1 - Π(1 - p), the probability that at least one holds if they were independent.

Prints for each, over all facts and over those with several relations: the expected calibration error, the Brier score
(mean squared error), the average precision (area under the precision-recall curve, among these facts), and the best F1
with the threshold that gives it, which is chosen on the same documents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
import spacy
from common import known_schema, make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import average_precision_score, brier_score_loss

from spacy_slmre.calibration import calibration_error
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.facts import combine_scores, facts_of
from spacy_slmre.pipeline.components import get_relation_extractor

COMBINATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "highest": combine_scores,
    "mean": fmean,
    "noisy-or": lambda scores: 1 - math.prod(1 - score for score in scores),
}


def measure(scores: np.ndarray, correct: np.ndarray, n_gold: int) -> dict[str, float]:
    """Compare the scores of facts (n,) with whether they are correct (n,), of `n_gold` facts to find."""
    thresholds = np.unique(scores)
    is_written = scores[:, None] >= thresholds
    f1 = 2 * (is_written & correct[:, None]).sum(axis=0) / (is_written.sum(axis=0) + n_gold)
    best = int(f1.argmax())
    return {
        "facts": len(scores),
        "ece": calibration_error(scores, correct),
        "brier": float(brier_score_loss(correct, scores)),
        "average_precision": float(average_precision_score(correct, scores)),
        "f": float(f1[best]),
        "threshold": float(thresholds[best]),
    }


def main() -> None:
    """Predict, compare and print."""
    parser = make_parser(__doc__)
    parser.add_argument("documents", type=Path)
    parser.add_argument("pipeline")
    parser.add_argument("--limit", type=int, help="number of documents; by default all")
    parser.add_argument("--threshold", type=float, default=0.05, help="minimum score of a relation")
    parser.add_argument("--output", "-o", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    nlp = spacy.load(arguments.pipeline)
    _, pipe = get_relation_extractor(nlp, None)
    pipe.threshold, pipe.label_thresholds = arguments.threshold, {}
    docs = list(islice(read_docs(arguments.documents, nlp.vocab), arguments.limit))
    gold = [{(fact.head.key, fact.label, fact.tail.key) for fact in facts_of(doc)} for doc in docs]
    if docs and (schema := known_schema(docs)) is not None:
        pipe.set_schema(schema)
    evidence: list[list[float]] = []
    correct: list[bool] = []
    predicted = pipe.pipe(docs, batch_size=1)
    for doc, of_doc in zip(track(predicted, total=len(docs), console=Console(stderr=True)), gold, strict=True):
        for fact in facts_of(doc):
            evidence.append([relation.score for relation in fact.relations])
            correct.append((fact.head.key, fact.label, fact.tail.key) in of_doc)
    is_correct = np.array(correct, dtype=bool)
    several = np.array([len(scores) > 1 for scores in evidence], dtype=bool)
    rows = []
    for name, combine in COMBINATIONS.items():
        scores = np.array([combine(one) for one in evidence])
        rows.append({"scores": name, "of": "all", **measure(scores, is_correct, sum(map(len, gold)))})
        if is_correct[several].any():
            of_several = measure(scores[several], is_correct[several], int(is_correct[several].sum()))
            rows.append({"scores": name, "of": "several relations", **of_several})
    columns = ("facts", "ece", "brier", "average_precision", "f", "threshold")
    table = Table("scores", "of facts with", *columns)
    for row in rows:
        table.add_row(str(row["scores"]), str(row["of"]), f"{row['facts']:,}", *(f"{row[c]:.3f}" for c in columns[1:]))
    Console(width=110).print(table)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
