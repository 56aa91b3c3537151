"""Turn coreference annotations into label sets, so that a model learns which mention refers to which.

Usage: python scripts/coreference_corpus.py GAP LITBANK WRITTEN OUTPUT

GAP has gap-{development,validation,test}.tsv, LITBANK has `*.coref.txt` and `*.coref.ann`, and WRITTEN is the output of
`written_corpus.py compile`. OUTPUT gets, for each split, the label sets `coreference_gap`, `coreference_litbank` and
`coreference_written` with the label "same": the head refers to the same entity as the tail. Heads are mentions, and
their tails are the mentions before them in a window of up to three sentences; in GAP, the head is a pronoun, and the
tails are two names.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from written_corpus import write_label_set

from spacy_slmre.pipeline.slm_coreference import SAME, SCHEMA

SPLITS = ("train", "dev", "test")
GAP_FILES = {"train": "development", "dev": "validation", "test": "test"}
LITBANK_SPLITS = {"dev": ("27_", "5348_"), "test": ("158_", "74_", "84_", "940_")}
"""Prefixes of the file names of works that are held out."""
LABELS = {
    SAME: {
        # What `slm_coreference` asks, since the model is tuned for it.
        "wording": SCHEMA.labels[0].wording,
        "definition": SCHEMA.labels[0].definition,
        "symmetric": False,  # a later mention refers to an earlier one: only this direction is asked
        "inverse": None,
    }
}
PARAPHRASES = {
    SAME: {
        "wordings": [
            "refers to the same as",
            "is another mention of",
            "is the same entity as",
            "same as",
            "refers to",
            "is",
        ],
        "definitions": [
            "both mentions refer to one entity",
            "the head is a pronoun, description or name of the tail",
            "whoever or whatever the head means is the tail",
        ],
        "inverse_wordings": [],
        "inverse_definition": "",
    }
}
MAX_WORDS, MAX_SENTENCES = 110, 3
MAX_ANTECEDENTS = 8
"""Number of preceding mentions that a mention is compared with."""
_NO_SPACE_BEFORE = re.compile(r"[.,;:!?)\]%]+|['’](s|S|ll|re|ve|d|m|em|t)?|n['’]t|[”]|-")
_NO_SPACE_AFTER = ("(", "[", "$", "“", "‘", "-")


@dataclass(frozen=True)
class Window:
    """A text with mentions (start, end, cluster) in characters."""

    id: str
    text: str
    mentions: list[tuple[int, int, str]]


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the words as readable text, and the offsets of each."""
    text, offsets, is_open, glued = "", [], False, True
    for word in words:
        closes = word == '"' and is_open
        if not (glued or closes or _NO_SPACE_BEFORE.fullmatch(word)):
            text += " "
        offsets.append((len(text), len(text) + len(word)))
        text += word
        glued = word in _NO_SPACE_AFTER or (word == '"' and not closes)
        if word == '"':
            is_open = not is_open
    return text, offsets


def read_litbank(folder: Path) -> Iterator[tuple[str, Window]]:
    """Yield the windows of each work, with their split."""
    for file in sorted(folder.glob("*.coref.txt")):
        sentences = [line.split() for line in file.read_text("utf-8").splitlines()]
        mentions: dict[str, tuple[int, int, int]] = {}
        clusters: dict[str, str] = {}
        for line in file.with_suffix(".ann").read_text("utf-8").splitlines():
            kind, *fields = line.split("\t")
            if kind == "MENTION" and fields[1] == fields[3]:  # within one sentence
                mentions[fields[0]] = (int(fields[1]), int(fields[2]), int(fields[4]))
            elif kind == "COREF":
                clusters[fields[0]] = fields[1]
        name = file.name.removesuffix("_brat.coref.txt")
        split = next((split for split, works in LITBANK_SPLITS.items() if name.startswith(works)), "train")
        first = 0
        while first < len(sentences):
            last = first + 1
            while (
                last < min(len(sentences), first + MAX_SENTENCES)
                and sum(map(len, sentences[first : last + 1])) <= MAX_WORDS
            ):
                last += 1
            words = [word for sentence in sentences[first:last] for word in sentence]
            starts = {number: sum(map(len, sentences[first:number])) for number in range(first, last)}
            text, offsets = join_words(words)
            found = [
                (offsets[starts[number] + start][0], offsets[starts[number] + end][1], clusters.get(id, id))
                for id, (number, start, end) in mentions.items()
                if number in starts
            ]
            if len(words) <= MAX_WORDS * 3 // 2:
                yield split, Window(f"{name}-{first}", text, sorted(set(found)))
            first = last


def read_gap(folder: Path) -> Iterator[tuple[str, Window]]:
    """Yield the snippets, with their split: a pronoun and two names."""
    for split, part in GAP_FILES.items():
        with (folder / f"gap-{part}.tsv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                mentions = []
                for field in ("Pronoun", "A", "B"):
                    start = int(row[f"{field}-offset"])
                    same = field == "Pronoun" or row[f"{field}-coref"] == "TRUE"
                    mentions.append((start, start + len(row[field]), "Pronoun" if same else field))
                yield split, Window(row["ID"], row["Text"], mentions)


def read_written(folder: Path) -> Iterator[tuple[str, Window]]:
    """Yield the passages of the compiled written corpus, with their split."""
    for split in SPLITS:
        with lzma.open(folder / split / "written_general.jsonl.xz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                mentions = [(entity["start"], entity["end"], str(entity["entity"])) for entity in row["entities"]]
                yield split, Window(row["id"], row["text"], sorted(set(mentions)))


def to_row(window: Window, *, first_is_head: bool = False) -> dict[str, Any] | None:
    """Return a window in the form of the universal corpus, or None if it has no pairs.

    Each mention is the head of pairs with the mentions before it; with `first_is_head`, only the first mention is, of
    pairs with all others.
    """
    number = len(window.mentions)
    pairs = (
        [(0, tail) for tail in range(1, number)]
        if first_is_head
        else [(head, tail) for head in range(number) for tail in range(max(0, head - MAX_ANTECEDENTS), head)]
    )
    if not pairs:
        return None
    same = [pair for pair in pairs if window.mentions[pair[0]][2] == window.mentions[pair[1]][2]]
    return {
        "id": window.id,
        "text": window.text,
        "entities": [{"start": start, "end": end, "type": ""} for start, end, _ in window.mentions],
        "relations": [{"head": head, "tail": tail, "label": SAME} for head, tail in same],
        "exhaustive": False,
        "negatives": [pair for pair in pairs if pair not in same],
    }


def main() -> None:
    """Write the label sets and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("gap", "litbank", "written", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    sources: dict[str, Iterable[tuple[str, Window]]] = {
        "gap": read_gap(options.gap),
        "litbank": read_litbank(options.litbank),
        "written": read_written(options.written),
    }
    table = Table("label set", "split", "texts", "same", "not the same")
    for name, windows in sources.items():
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for split, window in windows:
            if (row := to_row(window, first_is_head=name == "gap")) is not None:
                rows[split].append(row)
        for split in SPLITS:
            totals: Counter[str] = Counter()
            for row in rows[split]:
                totals.update(same=len(row["relations"]), other=len(row["negatives"]))
            write_label_set(options.output / split, f"coreference_{name}", rows[split], LABELS, PARAPHRASES)
            table.add_row(name, split, *(f"{n:,}" for n in (len(rows[split]), totals["same"], totals["other"])))
    Console().print(table)


if __name__ == "__main__":
    main()
