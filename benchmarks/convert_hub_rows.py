"""Time and peak memory of converting many rows: `python benchmarks/convert_hub_rows.py [--rows 400000]`.

The rows are synthetic: sentences of 12 to 60 made-up words with two entities in them, one row per sentence, as
parquet or as JSON lines. As in real text, the n-th word of the vocabulary is n times as rare as the first.
Only the conversion is timed.
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
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

BATCH = 10_000
LIMITS = {"seconds": 600, "megabytes": 2048}


def make_rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Yield rows with the columns of the study's data sets."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(60_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    labels = [f"relation {number}" for number in range(40)] + ["no_relation"]
    for _ in range(count):
        sentence = rng.choices(words, cum_weights=weights, k=rng.randint(12, 60))
        first, second = rng.sample(range(len(sentence)), 2)
        for place in (first, second):
            sentence[place] = f"{sentence[place].title()} {rng.choice(words).title()}"
        yield {
            "text": " ".join(sentence) + ".",
            "entity1": sentence[first],
            "entity2": sentence[second],
            "relation": rng.choice(labels),
            "entity1Type": "PER",
            "entity2Type": "LOC",
            "prompt_0_shot": "…",
            "prompt_2_shot": "…",
        }


def write_rows(path: Path, count: int) -> None:
    """Write the rows in batches, in the format of the file's suffix."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for row in make_rows(count):
                file.write(json.dumps(row) + "\n")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = make_rows(count)
    writer = None
    while batch := [row for _, row in zip(range(BATCH), rows, strict=False)]:
        table = pa.Table.from_pylist(batch)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def main() -> int:
    """Make the rows, convert them in a new process, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--format", choices=["parquet", "jsonl"], default="parquet")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"rows.{args.format}"
        write_rows(source, args.rows)
        print(f"{args.rows:,} rows, {source.stat().st_size / 2**20:,.0f} MB of {args.format}")
        command = [sys.executable, "-m", "spacy", "slmre", "convert", str(source), "--format", "hub_rows"]
        start = time.perf_counter()
        subprocess.run([*command, "-o", f"{folder}/train.spacy"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        # Linux counts in kilobytes, macOS in bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
        output = Path(folder) / "train.spacy"
        shards = list(output.iterdir()) if output.is_dir() else [output]
        written = sum(shard.stat().st_size for shard in shards) / 2**20
    print(f"{seconds:.0f} s, {args.rows / seconds:,.0f} rows/s; peak memory {megabytes:,.0f} MB")
    print(f"{len(shards)} files, {written:,.0f} MB")
    if args.rows >= 400_000 and (seconds > LIMITS["seconds"] or megabytes > LIMITS["megabytes"]):
        print(f"The limits are {LIMITS['seconds']} s and {LIMITS['megabytes']:,} MB.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
