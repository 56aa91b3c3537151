"""Corpora of relations under many label sets: the universal and the written corpus.

A folder has, for each label set, `<set>.jsonl` (or `.jsonl.xz`) with one passage a line and `labels/<set>.json` with
the wording, definition, symmetry and inverse of each label. `assets/universal_corpus/README.md` describes the form.
Alternative wordings may be in `paraphrases/<set>.json`.
"""

from __future__ import annotations

import json
import lzma
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, TextIO

from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.schema import NEGATIVE, NEGATIVE_LABEL, LabelSchema, RelationLabel
from spacy_slmre.util.json_files import read_record

PairIndices = tuple[int, int]
"""Indices of head and tail in the mentions of a context."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A text and what is known about the pairs of its mentions.

    Attributes:
        id: Id in the corpus.
        context: The text with all annotated mentions.
        labels: Labels of the pairs that have any, including those that follow by symmetry or from an inverse label.
        negatives: Pairs that have none of the set's labels.
        excluded: Labels that a pair is known not to have, where its other labels are unknown.
        checked: Labels for which the whole passage was searched: any pair without such a label does not have it.
    """

    id: str
    context: Context
    labels: Mapping[PairIndices, frozenset[str]]
    negatives: tuple[PairIndices, ...] = ()
    excluded: Mapping[PairIndices, frozenset[str]] = field(default_factory=dict)
    checked: frozenset[str] = frozenset()

    def is_negative(self, pair: PairIndices, labels: frozenset[str]) -> bool:
        """Return whether a pair outside of `negatives` is known to have none of some labels."""
        return labels <= self.checked | self.excluded.get(pair, frozenset()) and not self.labels.get(pair)

    def is_known(self, pair: PairIndices) -> bool:
        """Return whether a pair with a label, or its other direction, is labeled or negative, not unknown.

        If a passage lists negatives, a direction that is neither labeled nor listed is unknown.
        """
        return not self.negatives or pair in self.labels or pair in self.negatives

    def instances(self, negative_label: str | None) -> Iterator[RelationInstance]:
        """Yield all pairs whose labels are known; a pair with several labels has an instance for each."""
        known = {pair: sorted(names) for pair, names in self.labels.items()}
        if negative_label is not None:
            known |= {pair: [negative_label] for pair in self.negatives}
        for pair in sorted(known):
            for name in known[pair]:
                yield RelationInstance(self.context, *pair, name)


@dataclass(frozen=True)
class Paraphrases:
    """Other ways to express a label.

    Attributes:
        wordings: Wordings from head to tail.
        definitions: Definitions.
        inverse_wordings: Wordings from tail to head.
        inverse_definition: Definition for these, with the roles exchanged.
    """

    wordings: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    inverse_wordings: tuple[str, ...] = ()
    inverse_definition: str = ""


@dataclass(frozen=True, eq=False)
class LabelSetCorpus:
    """The passages of one label set.

    Attributes:
        name: Name of the set.
        schema: Its labels; with a negative label if some pairs are known to have none of them.
        passages: The passages.
        paraphrases: Paraphrases of labels, by name.
    """

    name: str
    schema: LabelSchema
    passages: Sequence[Passage]
    paraphrases: Mapping[str, Paraphrases] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, RelationLabel]:
        """The labels by name, without the negative one."""
        return {label.name: label for label in self.schema.positive_labels}

    def instances(self, max_pairs: int = 0) -> list[RelationInstance]:
        """Return the pairs with known labels, skipping passages with which there would be more than `max_pairs`."""
        instances: list[RelationInstance] = []
        for passage in self.passages:
            new = list(passage.instances(self.schema.negative_label))
            if not max_pairs or len(instances) + len(new) <= max_pairs:
                instances += new
        return instances


def read_label_sets(folder: str | Path) -> list[LabelSetCorpus]:
    """Read the label sets of a folder, in alphabetical order.

    Raises:
        CorpusError: The folder holds no label set, or a file is malformed.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.jsonl*"))
    if not files:
        raise CorpusError(f"{folder} has no file SET.jsonl or SET.jsonl.xz.")
    return [_read_set(folder, file.name.split(".")[0], file) for file in files]


def _read_set(folder: Path, name: str, file: Path) -> LabelSetCorpus:
    labels = _read_labels(folder / "labels" / f"{name}.json")
    open_text: Callable[..., TextIO] = lzma.open if file.suffix == ".xz" else open
    passages = []
    with open_text(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                passages.append(_read_passage(json.loads(line), labels))
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise CorpusError(f"{file}:{number}: the passage is malformed ({error!r}).") from error
    has_negatives = any(passage.negatives for passage in passages)
    negative = [NEGATIVE] if has_negatives else []
    try:
        schema = LabelSchema((*labels.values(), *negative), NEGATIVE_LABEL if has_negatives else None)
    except ValueError as error:
        raise CorpusError(f"{folder / 'labels' / name}.json: {error}") from error
    return LabelSetCorpus(name, schema, passages, _read_paraphrases(folder / "paraphrases" / f"{name}.json"))


def _read_labels(file: Path) -> dict[str, RelationLabel]:
    def parse(data: dict[str, Any]) -> dict[str, RelationLabel]:
        return {
            name: RelationLabel(
                name, label["wording"], label["definition"], symmetric=label["symmetric"], inverse=label["inverse"]
            )
            for name, label in data.items()
        }

    return read_record(file, parse, CorpusError)


def _read_paraphrases(file: Path) -> dict[str, Paraphrases]:
    def parse(data: dict[str, Any]) -> dict[str, Paraphrases]:
        return {
            name: Paraphrases(
                tuple(entry["wordings"]),
                tuple(entry["definitions"]),
                tuple(entry["inverse_wordings"]),
                entry["inverse_definition"],
            )
            for name, entry in data.items()
        }

    return read_record(file, parse, CorpusError) if file.exists() else {}


def _read_passage(row: dict[str, Any], labels: Mapping[str, RelationLabel]) -> Passage:
    entities = [Mention(entity["start"], entity["end"], entity["type"]) for entity in row["entities"]]
    mentions = sorted(set(entities))
    # An entity may be listed twice, with the same offsets; its relations to itself are left out. A relation of one
    # listed entity to itself is meant: the label is a type.
    position = [mentions.index(entity) for entity in entities]
    found: dict[PairIndices, set[str]] = defaultdict(set)
    for relation in row["relations"]:
        label = labels[relation["label"]]
        head, tail = position[relation["head"]], position[relation["tail"]]
        if head == tail and relation["head"] != relation["tail"]:
            continue
        found[head, tail].add(label.name)
        if label.symmetric:
            found[tail, head].add(label.name)
        if label.inverse is not None:
            found[tail, head].add(label.inverse)
    negatives = [
        (position[head], position[tail])
        for head, tail in row.get("negatives", ())
        if head == tail or position[head] != position[tail]
    ]
    if row.get("exhaustive"):
        negatives = list(permutations(range(len(mentions)), 2))
    excluded: dict[PairIndices, set[str]] = defaultdict(set)
    for head, tail, name in row.get("label_negatives", ()):
        excluded[position[head], position[tail]].add(name)
    return Passage(
        row["id"],
        Context(row["text"], tuple(mentions)),
        {pair: frozenset(names) for pair, names in found.items()},
        tuple(dict.fromkeys(pair for pair in negatives if pair not in found)),
        {pair: frozenset(names) for pair, names in excluded.items()},
        frozenset(row.get("checked", ())),
    )


@dataclass(frozen=True)
class LabelSetReader:
    """Reads the label sets of several folders; `@readers = "spacy-slmre.LabelSets.v1"`.

    Attributes:
        paths: The folders.
        names: Names of the label sets to read; empty reads all. Those that no folder has are ignored.
        max_pairs: Maximum number of pairs of a set when it is used as a dev set; 0 uses all.
        seed: Random seed for the order of the passages.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...] = ()
    max_pairs: int = 0
    seed: int = 0

    def __call__(self) -> list[LabelSetCorpus]:
        """Return the corpora, each with its passages in random order.

        Raises:
            CorpusError: A file is missing or malformed, no set is left, or two files have sets of one name.
        """
        if not self.paths:
            raise CorpusError("No folder with label sets: set at least one of corpora.*.paths.")
        corpora = [corpus for path in self.paths for corpus in read_label_sets(path)]
        found = [corpus.name for corpus in corpora]
        if repeated := sorted({name for name in found if found.count(name) > 1}):
            raise CorpusError(f"The label set {repeated[0]} is in more than one file of: {', '.join(self.paths)}.")
        if self.names and not set(self.names) & set(found):
            places = ", ".join(self.paths)
            raise CorpusError(f"None of {', '.join(self.names)} is in {places}, which have only {', '.join(found)}.")
        return [
            replace(corpus, passages=random.Random(self.seed).sample(corpus.passages, len(corpus.passages)))
            for corpus in corpora
            if not self.names or corpus.name in self.names
        ]


def label_sets(
    paths: dict[str, str | None], *, names: list[str] | None = None, max_pairs: int = 0, seed: int = 0
) -> LabelSetReader:
    """Make a `LabelSetReader` from a config.

    The keys of `paths` only make them easy to override; null omits a folder.
    """
    return LabelSetReader(
        tuple(path for path in paths.values() if path is not None), tuple(names or ()), max_pairs, seed
    )
