"""Turn entity annotations into label sets, so that a model learns to name the type of a mention.

Usage: python scripts/entity_type_corpus.py UNIVERSAL WRITTEN OUTPUT

UNIVERSAL is `assets/universal_corpus`, WRITTEN the output of `written_corpus.py compile`. OUTPUT gets, for each split,
the label sets `types_<set>`; universal sets have a training split only. A type is a label of a mention with itself.
Spans of words that are not entities are negative.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from written_corpus import SPLITS, write_label_set

from spacy_slmre.entity_types import GENERAL_TYPES

TYPES: dict[str, dict[str, tuple[str, str]]] = {
    "re_docred": {
        "PER": GENERAL_TYPES["PER"],
        "LOC": GENERAL_TYPES["LOC"],
        "ORG": GENERAL_TYPES["ORG"],
        "TIME": GENERAL_TYPES["DATE"],
        "NUM": ("number", "a number or quantity that is not a date"),
    },
    "written_general": GENERAL_TYPES,
    "chemdisgene": {
        "Chemical": ("chemical", "a drug or other chemical substance"),
        "Gene": ("gene", "a gene or protein"),
        "Disease": ("disease", "a disease, disorder or symptom"),
    },
    "somesci": {
        "Application": ("application", "a computer program"),
        "Version": ("version", "the number or name of a version of software"),
        "Developer": ("developer", "a person or organization that makes software"),
        "Citation": ("citation", "a reference to the literature"),
        "URL": ("web address", "a link to a page or file"),
        "ProgrammingEnvironment": ("programming environment", "a programming language or the software to use it"),
        "PlugIn": ("plug-in", "an extension or package of a program"),
        "OperatingSystem": ("operating system", "Windows, Linux and the like"),
        "Release": ("release date", "the year or name of a release"),
        "Abbreviation": ("abbreviation", "a short form of a name"),
        "License": ("license", "the terms for using software"),
    },
    "mspt": {
        "Material": ("material", "a substance that is used or made"),
        "Number": ("number", "a numeric value"),
        "Operation": ("operation", "a step of a synthesis, such as heating or mixing"),
        "Amount-Unit": ("unit of amount", "the unit of a quantity of material"),
        "Condition-Unit": ("unit of a condition", "the unit of a temperature, time, pressure or speed"),
        "Material-Descriptor": ("description of a material", "a word that describes a material's form or state"),
        "Synthesis-Apparatus": ("apparatus", "a device or vessel for a synthesis"),
        "Characterization-Apparatus": ("instrument", "a device that measures"),
        "Brand": ("brand", "a supplier or maker"),
        "Condition-Misc": ("condition", "a circumstance of an operation without a number"),
        "Property-Type": ("property", "a measured property of a material"),
        "Meta": ("method", "the name of a method of synthesis"),
    },
    "wlp_mstg": {
        "Action": ("action", "a step that somebody does in a laboratory"),
        "Reagent": ("reagent", "a substance, sample or solution that is used"),
        "Modifier": ("modifier", "a word that says how something is done or what it is like"),
        "Location": ("container", "where something is put or done: a tube, plate or room"),
        "Amount": ("amount", "a volume, mass or number of things"),
        "Device": ("device", "a machine or tool"),
        "Time": ("duration", "how long or when something is done"),
        "Concentration": ("concentration", "the strength of a solution"),
        "Temperature": ("temperature", "how hot or cold"),
        "Method": ("method", "a named procedure"),
        "Speed": ("speed", "how fast a machine turns"),
    },
}
OTHER_WORDINGS = {
    "person": ["human being", "individual", "PERSON", "PER", "man, woman or child", "character"],
    "place": ["location", "GPE", "LOC", "geographic name"],
    "organization": ["company, institution or group", "ORG", "organisation", "institution"],
    "date": ["date or time", "DATE", "point in time"],
    "number": ["numeral", "CARDINAL", "quantity"],
    "work": ["work of art", "WORK_OF_ART", "creation", "title of a work"],
    "event": ["EVENT", "happening", "occasion"],
    "product": ["PRODUCT", "object", "artifact"],
    "award": ["prize", "honor", "AWARD"],
    "occupation": ["profession", "job title", "TITLE", "office"],
    "nationality or group": ["NORP", "nationality", "people or religion"],
    "amount": ["quantity", "sum", "MONEY", "measure"],
    "chemical": ["substance", "drug", "compound"],
    "gene": ["gene or protein", "protein"],
    "disease": ["disorder", "illness", "medical condition"],
    "application": ["software", "program", "tool"],
    "material": ["substance", "chemical"],
    "operation": ["process step", "action"],
    "reagent": ["substance", "sample", "chemical"],
    "device": ["machine", "equipment", "instrument"],
    "action": ["step", "operation", "activity"],
}
_WORDS = re.compile(r"\w[\w-]+")


def to_row(rng: random.Random, row: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a passage whose mentions are labeled with their types, or None if it has none."""
    entities = {(e["start"], e["end"]): e["type"].partition("_")[0] for e in row["entities"]}
    known = {span: kind for span, kind in entities.items() if kind in types}
    if not known:
        return None
    words = [match.span() for match in _WORDS.finditer(row["text"])]
    others: set[tuple[int, int]] = set()
    for _ in range(len(known) * 3):
        first = rng.randrange(len(words))
        last = min(first + rng.choice((0, 0, 1, 1, 2)), len(words) - 1)
        span = words[first][0], words[last][1]
        if all(span[1] <= start or end <= span[0] for start, end in (*entities, *others)):
            others.add(span)
    spans = [*known, *sorted(others)]
    return {
        "id": row["id"],
        "text": row["text"],
        # Types are the answer, so mentions must not have them.
        "entities": [{"start": start, "end": end, "type": ""} for start, end in spans],
        "relations": [{"head": n, "tail": n, "label": kind} for n, kind in enumerate(known.values())],
        "exhaustive": False,
        "negatives": [(n, n) for n in range(len(known), len(spans))],
    }


def main() -> None:
    """Write the label sets and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("universal", "written", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    rng = random.Random(0)
    table = Table("label set", "split", "texts", "mentions", "other spans")
    for name, types in TYPES.items():
        labels = {
            kind: {"wording": wording, "definition": definition, "symmetric": False, "inverse": None}
            for kind, (wording, definition) in types.items()
        }
        paraphrases = {
            kind: {
                "wordings": OTHER_WORDINGS.get(wording, []),
                "definitions": [],
                "inverse_wordings": [],
                "inverse_definition": "",
            }
            for kind, (wording, _) in types.items()
        }
        for split in SPLITS:
            is_written = name.startswith("written")
            file = (options.written / split if is_written else options.universal) / f"{name}.jsonl.xz"
            if split != "train" and not is_written:
                continue
            with lzma.open(file, "rt", encoding="utf-8") as lines:
                rows = [new for line in lines if (new := to_row(rng, json.loads(line), types)) is not None]
            totals: Counter[str] = Counter()
            for row in rows:
                totals.update(mentions=len(row["relations"]), others=len(row["negatives"]))
            write_label_set(options.output / split, f"types_{name}", rows, labels, paraphrases)
            table.add_row(name, split, *(f"{n:,}" for n in (len(rows), totals["mentions"], totals["others"])))
    Console().print(table)


if __name__ == "__main__":
    main()
