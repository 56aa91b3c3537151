"""Time and memory of exports, one process per format, from a JSONL file of made-up relations.

Usage: python benchmarks/exports.py --relations 100000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("Ada Brandt", "Joaquim Teles", "Clara Benning", "Otto Reiss", "Mireille Fontaine", "Piet Vos")
PLACES = ("Uppsala", "Bergen", "Gdynia", "Lyon", "Sendai", "Perth")
LABELS = ("P19", "P551", "P69", "P937")


def write_relations(path: Path, relations: int, per_document: int = 5) -> None:
    """Write documents with one sentence per relation, as `slmre extract` does."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(0, relations, per_document):
            text, entities, found, sentences = "", [], [], []
            for _ in range(min(per_document, relations - number)):
                begin = len(text)
                sides = []
                name = f"{rng.choice(NAMES)} {rng.randrange(20_000)}"
                for before, words, kind in (("", name, "PER"), (" was seen in ", rng.choice(PLACES), "LOC")):
                    text += before
                    sides.append({"start": len(text), "end": len(text) + len(words), "text": words, "type": kind})
                    text += words
                text += " before the war, when few people traveled."
                sentences.append((begin, len(text)))
                text += " "
                entities += sides
                label, score = rng.choice(LABELS), round(rng.uniform(0.3, 1), 6)
                found.append({"head": sides[0], "tail": sides[1], "label": label, "score": score})
            entry = {"id": f"d{number}", "text": text, "entities": entities, "sentences": sentences}
            stream.write(json.dumps({**entry, "relations": found, "model": "benchmark"}) + "\n")


def measure(source: str, output: str, format: str, merge: str | None) -> None:
    """Export in this process and print seconds and MB as JSON."""
    from spacy_slmre.export import ExportSettings, export, read_documents

    started, began = time.perf_counter(), time.process_time()
    settings = ExportSettings(merge=merge)
    counts = export(read_documents([source], sys.stdin.buffer), output, format, settings)
    seconds, cpu = time.perf_counter() - started, time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "written": counts.written}))


def main() -> None:
    """Print a table with time, peak memory and size per format, merged and not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relations", type=int, default=100_000)
    parser.add_argument("--formats", nargs="*", help="measure only these formats")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        source, output, format, merge = args.one
        measure(source, output, format, merge or None)
        return

    from spacy_slmre.export import FORMATS

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "relations.jsonl"
        write_relations(source, args.relations)
        size = source.stat().st_size / 1e6
        print(f"{args.relations} relations, {size:.0f} MB of JSONL; times and memory of the whole process")
        print(f"{'format':10} {'merged':6} {'seconds':>8} {'CPU':>6} {'peak MB':>8} {'size MB':>8}")
        for name in args.formats or FORMATS:
            for merge in ("", "text") if not FORMATS[name].of_documents else ("",):
                output = Path(folder) / f"out{FORMATS[name].suffix}"
                command = [sys.executable, __file__, "--one", str(source), str(output), name, merge]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout)
                files = list(output.iterdir()) if output.is_dir() else [output]
                size = sum(file.stat().st_size for file in files) / 1e6
                print(
                    f"{name:10} {merge or 'no':6} {row['seconds']:8.1f} {row['cpu']:6.1f} "
                    f"{row['peak_mb']:8.0f} {size:8.0f}",
                    flush=True,
                )
                for file in files:
                    file.unlink()
                if output.is_dir():
                    output.rmdir()


if __name__ == "__main__":
    main()
