"""Corpus checks: duplicates, leakage, missing and conflicting labels, invalid arguments, imbalance."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.gold_docs import ID
from spacy_slmre.corpus.summary import Summary, known_rows
from spacy_slmre.gold import pair_key
from spacy_slmre.relations import Relation, install_extensions

_MAX_EXAMPLES = 5
LEVELS = ("error", "warning", "info")


@dataclass
class Finding:
    """A result of the checks.

    Attributes:
        level: "error" (the corpus cannot be used), "warning" or "info".
        message: What was found.
        examples: Some of the documents, labels or pairs concerned.
    """

    level: str
    message: str
    examples: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass
class CorpusStatistics:
    """Counts and hashes of a corpus; texts are not kept in memory."""

    summary: Summary = field(default_factory=Summary)
    texts: Counter[bytes] = field(default_factory=Counter)
    pairs: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    names: dict[bytes, str] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    unannotated: int = 0


def check_corpora(corpora: Mapping[str, Path]) -> tuple[dict[str, Summary], list[Finding]]:
    """Check corpora, usually the splits of a dataset, and compare them with each other.

    Args:
        corpora: The `.spacy` file or folder of each corpus by name.

    Returns:
        The counts of each corpus, and the findings, errors first.

    Raises:
        CorpusError: A corpus cannot be read.
    """
    install_extensions()
    statistics = {name: _read(path) for name, path in corpora.items()}
    findings = [finding for name, corpus in statistics.items() for finding in _check(name, corpus)]
    for first, second in combinations(statistics.items(), 2):
        findings += _compare(*first, *second)
    findings += _check_labels(statistics)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return {name: corpus.summary for name, corpus in statistics.items()}, findings


def sample_pairs(path: Path, number: int, label: str | None = None, seed: int = 0) -> list[Relation]:
    """Draw a uniform random sample of the pairs of a corpus whose labels are known, optionally with one label only."""
    rng = random.Random(seed)
    sample: list[Relation] = []
    seen = 0
    for doc in read_docs(path, spacy.blank("en").vocab):
        for pair, _ in known_rows(doc):
            if label is None or pair.label == label:
                # Reservoir sampling: only the sample is kept in memory.
                seen += 1
                position = len(sample) if len(sample) < number else rng.randrange(seen)
                if position < number:
                    sample[position : position + 1] = [pair]
    return sample


def _read(path: Path) -> CorpusStatistics:
    corpus = CorpusStatistics()
    vocab = spacy.blank("en").vocab
    for number, doc in enumerate(read_docs(path, vocab)):
        name = str(doc.user_data.get(ID) or number)
        key = _hash(doc.text)
        corpus.texts[key] += 1
        corpus.names.setdefault(key, name)
        pairs, problem = _read_pairs(doc)
        if problem:
            corpus.invalid.append(f"{name}: {problem}")
            continue
        corpus.summary.add(doc)
        corpus.unannotated += not pairs
        for pair in pairs:
            offsets = pair_key(pair.head, pair.tail)
            corpus.pairs[_hash(f"{doc.text}\0{offsets}")].add(pair.label)
    return corpus


def _read_pairs(doc: Doc) -> tuple[list[Relation], str]:
    """Return the pairs whose labels are known, and the first warning about invalid arguments or ""."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs = [pair for pair, _ in known_rows(doc)]
    return pairs, str(caught[0].message) if caught else ""


def _check(name: str, corpus: CorpusStatistics) -> Iterator[Finding]:
    summary = corpus.summary
    if corpus.invalid:
        message = f"{name}: {_count(len(corpus.invalid), 'document')} with arguments that do not match the text."
        yield Finding("error", message, corpus.invalid[:_MAX_EXAMPLES])
    if not summary.instances:
        yield Finding(
            "error",
            f"{name}: there are no annotated pairs. Convert your annotations with: python -m spacy slmre convert",
        )
    elif not summary.negatives:
        yield Finding(
            "warning",
            f"{name}: there is no negative pair, so a model trained on it will predict a relation for every pair. Set "
            "`negatives = RATIO` in the corpus reader of the training config to sample some.",
        )
    if duplicates := [key for key, count in corpus.texts.items() if count > 1]:
        surplus = sum(corpus.texts[key] - 1 for key in duplicates)
        examples = [corpus.names[key] for key in duplicates[:_MAX_EXAMPLES]]
        yield Finding("warning", f"{name}: {_count(surplus, 'document')} with the same text as another one.", examples)
    if corpus.unannotated:
        yield Finding("info", f"{name}: {_count(corpus.unannotated, 'document')} without annotated pairs.")
    if several := sum(len(labels) > 1 for labels in corpus.pairs.values()):
        message = f"{name}: {_count(several, 'pair')} with several labels"
        if summary.ceiling:
            message += f", so micro-F1 with one answer per pair is at most {summary.ceiling:.3f}"
        yield Finding("warning", f"{message}.")
    if summary.negatives > 0.9 * summary.instances:
        share = summary.negatives / summary.instances
        yield Finding("warning", f"{name}: {share:.0%} of the pairs are negative.")


def _compare(first: str, one: CorpusStatistics, second: str, other: CorpusStatistics) -> Iterator[Finding]:
    if shared := one.texts.keys() & other.texts.keys():
        examples = sorted(f"{one.names[key]} = {other.names[key]}" for key in shared)[:_MAX_EXAMPLES]
        yield Finding("warning", f"{first} and {second} have {_count(len(shared), 'text')} in common.", examples)
    conflicts = [key for key in one.pairs.keys() & other.pairs.keys() if one.pairs[key] != other.pairs[key]]
    if conflicts:
        examples = [f"{sorted(one.pairs[key])} and {sorted(other.pairs[key])}" for key in conflicts]
        message = f"{first} and {second} label {_count(len(conflicts), 'pair')} of the same text differently."
        yield Finding("warning", message, examples[:_MAX_EXAMPLES])


def _check_labels(corpora: Mapping[str, CorpusStatistics]) -> Iterator[Finding]:
    all_labels = {label for corpus in corpora.values() for label in corpus.summary.labels}
    for name, corpus in corpora.items():
        counts = corpus.summary.labels
        if missing := sorted(all_labels - counts.keys()):
            message = f"{name}: {_count(len(missing), 'label')} of the other corpora missing."
            yield Finding("warning", message, missing[:_MAX_EXAMPLES])
        if len(counts) > 1:
            (most, top), (least, low) = counts.most_common()[0], counts.most_common()[-1]
            message = f"{name}: {most} is {top / low:,.0f} times as frequent as {least} ({top:,} vs. {low:,})."
            yield Finding("warning" if top > 100 * low else "info", message)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
