"""Measure what each step of decoding adds: all pairs of a passage with gold entities.

    python benchmarks/decoding_steps.py FOLDER [--sets written_general …] [--adapter ADAPTER] [--pairs 2000]
        [--threshold 0.3] [-o OUTPUT.json]

FOLDER has label sets as in `assets/universal_corpus`. The pairs of a set are scored once, and decoded in several ways,
each with one more step than the one before:

* most probable label: of each pair, unless it is the negative label;
* threshold: the most probable positive label with at least this probability (default: that of the adapter);
* several labels: up to three labels of a pair with at least this probability;
* both directions: both directions of a pair are decided together.

Labels of the general schema have entity types. For sets that only have such labels, two more rows show what the types
add to all these steps: "types, afterwards" omits relations that the types do not allow, and "types, before" excludes
such labels before the probabilities are normalized.

Prints precision, recall and micro-F1 of the positive labels, and the number of contradictions: labels that hold in one
direction only but were written in both, and labels that hold in both directions, or have an inverse, without their
counterpart.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from unseen_labels import fitting_pairs, gold_relations, take_passages

from spacy_slmre.corpus.label_sets import LabelSetCorpus, LabelSetReader, PairIndices
from spacy_slmre.decoding import Decoding, Directions, decode
from spacy_slmre.metrics import count
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema

Relations = set[tuple[tuple[int, PairIndices], str]]
MAX_LABELS = 3


def with_general_types(schema: LabelSchema) -> LabelSchema | None:
    """Return the schema with the entity types of the general labels; None if it has other labels."""
    general = {label.name: label for label in LabelSchema.general().labels}
    if not all(name in general for name in schema.names):
        return None
    labels = tuple(replace(label, types=general[label.name].types) for label in schema.labels)
    return replace(schema, labels=labels, type_map=LabelSchema.general().type_map)


def contradictions(relations: Relations, pairs: set[tuple[int, PairIndices]], schema: LabelSchema) -> int:
    """Count contradictions between both directions of pairs."""
    found = 0
    for (number, (head, tail)), name in relations:
        other = (number, (tail, head))
        if (mirror := schema.mirrors.get(name)) is not None:
            found += other in pairs and (other, mirror) not in relations
        if name in schema.one_way:
            found += head < tail and (other, name) in relations
    return found


def measure(lm: SmallLM, corpus: LabelSetCorpus, max_pairs: int, threshold: float) -> list[dict[str, Any]]:
    """Score the pairs of a label set, and return a row of numbers for each step."""
    schema = corpus.schema
    passages = take_passages(corpus, max_pairs)
    gold = gold_relations(passages)
    pairs, instances = fitting_pairs(lm, passages, schema)
    mentions = [((number, head), (number, tail)) for number, (head, tail) in pairs]
    alone, opposite = np.full(len(pairs), -1), Directions.of_mentions(mentions, schema).opposite
    n_labels = len(schema.names)

    def row(step: str, log_probs: np.ndarray, rows: np.ndarray, decoding: Decoding, keep: Any = None) -> dict[str, Any]:
        directions = Directions.from_rows(rows, schema, allowed if keep is not None else None)
        decoded = decode(log_probs, directions, mentions, schema, decoding)
        written = {(pairs[r], schema.names[c]) for r, c, _ in decoded if keep is None or allowed is None or keep[r, c]}
        numbers = {"contradictions": contradictions(written, set(pairs), schema), **count(gold, written).to_dict()}
        return {"set": corpus.name, "pairs": len(pairs), "relations": len(gold), "step": step, **numbers}

    allowed: np.ndarray | None = None
    log_probs = lm.log_probs(instances, schema, k=n_labels)
    several = Decoding(threshold, max_labels=MAX_LABELS)
    rows = [
        row("most probable label", log_probs, alone, Decoding()),
        row("threshold", log_probs, alone, Decoding(threshold)),
        row("several labels", log_probs, alone, several),
        row("both directions", log_probs, opposite, several),
    ]
    typed = with_general_types(schema)
    if typed is not None:
        types = [[typed.map_type(one.type) for one in (i.head_mention, i.tail_mention)] for i in instances]
        allowed = np.stack([typed.allowed(head, tail) for head, tail in types])
        rows.append(row("types, afterwards", log_probs, opposite, several, allowed))
        log_probs = lm.log_probs(instances, schema, allowed, k=n_labels)
        rows.append(row("types, before", log_probs, opposite, several, allowed))
    return rows


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--sets", nargs="*", default=[], help="names of label sets (default: all)")
    parser.add_argument("--adapter", default="auto", help="adapter folder, or auto for the shipped one")
    parser.add_argument("--pairs", type=int, default=2000, help="maximum number of pairs of a set")
    parser.add_argument("--threshold", type=float, help="default: that of the adapter")
    parser.add_argument("--output", "-o", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    lm = make_small_lm(adapter=arguments.adapter).load()
    threshold = lm.default_threshold if arguments.threshold is None else arguments.threshold
    corpora = LabelSetReader((arguments.folder,), tuple(arguments.sets))()
    rows = [
        row
        for corpus in track(corpora, "Scoring …", console=Console(stderr=True))
        for row in measure(lm, corpus, arguments.pairs, threshold)
    ]
    table = Table("set", "step", "pairs", "relations", "precision", "recall", "F1", "contradictions")
    for one in rows:
        numbers = [f"{one[key]:.3f}" for key in ("p", "r", "f")]
        counts = [f"{one[key]:,}" for key in ("pairs", "relations")]
        table.add_row(one["set"], one["step"], *counts, *numbers, f"{one['contradictions']:,}")
    Console(width=110).print(table)
    if arguments.output:
        arguments.output.write_text(json.dumps({"threshold": threshold, "rows": rows}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
