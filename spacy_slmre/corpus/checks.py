"""What may be wrong with a corpus: duplicates, leaks, missing and conflicting labels, broken arguments."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.gold_docs import ID
from spacy_slmre.corpus.summary import Summary
from spacy_slmre.relations import PAIRS, install_extensions

_EXAMPLES = 5


@dataclass
class Finding:
    """One thing that was found.

    Attributes:
        level: "error" (the corpus cannot be used as it is), "warning" or "info".
        message: What was found, with numbers.
        examples: A few of the places.
    """

    level: str
    message: str
    examples: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"level": self.level, "message": self.message, "examples": self.examples}


@dataclass
class _Split:
    """What is kept of a split while the others are read: hashes, not texts."""

    summary: Summary = field(default_factory=Summary)
    texts: Counter[bytes] = field(default_factory=Counter)
    pairs: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    names: dict[bytes, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    unannotated: int = 0


def diagnose(splits: Mapping[str, Path]) -> tuple[dict[str, Summary], list[Finding]]:
    """Look through the splits of a corpus.

    Args:
        splits: Name of each split, and its `.spacy` file or folder of them.

    Returns:
        The counts of each split, and what was found, errors first.

    Raises:
        CorpusError: A corpus cannot be read.
    """
    install_extensions()
    read = {name: _read(path) for name, path in splits.items()}
    findings: list[Finding] = []
    for name, split in read.items():
        findings += _within(name, split)
    for (first, one), (second, other) in combinations(read.items(), 2):
        findings += _between(first, one, second, other)
    findings += _labels(read)
    order = ("error", "warning", "info")
    findings.sort(key=lambda finding: order.index(finding.level))
    return {name: split.summary for name, split in read.items()}, findings


def _read(path: Path) -> _Split:
    split = _Split()
    vocab = spacy.blank("en").vocab
    for number, doc in enumerate(read_docs(path, vocab)):
        name = str(doc.user_data.get(ID) or number)
        key = _hash(doc.text)
        split.texts[key] += 1
        split.names.setdefault(key, name)
        if broken := _broken(doc):
            split.broken.append(f"{name}: {broken}")
            continue
        split.summary.add(doc)
        relations = getattr(doc._, PAIRS)
        split.unannotated += not relations
        for relation in relations:
            places = (
                relation.head.start_char,
                relation.head.end_char,
                relation.tail.start_char,
                relation.tail.end_char,
            )
            split.pairs[_hash(f"{doc.text}\0{places}")].add(relation.label)
    return split


def _broken(doc: Doc) -> str:
    """What is wrong with the arguments of a document, if anything."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(doc._, PAIRS)
    return str(caught[0].message) if caught else ""


def _within(name: str, split: _Split) -> list[Finding]:
    findings = []
    if split.broken:
        message = f"{name}: {len(split.broken):,} documents have arguments that do not lie on their text."
        findings.append(Finding("error", message, split.broken[:_EXAMPLES]))
    if not split.summary.instances:
        findings.append(Finding("error", f"{name}: there is no annotated pair."))
    if doubles := [key for key, count in split.texts.items() if count > 1]:
        surplus = sum(split.texts[key] - 1 for key in doubles)
        message = f"{name}: {surplus:,} documents repeat the text of another one."
        findings.append(Finding("warning", message, [split.names[key] for key in doubles[:_EXAMPLES]]))
    if split.unannotated:
        findings.append(Finding("info", f"{name}: {split.unannotated:,} documents have no annotated pair."))
    if several := sum(len(labels) > 1 for labels in split.pairs.values()):
        ceiling = split.summary.ceiling
        message = f"{name}: {several:,} pairs have several labels"
        message += f"; with one answer a pair micro-F1 cannot pass {ceiling:.3f}." if ceiling else "."
        findings.append(Finding("warning", message))
    return findings


def _between(first: str, one: _Split, second: str, other: _Split) -> list[Finding]:
    findings = []
    if shared := one.texts.keys() & other.texts.keys():
        message = f"{first} and {second} share {len(shared):,} texts."
        examples = sorted(f"{one.names[key]} = {other.names[key]}" for key in shared)[:_EXAMPLES]
        findings.append(Finding("warning", message, examples))
    conflicts = [key for key in one.pairs.keys() & other.pairs.keys() if one.pairs[key] != other.pairs[key]]
    if conflicts:
        message = f"{first} and {second} label {len(conflicts):,} pairs of the same text differently."
        examples = [
            f"{sorted(one.pairs[key])} against {sorted(other.pairs[key])}" for key in conflicts[:_EXAMPLES]
        ]
        findings.append(Finding("warning", message, examples))
    return findings


def _labels(read: Mapping[str, _Split]) -> list[Finding]:
    findings = []
    everywhere = {label for split in read.values() for label in split.summary.labels}
    for name, split in read.items():
        counts = split.summary.labels
        if missing := sorted(everywhere - counts.keys()):
            message = f"{name}: {len(missing)} labels of the other splits do not occur."
            findings.append(Finding("warning", message, missing[:_EXAMPLES]))
        if len(counts) > 1:
            (most, top), (least, low) = counts.most_common()[0], counts.most_common()[-1]
            message = f"{name}: {most} is {top / low:,.0f} times as frequent as {least} ({top:,} to {low:,})."
            findings.append(Finding("warning" if top > 100 * low else "info", message))
        if split.summary.negatives > 0.9 * split.summary.instances:
            share = split.summary.negatives / split.summary.instances
            findings.append(Finding("warning", f"{name}: {share:.0%} of the pairs are negatives."))
    return findings


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
