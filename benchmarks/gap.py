"""Score the question of `slm_coreference` on GAP: which of two names does a pronoun refer to?

    python benchmarks/gap.py gap-test.tsv [--adapter ADAPTER] [--threshold 0.5] [--snippets 2000]

A pronoun refers to the more probable of the two names if the probability is at least the threshold, and to none
otherwise. Prints precision, recall and F1 of the links, as GAP's scorer does (Webster et al. 2018,
https://aclanthology.org/Q18-1042): for masculine and feminine pronouns, for all, and the ratio of the feminine to the
masculine F1. The names are given, and pages are not used.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.metrics import PRF, count
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.pipeline.slm_coreference import SAME, SCHEMA, CoreferenceSettings

MAX_CONTEXT_TOKENS = 512
FEMININE = {"she", "her", "hers", "herself"}
NAMES = ("A", "B")


def main() -> None:
    """Score and print."""
    parser = make_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--adapter", default="auto", help="adapter folder, or auto for the shipped one")
    parser.add_argument("--threshold", type=float, default=CoreferenceSettings.threshold)
    parser.add_argument("--snippets", type=int, default=2000, help="number of snippets")
    arguments = parser.parse_args()
    lm = make_small_lm(adapter=arguments.adapter).load()
    with arguments.file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[: arguments.snippets]
    totals: dict[str, PRF] = defaultdict(PRF)
    for row in track(rows, "Scoring …", console=Console(stderr=True)):
        spans = {field: int(row[f"{field}-offset"]) for field in ("Pronoun", *NAMES)}
        mentions = {field: Mention(start, start + len(row[field]), "") for field, start in spans.items()}
        ordered = sorted(mentions.values())
        context = Context(row["Text"], tuple(ordered))
        position = {field: ordered.index(mention) for field, mention in mentions.items()}
        instances = [RelationInstance(context, position["Pronoun"], position[name]) for name in NAMES]
        fitting = lm.truncate(instances, SCHEMA, MAX_CONTEXT_TOKENS)
        scores = {
            name: float(np.exp(lm.log_probs([instance], SCHEMA)[0, SCHEMA.index[SAME]]))
            for name, instance in zip(NAMES, fitting, strict=True)
            if instance is not None
        }
        best = max(scores, key=scores.__getitem__, default=None)
        found = {best} if best is not None and scores[best] >= arguments.threshold else set()
        gold = {name for name in NAMES if row[f"{name}-coref"] == "TRUE"}
        gender = "feminine" if row["Pronoun"].lower() in FEMININE else "masculine"
        for group in (gender, "all"):
            totals[group] += count(gold, found)
    table = Table("pronouns", "links", "precision", "recall", "F1", title=f"{arguments.file.name}")
    for group in ("masculine", "feminine", "all"):
        counts = totals[group]
        numbers = (f"{value:.3f}" for value in (counts.precision, counts.recall, counts.f1))
        table.add_row(group, f"{counts.tp + counts.fn:,}", *numbers)
    Console(width=100).print(table)
    print(f"feminine F1 / masculine F1: {totals['feminine'].f1 / totals['masculine'].f1:.3f}")


if __name__ == "__main__":
    main()
