"""Compile the written corpus to the form of the universal corpus, or compare two annotations of it.

Usage: python scripts/written_corpus.py compile FOLDER OUTPUT
       python scripts/written_corpus.py agreement FOLDER OTHER

FOLDER has `passages/*.txt`, `training/*.txt` and `labels/*.json` in the form that
`assets/written_corpus/GUIDELINES.md` describes. All passages are checked first. `compile` writes to OUTPUT, for each
split, the label set `written_general` with all passages and `written_<set>` with those of each other label set; all
passages of `training` belong to the train split. `agreement` compares the passages with the same ones in OTHER, a
folder of such `*.txt` files, and prints F1 of mentions, coreference links and relations.

Relations are annotated between entities. In a sentence that mentions both, all pairs of their mentions are positive; if
there is none, the closest pair is. Other pairs of their mentions are unknown; pairs of mentions of unrelated entities
are negative.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spacy_slmre.metrics import PRF, count
from spacy_slmre.schema import LabelSchema

GENRES = (
    "news",
    "obituary",
    "biography",
    "letter",
    "fiction",
    "company report",
    "court report",
    "minutes",
    "medical note",
    "science",
    "encyclopedia",
    "history",
    "chat and e-mail",
)
TYPES = ("PER", "LOC", "ORG", "WORK", "DATE", "EVENT", "PRODUCT", "AWARD", "TITLE", "NORP", "AMOUNT", "MISC")
SPLITS = {"train": 0.7, "dev": 0.1, "test": 0.2}
TRAINING = "training"
"""Folder of passages that all belong to the train split."""
GENERAL = "general"
PREFIX = "written_"
"""Prefix of the names of label sets."""
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])")
_TAG = re.compile(r"\|([A-Z]+) (\d+)\]")
_RELATION = re.compile(r"(\d+) > ([^>]+) > (\d+(?:, \d+)*)")
_HEADER = re.compile(r"== ([a-z -]+?)(?: / ([a-z0-9_]+))?")


@dataclass(frozen=True)
class Mention:
    """A marked mention: character offsets into the text, type, and the number of its entity."""

    start: int
    end: int
    type: str
    entity: int


@dataclass
class Passage:
    """A passage of the written corpus.

    Attributes:
        where: File and line.
        is_training: Whether it belongs to the train split, whatever its text is.
        relations: (head entity, label, tail entity), as written.
    """

    where: str
    is_training: bool
    genre: str
    label_set: str | None
    text: str
    mentions: list[Mention]
    relations: list[tuple[int, str, int]] = field(default_factory=list)


def parse_markup(line: str) -> tuple[str, list[Mention]]:
    """Return text and mentions of a marked line. Raises ValueError if the markup is malformed."""
    text, mentions, open_at, position = "", [], [], 0
    while position < len(line):
        if line[position] == "[":
            open_at.append(len(text))
            position += 1
        elif line[position] in "|]":
            tag = _TAG.match(line, position)
            if tag is None or not open_at:
                raise ValueError(f"malformed markup at …{line[max(position - 20, 0) : position + 10]}…")
            if tag[1] not in TYPES:
                raise ValueError(f"unknown entity type {tag[1]}; types: {', '.join(TYPES)}")
            mentions.append(Mention(open_at.pop(), len(text), tag[1], int(tag[2])))
            position = tag.end()
        else:
            text += line[position]
            position += 1
    if open_at:
        raise ValueError(f"a bracket is not closed after {text[open_at[-1] : open_at[-1] + 20]!r}")
    for mention in mentions:
        if (
            text[mention.start : mention.end] != text[mention.start : mention.end].strip()
            or mention.end == mention.start
        ):
            raise ValueError(
                f"a mention is empty or has white space at its edge: {text[mention.start : mention.end]!r}"
            )
    return text, sorted(mentions, key=lambda mention: (mention.start, -mention.end))


def read_passages(file: Path, label_sets: dict[str, dict[str, Any]]) -> Iterator[Passage | str]:
    """Yield the passages of a file, and an error message for each malformed one."""
    general = set(LabelSchema.general().positive_names)
    block: list[tuple[int, str]] = []
    lines = [*enumerate(file.read_text("utf-8").splitlines(), 1), (0, "")]
    for number, line in lines:
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            try:
                yield _read_passage(file, block, label_sets, general)
            except ValueError as error:
                yield f"{file}:{block[0][0]}: {error}"
            block = []


def _read_passage(
    file: Path, block: list[tuple[int, str]], label_sets: dict[str, dict[str, Any]], general: set[str]
) -> Passage:
    header = _HEADER.fullmatch(block[0][1])
    if header is None or header[1] not in GENRES:
        raise ValueError(f'expected "== GENRE" or "== GENRE / LABELSET" with one of {", ".join(GENRES)}')
    if header[2] is not None and header[2] not in label_sets:
        raise ValueError(f"there is no file labels/{header[2]}.json")
    if len(block) < 2:
        raise ValueError("the text is missing")
    text, mentions = parse_markup(block[1][1])
    types: dict[int, set[str]] = defaultdict(set)
    for mention in mentions:
        types[mention.entity].add(mention.type)
    if mixed := [entity for entity, kinds in types.items() if len(kinds) > 1]:
        raise ValueError(f"entity {mixed[0]} has several types: {', '.join(sorted(types[mixed[0]]))}")
    labels = general | set(label_sets.get(header[2] or "", {}))
    is_training = file.parent.name == TRAINING
    where = f"{file.parent.name}/{file.stem}-{block[0][0]}" if is_training else f"{file.stem}-{block[0][0]}"
    passage = Passage(where, is_training, header[1], header[2], text, mentions)
    for number, line in block[2:]:
        found = _RELATION.fullmatch(line)
        if found is None:
            raise ValueError(f'line {number}: expected "head > label > tail, tail", not {line!r}')
        if found[2] not in labels:
            raise ValueError(f"line {number}: unknown label {found[2]!r}")
        for tail in found[3].split(", "):
            relation = (int(found[1]), found[2], int(tail))
            if missing := {relation[0], relation[2]} - set(types):
                raise ValueError(f"line {number}: no mention has the entity number {min(missing)}")
            if relation[0] == relation[2]:
                raise ValueError(f"line {number}: head and tail are the same entity")
            if relation in passage.relations:
                raise ValueError(f"line {number}: {relation} is written twice")
            passage.relations.append(relation)
    return passage


def read_label_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Read `labels/*.json`. Raises ValueError if a file is malformed."""
    general = set(LabelSchema.general().positive_names)
    sets = {}
    for file in sorted(folder.glob("labels/*.json")):
        labels = json.loads(file.read_text("utf-8"))
        for name, label in labels.items():
            if set(label) != {"wording", "definition", "symmetric", "inverse"}:
                raise ValueError(f"{file}: {name} must have wording, definition, symmetric and inverse")
            if name in general or ">" in name:
                raise ValueError(f"{file}: {name} is a general label, or has a >")
            if label["inverse"] is not None and labels.get(label["inverse"], {}).get("inverse") != name:
                raise ValueError(f"{file}: the inverse of {name} must be a label whose inverse is {name}")
        if len({label["wording"] for label in labels.values()}) < len(labels):
            raise ValueError(f"{file}: two labels have the same wording")
        sets[file.stem] = labels
    return sets


def read_corpus(folder: Path) -> tuple[list[Passage], dict[str, dict[str, Any]]]:
    """Return the passages and label sets of a folder; print all problems and exit if there are any."""
    try:
        label_sets = read_label_sets(folder)
    except ValueError as error:
        sys.exit(str(error))
    files = [file for part in ("passages", TRAINING) for file in sorted(folder.glob(f"{part}/*.txt"))]
    found = [one for file in files for one in read_passages(file, label_sets)]
    passages = [passage for passage in found if isinstance(passage, Passage)]
    problems = [problem for problem in found if isinstance(problem, str)]
    texts = Counter(passage.text for passage in passages)
    problems += [f"A passage occurs {number} times: {text}" for text, number in texts.items() if number > 1]
    if problems:
        sys.exit("\n".join(problems))
    return passages, label_sets


def label_pairs(
    passage: Passage, labels: dict[str, dict[str, Any]]
) -> tuple[dict[tuple[int, int], set[str]], list[tuple[int, int]]]:
    """Return the positive pairs of mentions with their labels, and the negative pairs."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(passage.text))]
    sentence = [bisect_right(starts, mention.start) for mention in passage.mentions]
    members: dict[int, list[int]] = defaultdict(list)
    for number, mention in enumerate(passage.mentions):
        members[mention.entity].append(number)
    positives: dict[tuple[int, int], set[str]] = defaultdict(set)
    related: set[tuple[int, int]] = set()
    for head, label, tail in closure(passage.relations, labels):
        related.add((head, tail))
        pairs = [(one, other) for one in members[head] for other in members[tail]]
        same = [(one, other) for one, other in pairs if sentence[one] == sentence[other]]
        closest = min(pairs, key=lambda pair: abs(passage.mentions[pair[0]].start - passage.mentions[pair[1]].start))
        for pair in same or [closest]:
            positives[pair].add(label)
    negatives = [
        (head, tail)
        for head, tail in permutations(range(len(passage.mentions)), 2)
        if (passage.mentions[head].entity, passage.mentions[tail].entity) not in related
    ]
    return positives, negatives


def closure(relations: list[tuple[int, str, int]], labels: dict[str, dict[str, Any]]) -> list[tuple[int, str, int]]:
    """Return the relations with one of these labels, with those that follow by symmetry or from inverse labels."""
    result: dict[tuple[int, str, int], None] = {}
    for head, label, tail in relations:
        if label in labels:
            result[head, label, tail] = None
            if labels[label]["symmetric"]:
                result[tail, label, head] = None
            if labels[label]["inverse"]:
                result[tail, labels[label]["inverse"], head] = None
    return list(result)


def general_labels() -> dict[str, dict[str, Any]]:
    """Return the labels of the general schema in the form of a label set."""
    schema = LabelSchema.general()
    return {
        label.name: {
            "wording": label.wording,
            "definition": label.definition,
            "symmetric": label.symmetric,
            "inverse": label.inverse,
        }
        for label in schema.labels
        if label.name != schema.negative_label
    }


def split_of(passage: Passage) -> str:
    """Return the split of a passage, by a hash of its text unless its folder decides."""
    if passage.is_training:
        return "train"
    share = int.from_bytes(hashlib.blake2b(passage.text.encode(), digest_size=6).digest()) / 2**48
    for split, size in SPLITS.items():
        if share < size:
            return split
        share -= size
    return split


def to_row(passage: Passage, labels: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a passage in the form of the universal corpus."""
    positives, negatives = label_pairs(passage, labels)
    return {
        "id": passage.where,
        "genre": passage.genre,
        "text": passage.text,
        "entities": [
            {"start": mention.start, "end": mention.end, "type": mention.type, "entity": mention.entity}
            for mention in passage.mentions
        ],
        "relations": [
            {"head": head, "tail": tail, "label": label}
            for (head, tail), names in sorted(positives.items())
            for label in sorted(names)
        ],
        "exhaustive": False,
        "negatives": negatives,
    }


def compile_corpus(folder: Path, output: Path) -> None:
    """Write the label sets of each split, and print their sizes."""
    passages, label_sets = read_corpus(folder)
    sets = {GENERAL: general_labels(), **label_sets}
    table = Table("split", "passages", "label sets", "labels", "mentions", "positive pairs", "negative pairs")
    for split in SPLITS:
        chosen = [passage for passage in passages if split_of(passage) == split]
        totals: Counter[str] = Counter()
        for name, labels in sets.items():
            rows = [to_row(passage, labels) for passage in chosen if name in (GENERAL, passage.label_set)]
            totals.update(sets=bool(rows), labels=len(labels) if rows else 0)
            for row in rows:
                totals.update(positives=len(row["relations"]), negatives=len(row["negatives"]))
            if not rows:
                continue
            paraphrases = json.loads((folder / "paraphrases" / f"{name}.json").read_text("utf-8"))
            write_label_set(output / split, f"{PREFIX}{name}", rows, labels, paraphrases)
        numbers = [len(chosen), *(totals[key] for key in ("sets", "labels"))]
        numbers += [sum(len(passage.mentions) for passage in chosen), totals["positives"], totals["negatives"]]
        table.add_row(split, *(f"{number:,}" for number in numbers))
    Console().print(table)


def write_label_set(
    folder: Path,
    name: str,
    rows: list[dict[str, Any]],
    labels: dict[str, dict[str, Any]],
    paraphrases: dict[str, dict[str, Any]],
) -> None:
    """Write a label set, with the paraphrases of its labels."""
    for part, content in (("labels", labels), ("paraphrases", paraphrases)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / part / f"{name}.json").write_text(text, encoding="utf-8")
    with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def compare_annotations(folder: Path, other: Path) -> None:
    """Print the agreement of two annotations of the same passages."""
    passages, label_sets = read_corpus(folder)
    found = [one for file in sorted(other.glob("*.txt")) for one in read_passages(file, label_sets)]
    if problems := [problem for problem in found if isinstance(problem, str)]:
        sys.exit("\n".join(problems))
    others = {passage.text: passage for passage in found if isinstance(passage, Passage)}
    both = [(passage, others[passage.text]) for passage in passages if passage.text in others]
    general = general_labels()
    kinds = ("mentions", "mentions with type", "coreference links", "relations", "relations of shared mentions")
    everything = "all passages"
    totals = {part: dict.fromkeys(kinds, PRF()) for part in (everything, "passages", TRAINING)}
    sizes: Counter[str] = Counter()
    for pair in both:
        shared = set.intersection(*({(m.start, m.end) for m in one.mentions} for one in pair))
        items = [_items(one, {**general, **label_sets.get(one.label_set or "", {})}, shared) for one in pair]
        counted = {kind: count(items[0][kind], items[1][kind]) for kind in kinds}
        for part in (everything, TRAINING if pair[0].is_training else "passages"):
            sizes[part] += 1
            for kind in kinds:
                totals[part][kind] += counted[kind]
    for part, of_part in totals.items():
        if part != everything and sizes[part] in (0, len(both)):
            continue  # all passages are in one part
        table = Table("annotation", "first", "second", "F1", title=f"Agreement on {sizes[part]:,} passages ({part})")
        for kind, counts in of_part.items():
            table.add_row(kind, f"{counts.tp + counts.fn:,}", f"{counts.tp + counts.fp:,}", f"{counts.f1:.3f}")
        Console().print(table)


def _items(
    passage: Passage, labels: dict[str, dict[str, Any]], shared: set[tuple[int, int]]
) -> dict[str, set[tuple[Any, str]]]:
    """Return the items by which two annotations are compared, as sets."""
    spans = [(mention.start, mention.end) for mention in passage.mentions]
    positives, _ = label_pairs(passage, labels)
    relations = {((spans[head], spans[tail]), name) for (head, tail), names in positives.items() for name in names}
    # A cluster of n mentions has n - 1 links, from each mention to the one before it.
    last: dict[int, tuple[int, int]] = {}
    links = set()
    for mention, span in zip(passage.mentions, spans, strict=True):
        if mention.entity in last:
            links.add(((last[mention.entity], span), ""))
        last[mention.entity] = span
    return {
        "mentions": {(span, "") for span in spans},
        "mentions with type": {(span, mention.type) for span, mention in zip(spans, passage.mentions, strict=True)},
        "coreference links": links,
        "relations": relations,
        "relations of shared mentions": {item for item in relations if set(item[0]) <= shared},
    }


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=("compile", "agreement"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, help="OUTPUT or OTHER")
    arguments = parser.parse_args()
    run = compile_corpus if arguments.command == "compile" else compare_annotations
    run(arguments.folder, arguments.other)


if __name__ == "__main__":
    main()
