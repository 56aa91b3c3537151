"""Create the corpus that the shipped adapter is tuned on: everyday relations with the labels of the general schema.

Usage: python scripts/general_corpus.py RAW CORPUS [--splits dev] [--semeval 1000] [--empty 0.3]

RAW is the folder of raw data that `python -m spacy project assets` downloads to, CORPUS the folder for train.spacy,
dev.spacy and test.spacy. The licenses of all sources permit redistribution:

* Re-DocRED (MIT): the dev split, which the shipped adapter is tuned on, or other splits (`--splits train dev` makes a
  corpus seven times as large). Properties that correspond to labels of the general schema are mapped to them
  (`PROPERTIES`). Pairs of entities in a sentence that have no relation anywhere in their document are negative, because
  the annotation of documents is nearly complete. Pairs with properties that are similar to a label (`UNCLEAR`) are
  skipped; pairs with other properties are negative. The test split, if it exists, becomes the test split.
* SemEval-2010 Task 8 (CC BY 3.0): a sample of its training sentences, for pairs of common nouns without types.
* The demo corpus (MIT): its dev split becomes part of the dev split.

A share of the other training documents is held out for dev. Only a share of the sentences without any relation, which
are the majority, is kept. Pairs are kept if the schema allows a label between their entity types, because other pairs
are never scored.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import spacy

from spacy_slmre.corpus.docbin import DocBinWriter
from spacy_slmre.corpus.gold_docs import make_doc
from spacy_slmre.corpus.records import UNTYPED, Mention, Pair, Record
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.relations import install_extensions
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, get_benchmark

SCHEMA = LabelSchema.general()
SPLITS = ("train", "dev", "test")
HELD_OUT = 0.15
INVERSE = "~"
"""Prefix of a label that holds from tail to head."""

# Labels by Wikidata property; the entity types decide between several.
PROPERTIES: dict[str, tuple[str, ...]] = {
    "P19": ("place of birth",),
    "P20": ("place of death",),
    "P569": ("date of birth",),
    "P570": ("date of death",),
    "P551": ("residence",),
    "P27": ("country of citizenship",),
    "P26": ("spouse", "~spouse"),
    "P22": ("parent", "~child"),
    "P25": ("parent", "~child"),
    "P40": ("child", "~parent"),
    "P3373": ("sibling", "~sibling"),
    "P108": ("employer",),
    "P463": ("member of",),
    "P102": ("member of",),
    "P54": ("member of",),
    "P241": ("member of",),
    "P69": ("educated at",),
    "P50": ("author",),
    "P170": ("author",),
    "P58": ("author",),
    "P86": ("author",),
    "P676": ("author",),
    "P112": ("founded by",),
    "P571": ("inception",),
    "P159": ("headquarters location",),
    "P749": ("part of",),
    "P355": ("~part of",),
    "P361": ("part of", "located in"),
    "P527": ("~part of", "~located in"),
    "P131": ("located in", "headquarters location"),
    "P17": ("located in",),
    "P30": ("located in",),
    "P276": ("located in",),
    "P706": ("located in",),
    "P150": ("~located in",),
    "P1376": ("located in",),
    "P36": ("~located in",),
}
# Similar to a label for some types or in some cases, so neither positive nor negative.
UNCLEAR = {
    *("P17", "P131", "P276", "P361", "P527", "P706"),  # between types other than those above
    *("P57", "P161", "P162", "P175", "P123", "P176", "P178", "P264", "P272", "P800"),  # creators of works
    *("P127", "P137", "P118", "P205", "P206", "P403", "P495", "P740", "P937", "P1001"),
    *("P577", "P580", "P585", "P607", "P710", "P1344", "P172"),
}
# Heads of these properties are works, whatever their annotated type.
WORK_PROPERTIES = {"P50", "P57", "P58", "P86", "P161", "P162", "P170", "P175", "P264", "P577", "P674", "P676"}
DEMO: dict[str, tuple[str, ...]] = {
    "born_in": ("place of birth",),
    "lives_in": ("residence",),
    "works_for": ("employer",),
    "parent_of": ("child", "~parent"),
    "spouse_of": ("spouse", "~spouse"),
    "sibling_of": ("sibling", "~sibling"),
    "founder_of": ("~founded by",),
    "based_in": ("headquarters location",),
    "located_in": ("located in",),
    "author_of": ("~author",),
}
SEMEVAL: dict[str, tuple[str, ...]] = {
    "Member-Collection(e1,e2)": ("member of",),
    "Member-Collection(e2,e1)": ("~member of",),
    "Component-Whole(e1,e2)": ("part of",),
    "Component-Whole(e2,e1)": ("~part of",),
}
UNCLEAR_IN_SEMEVAL = {"Product-Producer(e1,e2)", "Product-Producer(e2,e1)"}


def map_labels(record: Record, labels: dict[str, tuple[str, ...]], unclear: set[str], works: set[str]) -> Record:
    """Return a record with labels of the general schema, without unclear pairs."""
    targets: dict[tuple[Mention, Mention], set[str]] = {}
    unclear_pairs: set[tuple[Mention, Mention]] = set()

    def typed(mention: Mention) -> Mention:
        is_work = mention.type == "MISC" and record.text[mention.start : mention.end] in works
        return replace(mention, type="WORK") if is_work else mention

    for pair in record.pairs:
        head, tail = typed(pair.head), typed(pair.tail)
        targets.setdefault((head, tail), set())
        clear = False
        for target in labels.get(pair.label, ()):
            first, last = (tail, head) if target.startswith(INVERSE) else (head, tail)
            if _allows(target.removeprefix(INVERSE), first, last):
                targets.setdefault((first, last), set()).add(target.removeprefix(INVERSE))
                # If the label only holds from tail to head, the other direction is a good negative.
                clear = True
        if not clear and (pair.label in unclear or pair.label in labels):
            unclear_pairs.add((head, tail))
    pairs = [
        Pair(head, tail, label)
        for (head, tail), names in targets.items()
        if names or ((head, tail) not in unclear_pairs and _allows_any(head, tail))
        for label in sorted(names) or [NEGATIVE_LABEL]
    ]
    return replace(record, pairs=tuple(pairs), mentions=())


def _allows(label: str, head: Mention, tail: Mention) -> bool:
    if UNTYPED in (head.type, tail.type):
        return True
    types = SCHEMA.map_type(head.type), SCHEMA.map_type(tail.type)
    return bool(SCHEMA.allowed(*types)[SCHEMA.index[label]])


def _allows_any(head: Mention, tail: Mention) -> bool:
    if UNTYPED in (head.type, tail.type):
        return True
    return SCHEMA.allows_any(SCHEMA.map_type(head.type), SCHEMA.map_type(tail.type))


def re_docred(file: Path, split: str) -> Iterator[tuple[str, Record]]:
    """Yield the document id and the record of each sentence of a split."""
    documents: dict[str, list[Record]] = defaultdict(list)
    for record in get_benchmark("re_docred").read(file, split, negatives=-1):
        if isinstance(record, Record):
            documents[record.id.rpartition("-")[0]].append(record)
    for name, records in documents.items():
        works = {
            record.text[pair.head.start : pair.head.end]
            for record in records
            for pair in record.pairs
            if pair.label in WORK_PROPERTIES
        }
        for record in records:
            yield name, map_labels(record, PROPERTIES, UNCLEAR, works)


def semeval(file: Path, number: int, seed: int) -> Iterator[tuple[str, Record]]:
    """Yield a sample of the training sentences, each as a separate document."""
    read = get_benchmark("semeval2010_task8").read(file, "train")
    records = [record for record in read if isinstance(record, Record)]
    for record in random.Random(seed).sample(records, min(number, len(records))):
        yield record.id, map_labels(record, SEMEVAL, UNCLEAR_IN_SEMEVAL, set())


def demo(file: Path, split: str) -> Iterator[tuple[str, Record]]:
    """Yield the sentences of a split of the demo corpus."""
    for record in get_benchmark("demo").read(file, split):
        if isinstance(record, Record):
            yield record.id, map_labels(record, DEMO, set(), set())


def is_sampled(name: str, share: float, seed: int) -> bool:
    """Return whether a name belongs to a random share, which is the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) < share * 2**48


def main() -> None:
    """Write the corpus and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("train", "dev"),
        default=["dev"],
        help="splits of Re-DocRED; the shipped adapter is tuned on dev only",
    )
    parser.add_argument("--demo", type=Path, default=Path("assets/demo_corpus"))
    parser.add_argument("--semeval", type=int, default=1000, help="number of sentences from SemEval-2010 Task 8")
    parser.add_argument("--empty", type=float, default=0.3, help="share of the sentences without a relation to keep")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    sources: list[tuple[str, Iterable[tuple[str, Record]], str]] = []
    for split in ("train", "dev"):
        file = args.raw / "re_docred" / f"{split}_revised.json"
        if split in args.splits:
            if not file.exists():
                parser.error(f"There is no file {file}. Download it with: python -m spacy project assets")
            sources.append(("re_docred", re_docred(file, split), ""))
        sources.append(("demo", demo(args.demo / f"{split}.txt", split), split))
    file = args.raw / "re_docred" / "test_revised.json"
    if file.exists():
        sources.append(("re_docred", re_docred(file, "test"), "test"))
    file = args.raw / "semeval2010_task8" / "TRAIN_FILE.TXT"
    if args.semeval and not file.exists():
        parser.error(f"There is no file {file}. Download it with: python -m spacy project assets, or set --semeval 0")
    if args.semeval:
        sources.append(("semeval2010_task8", semeval(file, args.semeval, args.seed), ""))

    install_extensions()
    nlp = spacy.blank("en")
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    origins: Counter[tuple[str, str]] = Counter()
    try:
        with ExitStack() as stack:
            writers = {split: stack.enter_context(DocBinWriter(args.corpus / f"{split}.spacy")) for split in SPLITS}
            for name, records, fixed in sources:
                # The documents record their source, but have the labels of the general schema.
                card: Benchmark = replace(get_benchmark(name), schema=SCHEMA, aliases={})
                for document, record in records:
                    empty = all(pair.label == NEGATIVE_LABEL for pair in record.pairs)
                    if not record.pairs or (empty and not is_sampled(record.id, args.empty, args.seed)):
                        continue
                    split = fixed or ("dev" if is_sampled(f"{name}/{document}", HELD_OUT, args.seed) else "train")
                    doc, rejects = make_doc(nlp, record, card, split)
                    assert not rejects, rejects
                    writers[split].add(doc)
                    counts[split].update(pair.label for pair in record.pairs)
                    origins[split, name] += len(record.pairs)
    except CorpusError as error:
        parser.error(str(error))
    for (split, name), number in sorted(origins.items()):
        print(f"{split:<6} {name:<20} {number:>7,} pairs")
    for label in SCHEMA.names:
        print(f"{label:<24}" + "".join(f" {counts[split][label]:>7,}" for split in SPLITS))
    print(f"Corpus: {', '.join(str(args.corpus / f'{split}.spacy') for split in SPLITS)}")


if __name__ == "__main__":
    main()
