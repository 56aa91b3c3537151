"""Score the clusters of `slm_coreference` on the test works of LitBank, with gold mentions.

    python benchmarks/litbank.py LITBANK [--adapter ADAPTER] [--threshold 0.5] [--works 4]

LITBANK has `*.coref.txt` and `*.coref.ann`. The mentions of a work (about 2,000 words) are given, and each is compared
with those before it as in the component. Mentions with the same proper name are one entity, as in `doc._.facts`. Prints
precision, recall and F1 of B³ (Bagga and Baldwin 1998), in which each mention counts once, for each work and all.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import spacy
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from spacy.tokens import Doc, Span

from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.pipeline.slm_coreference import CoreferenceResolver, CoreferenceSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from coreference_corpus import LITBANK_SPLITS, join_words

Key = tuple[int, int]


def read_work(file: Path) -> tuple[Doc, dict[Key, str], set[Key]]:
    """Read a work: its text, the entity of each mention, and which mentions are proper names."""
    sentences = [line.split() for line in file.read_text("utf-8").splitlines()]
    words = [word for sentence in sentences for word in sentence]
    _, offsets = join_words(words)
    spaces = [start > end for (_, end), (start, _) in pairwise(offsets)]
    starts = [sum(map(len, sentences[:number])) for number in range(len(sentences))]
    doc = Doc(
        spacy.blank("en").vocab, words, [*spaces, False], sent_starts=[i in set(starts) for i in range(len(words))]
    )
    mentions: dict[str, Key] = {}
    entities: dict[str, str] = {}
    names: set[Key] = set()
    for line in file.with_suffix(".ann").read_text("utf-8").splitlines():
        kind, *fields = line.split("\t")
        if kind == "MENTION" and fields[1] == fields[3]:
            first = starts[int(fields[1])]
            key = (first + int(fields[2]), first + int(fields[4]) + 1)
            mentions[fields[0]] = key
            if fields[-1] == "PROP":
                names.add(key)
        elif kind == "COREF":
            entities[fields[0]] = fields[1]
    return doc, {key: entities.get(id, id) for id, key in mentions.items()}, names


def find_entities(resolver: Any, doc: Doc, gold: dict[Key, str], names: set[Key]) -> dict[Key, int]:
    """Return the entity of each mention: clusters of the component, joined if they have the same name."""
    spans = [Span(doc, *key) for key in sorted(gold)]
    (clusters,) = resolver.cluster_mentions([doc], [spans])
    by_offsets = {(span.start_char, span.end_char): key for span, key in zip(spans, sorted(gold), strict=True)}
    entity_of = {key: number for number, key in enumerate(sorted(gold))}

    def join(keys: list[Key]) -> None:
        numbers = {entity_of[key] for key in keys}
        for key, number in entity_of.items():
            if number in numbers:
                entity_of[key] = min(numbers)

    for cluster in clusters:
        join([by_offsets[bounds] for bounds in cluster.mentions])
    same: dict[str, list[Key]] = defaultdict(list)
    for key in names:
        same[doc[key[0] : key[1]].text.lower()].append(key)
    for keys in same.values():
        join(keys)
    return entity_of


def b_cubed(gold: dict[Key, str], found: dict[Key, int]) -> tuple[float, float]:
    """Return the sums over mentions of B³ precision and recall."""
    of_gold, of_found = defaultdict(set), defaultdict(set)
    for key in gold:
        of_gold[gold[key]].add(key)
        of_found[found[key]].add(key)
    shared = {key: len(of_gold[gold[key]] & of_found[found[key]]) for key in gold}
    precision = sum(number / len(of_found[found[key]]) for key, number in shared.items())
    return precision, sum(number / len(of_gold[gold[key]]) for key, number in shared.items())


def main() -> None:
    """Score and print."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", default="auto", help="adapter folder, or auto for the shipped one")
    parser.add_argument("--threshold", type=float, default=CoreferenceSettings.threshold)
    parser.add_argument("--works", type=int, default=4, help="number of works of the test split")
    arguments = parser.parse_args()
    model = make_small_lm(adapter=arguments.adapter)
    resolver = CoreferenceResolver(model, "slm_coreference", CoreferenceSettings(threshold=arguments.threshold))
    files = [file for prefix in LITBANK_SPLITS["test"] for file in arguments.folder.glob(f"{prefix}*.coref.txt")]
    table = Table("work", "mentions", "B³ precision", "recall", "F1")
    totals = [0.0, 0.0, 0.0]
    for file in track(files[: arguments.works], "Scoring …", console=Console(stderr=True)):
        doc, gold, names = read_work(file)
        found = find_entities(resolver, doc, gold, names)
        numbers = (float(len(gold)), *b_cubed(gold, found))
        totals = [one + number for one, number in zip(totals, numbers, strict=True)]
        add_row(table, file.name.split("_brat")[0], *numbers)
    add_row(table, "all", *totals)
    Console(width=110).print(table)


def add_row(table: Table, name: str, mentions: float, precision: float, recall: float) -> None:
    """Add the scores of a work."""
    precision, recall = precision / mentions, recall / mentions
    f1 = 2 * precision * recall / (precision + recall)
    table.add_row(name, f"{mentions:.0f}", *(f"{value:.3f}" for value in (precision, recall, f1)))


if __name__ == "__main__":
    main()
