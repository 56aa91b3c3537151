"""Resident memory during extraction over many short documents, above that of the loaded model.

Usage: python benchmarks/memory.py [--documents 10000] [--output FILE.json]

Runs what `python -m spacy slmre extract` runs, on documents of one sentence with one candidate pair, all
different, and reads the process's resident memory every 500 documents.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import spacy

from spacy_slmre.extraction.running import extract
from spacy_slmre.extraction.sources import Source
from spacy_slmre.extraction.writers import JsonlWriter

FIRST = [
    "Ann",
    "Bo",
    "Cora",
    "Dan",
    "Eva",
    "Finn",
    "Greta",
    "Hugo",
    "Ines",
    "Jon",
    "Kaya",
    "Leo",
    "Mara",
    "Nils",
    "Olga",
    "Paul",
]
LAST = [
    "Arden",
    "Birch",
    "Crane",
    "Dale",
    "Elm",
    "Frost",
    "Grove",
    "Heath",
    "Iron",
    "Jarvis",
    "Kerr",
    "Lund",
    "Moss",
    "North",
]


def resident() -> float:
    """Resident memory of this process in GB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1e6


def sources(number: int) -> Iterator[Source]:
    """Short documents of changing length."""
    for n in range(number):
        name = f"{FIRST[n % len(FIRST)]} {LAST[n // 7 % len(LAST)]}"
        filler = " on a cold day in the year" * (n % 5)
        yield Source(str(n), f"{name} came to Rome{filler} {n}.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    patterns = [{"label": "PERSON", "pattern": f"{first} {last}"} for first in FIRST for last in LAST]
    nlp.add_pipe("entity_ruler").add_patterns([*patterns, {"label": "GPE", "pattern": "Rome"}])
    component = nlp.add_pipe("slm_relations")
    component.model.load()
    loaded, start, readings = resident(), time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        writer = JsonlWriter(Path(folder) / "out.jsonl")
        for result in extract(nlp, sources(args.documents)):
            writer.write(result)
            if writer.written % 500 == 0:
                readings.append(resident() - loaded)
                print(f"{writer.written:>7} documents: +{readings[-1]:.3f} GB", flush=True)
        writer.finish()
    seconds = time.perf_counter() - start
    print(f"Loaded model: {loaded:.3f} GB. Most above it: {max(readings):.3f} GB, after {seconds:.0f} s.")
    if args.output:
        args.output.write_text(json.dumps({"loaded_gb": loaded, "above_gb": readings, "seconds": seconds}))


if __name__ == "__main__":
    main()
