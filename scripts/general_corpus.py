"""Express sets of the universal corpus in the labels of the general schema.

Usage: python scripts/general_corpus.py UNIVERSAL OUTPUT

UNIVERSAL is `assets/universal_corpus`, or another folder with a set of Re-DocRED in the same form. OUTPUT gets a label
set `general_<set>` for each set whose labels are listed here.

A label corresponds to one or several general labels, possibly in the other direction ("subsidiary": the tail is part of
the head). Pairs are left out if their label matches a general one only in some cases (`UNCLEAR`); pairs with other
labels are negative. So are pairs without a label, if the set says so.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections import Counter, defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from written_corpus import general_labels, write_label_set

SETS = ("re_docred", "fewrel_80rel_lowercase", "wiki80_val", "text2kgbench_tekgen", "knowledgenet", "re_docred_test")
PARAPHRASES = Path(__file__).parents[1] / "assets" / "written_corpus" / "paraphrases" / "general.json"
INVERSE = "~"
"""Prefix of a label that holds from tail to head."""

SAME = (
    *("author", "award received", "child", "country of citizenship", "date of birth", "date of death"),
    *("educated at", "employer", "founded by", "headquarters location", "inception", "main subject", "manufacturer"),
    *("member of", "occupation", "participant", "performer", "place of birth", "place of death", "residence"),
    *("sibling", "spouse"),
)
LABELS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in SAME},
    "CEO": ("leader", "~employer"),
    "CHILD_OF": ("parent",),
    "DATE_FOUNDED": ("inception",),
    "DATE_OF_BIRTH": ("date of birth",),
    "DATE_OF_DEATH": ("date of death",),
    "EDUCATED_AT": ("educated at",),
    "FOUNDED_BY": ("founded by",),
    "HEADQUARTERS": ("headquarters location",),
    "NATIONALITY": ("country of citizenship",),
    "PLACE_OF_BIRTH": ("place of birth",),
    "PLACE_OF_RESIDENCE": ("residence",),
    "POLITICAL_AFFILIATION": ("member of",),
    "SPOUSE": ("spouse",),
    "SUBSIDIARY_OF": ("part of",),
    "capital of": ("~capital", "located in"),
    "capital": ("capital", "~located in"),
    "cast member": ("performer",),
    "chairperson": ("leader",),
    "characters": ("character",),
    "composer": ("author",),
    "conflict": ("~participant",),
    "contains administrative territorial entity": ("~located in",),
    "continent": ("located in",),
    "creator": ("author",),
    "depicts": ("main subject",),
    "developer": ("manufacturer",),
    "father": ("parent",),
    "head of government": ("leader",),
    "head of state": ("leader",),
    "located in the administrative territorial entity": ("located in",),
    "located on terrain feature": ("located in",),
    "lyrics by": ("author",),
    "member of political party": ("member of",),
    "member of sports team": ("member of",),
    "military branch": ("member of",),
    "mother": ("parent",),
    "notable work": ("~author",),
    "owned by": ("owner",),
    "parent organization": ("part of",),
    "participant of": ("~participant",),
    "participating team": ("participant",),
    "point in time": ("event date",),
    "position held": ("occupation",),
    "present in work": ("~character",),
    "product or material produced": ("~manufacturer",),
    "publication date": ("inception",),
    "screenwriter": ("author",),
    "subsidiary": ("~part of",),
}
UNCLEAR = {
    *("EMPLOYEE_OR_MEMBER_OF", "after a work by", "applies to jurisdiction", "architect", "astronaut mission"),
    *("based on", "basin country", "candidacy in election", "coach of sports team", "constellation", "country"),
    *("country for sport", "country of origin", "derivative work", "designed by", "director", "discoverer or inventor"),
    *("dissolved, abolished or demolished", "distributor", "drainage basin", "editor", "end time", "ethnic group"),
    *("filming location", "followed by", "follows", "has part", "home venue", "illustrator", "influenced by", "league"),
    *("legislative body", "licensed to broadcast to", "located in or next to body of water", "location"),
    *("location of formation", "military rank", "mountain range", "mountains classification", "movement"),
    *("narrative location", "occupant", "operator", "original network", "part of", "part of the series"),
    *("place of publication", "place served by transport hub", "producer", "production company", "publisher"),
    *(
        "record label",
        "religion",
        "replaced by",
        "replaces",
        "separated from",
        "sports season of league or competition",
    ),
    *("start time", "successful candidate", "tracklist", "winner", "work location"),
}
TYPED: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("country", "LOC", "LOC"): ("located in",),
    ("location", "LOC", "LOC"): ("located in",),
    ("replaced by", "PER", "PER"): ("successor",),
    ("replaces", "PER", "PER"): ("~successor",),
    ("part of", "ORG", "ORG"): ("part of",),
    ("has part", "ORG", "ORG"): ("~part of",),
    ("part of", "LOC", "LOC"): ("located in",),
    ("has part", "LOC", "LOC"): ("~located in",),
}
"""Unclear labels that are clear between entities of certain types."""


def relabel(row: dict[str, Any]) -> dict[str, Any]:
    """Return a passage with general labels."""
    types = [entity["type"] for entity in row["entities"]]
    found: dict[tuple[int, int], set[str]] = defaultdict(set)
    negative: set[tuple[int, int]] = set()
    unclear: set[tuple[int, int]] = set()
    for relation in row["relations"]:
        head, tail, name = relation["head"], relation["tail"], relation["label"]
        targets = TYPED.get((name, types[head], types[tail]), LABELS.get(name, ()))
        for target in targets:
            pair = (tail, head) if target.startswith(INVERSE) else (head, tail)
            found[pair].add(target.removeprefix(INVERSE))
        if not targets and name in UNCLEAR:
            unclear |= {(head, tail), (tail, head)}
        elif not targets:
            negative.add((head, tail))
    related = {pair for one in found for pair in (one, one[::-1])} | {(r["head"], r["tail"]) for r in row["relations"]}
    pairs = permutations(range(len(types)), 2) if row["exhaustive"] else map(tuple, row["negatives"])
    negative |= {pair for pair in pairs if pair not in related}
    labels = general_labels()
    for head, tail in list(found):
        # A pair that has a general label in only one direction has none in the other.
        others = {name for name in found[head, tail] if labels[name]["symmetric"] or labels[name]["inverse"]}
        if not others and (tail, head) not in found:
            negative.add((tail, head))
    return {
        **{key: row[key] for key in ("id", "text", "entities")},
        "relations": [
            {"head": head, "tail": tail, "label": name}
            for (head, tail), names in found.items()
            for name in sorted(names)
        ],
        "exhaustive": False,
        "negatives": sorted(negative - unclear - set(found)),
    }


def main() -> None:
    """Write the label sets, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("universal", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    table = Table("set", "passages", "relations", "labels", "negative pairs")
    files = [file for name in SETS if (file := arguments.universal / f"{name}.jsonl.xz").exists()]
    if not files:
        parser.error(f"{arguments.universal} has none of the sets {', '.join(SETS)}.")
    for file in files:
        name = f"general_{file.name.split('.')[0]}"
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            rows = [row for row in map(relabel, map(json.loads, lines)) if row["relations"] or row["negatives"]]
        write_label_set(arguments.output, name, rows, general_labels(), json.loads(PARAPHRASES.read_text("utf-8")))
        labels = Counter(relation["label"] for row in rows for relation in row["relations"])
        negatives = sum(len(row["negatives"]) for row in rows)
        table.add_row(name, f"{len(rows):,}", f"{labels.total():,}", str(len(labels)), f"{negatives:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
