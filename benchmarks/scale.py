"""Measure pairs per second of `extract`: in one process, and by each of several Ray workers.

Usage: python benchmarks/scale.py PIPELINE SAMPLE... [--workers 1,2] [--shard-size 50] [--output scale.json]
       python benchmarks/scale.py rel_classifier --generate 100000 --shard-size 256 --workers "" [--base ENCODER]
       python scripts/readme_table.py --scale scale.json

PIPELINE is a package or folder, or the name of a component with an untrained head that finds generated names, with
--generate documents of one short sentence with two names. One process and each number of workers compute the same
shards. Every process records when it finished each document, with its pairs and, at regular intervals, its memory.
The time to load models is not counted: speed is measured while all workers are working. Efficiency is the speed per
worker in pairs/s, relative to one worker on Ray (or to the smallest number of workers).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from common import make_parser
from spacy.language import Language
from spacy.tokens import Doc
from speed.corpus import ARCHITECTURES, make_pipeline, sentence
from speed.tables import scale_tables, show

from spacy_slmre.extraction.inputs import find_inputs
from spacy_slmre.extraction.pipelines import ExtractionPipeline, load_extraction_pipeline
from spacy_slmre.extraction.ray_engine import WorkerPool, compute_on_ray
from spacy_slmre.extraction.run import compute_in_process, extract_corpus
from spacy_slmre.extraction.worker import ExtractionJob
from spacy_slmre.models.hub import PACKAGED_BASE, PACKAGED_ENCODER
from spacy_slmre.relations import report_name
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.system import hardware, versions

READINGS = 20
"""Number of times that memory is measured."""
# By default, Ray gives its workers less time than other processes, so that they are slower on a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("pipeline", help=f"package or folder, or {' or '.join(ARCHITECTURES)}")
    parser.add_argument("sample", nargs="*", help="files that `slmre extract` reads")
    parser.add_argument("--generate", type=int, default=0, help="number of generated documents, instead of a sample")
    parser.add_argument("--base", help="model of the component, if PIPELINE is the name of one")
    parser.add_argument("--workers", type=_numbers, default=[1, 2], help='numbers of Ray workers, or "" for none')
    parser.add_argument("--worker-cpus", type=int, help="cores and threads per worker")
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    if bool(args.sample) == bool(args.generate):
        parser.error("give either a SAMPLE or --generate")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args.source = args.pipeline
        if args.pipeline in ARCHITECTURES:
            base = args.base or (PACKAGED_ENCODER if args.pipeline == "rel_classifier" else PACKAGED_BASE)
            args.source = str(folder / "pipeline")
            make_pipeline(args.pipeline, base, "auto", "auto").to_disk(args.source)
        if args.generate:
            file = folder / "sample.jsonl"
            lines = (json.dumps({"id": str(number), "text": sentence(number)}) for number in range(args.generate))
            file.write_text("\n".join(lines), encoding="utf-8")
            args.sample = [str(file)]
        alone, *together = [measure(folder / "alone", args), *(measure(folder / str(n), args, n) for n in args.workers)]
        outputs = {file.read_bytes() for file in folder.glob("*/output.jsonl")}
    if together:
        least = together[0]
        for run in together:
            run["efficiency"] = run["pairs_per_second_and_worker"] / least["pairs_per_second_and_worker"]
    results = {
        "hardware": hardware(),
        "versions": versions(),
        "pipeline": args.pipeline,
        "generated": bool(args.generate),
        "same_output": len(outputs) == 1,
        "one_process": alone,
        "ray": together,
    }
    for table in scale_tables(results):
        show(table)
    if args.output:
        atomic_write(args.output, json.dumps(results, indent=1))


def measure(folder: Path, args: argparse.Namespace, workers: int = 0) -> dict[str, Any]:
    """Extract from the sample with Ray workers, or in this process, and return speed and memory."""
    folder.mkdir()
    load = partial(load_with_clock, args.source, folder)
    loaded = load_extraction_pipeline(args.source) if workers else load()
    job = ExtractionJob(
        folder / "output.jsonl",
        find_inputs(args.sample),
        partial(_load_nlp, load),
        loaded.model_name,
        loaded.attr,
        shard_size=args.shard_size,
        batch_size=args.batch_size,
    )
    found: dict[str, Any] = {"workers": max(workers, 1)}
    if workers:
        pool = WorkerPool.parse(str(workers), args.worker_cpus)
        found["threads"] = pool.resolve([{"CPU": float(os.cpu_count() or 1)}]).cpus
        engine: Any = partial(compute_on_ray, pool=pool)
        del loaded
    else:
        found["threads"] = torch.get_num_threads()
        list(loaded.nlp.pipe([sentence(0)]))
        engine = partial(compute_in_process, nlp=loaded.nlp, stdin=io.BytesIO())
        found["loaded_gb"] = psutil.Process().memory_info().rss / 1e9
    start = time.time()
    counts = extract_corpus(job, {}, engine)
    seconds = time.time() - start
    if counts.failed:
        raise SystemExit(f"{counts.failed} of {counts.documents} documents failed: see the pipeline's errors.")
    clocks = [np.loadtxt(file, ndmin=2) for file in folder.glob("*.clock") if file.stat().st_size]
    clocks = [clock[clock[:, 0] >= start] for clock in clocks]
    if len(clocks) < workers:
        raise SystemExit(f"Only {len(clocks)} of {workers} workers had something to do: give a larger sample.")
    rates = speed(clocks, start, min(args.batch_size, args.shard_size))
    return {**found, "documents": counts.documents, "seconds": seconds, **rates, **memory(clocks)}


def load_with_clock(source: str, folder: Path) -> ExtractionPipeline:
    """Load a pipeline that writes a line for each document: time, pairs, and the memory of the process in GB.

    Memory is 0 where it was not measured.
    """
    loaded = load_extraction_pipeline(source)
    report, process = report_name(loaded.attr), psutil.Process()
    clock = (folder / f"{os.uname().nodename}-{os.getpid()}.clock").open("a", buffering=1, encoding="ascii")
    number = 0

    def record(doc: Doc) -> Doc:
        nonlocal number
        number += 1
        resident = process.memory_info().rss / 1e9 if number % 100 == 0 else 0
        clock.write(f"{time.time():.6f} {getattr(doc._, report)['scored']} {resident:.4f}\n")
        return doc

    Language.component("clock", func=record)
    loaded.nlp.add_pipe("clock")
    return loaded


def _load_nlp(load: partial[ExtractionPipeline]) -> Language:
    return load().nlp


def speed(clocks: Sequence[np.ndarray], start: float, batch: int) -> dict[str, Any]:
    """Return documents and pairs per second while all workers are working, and the seconds until then.

    Args:
        clocks: For each worker, (n_documents, 3): time, pairs, GB.
        start: When the workers were started.
        batch: Documents that are finished together. Each worker's first batch is not counted.
    """
    begin, end = max(clock[:batch][-1, 0] for clock in clocks), min(clock[-1, 0] for clock in clocks)
    within = [clock[(clock[:, 0] > begin) & (clock[:, 0] <= end)] for clock in clocks]
    pairs = [float(clock[:, 1].sum()) for clock in within]
    if not all(pairs):
        raise SystemExit("The sample is too small: a worker had nothing to do while the others worked.")
    rate = sum(pairs) / (end - begin)
    return {
        "pairs": int(sum(clock[:, 1].sum() for clock in clocks)),
        "seconds_until_all_work": begin - start,
        "documents_per_second": sum(map(len, within)) / (end - begin),
        "pairs_per_second": rate,
        "pairs_per_second_and_worker": rate / len(clocks),
        "pairs_per_second_by_worker": [one / (end - begin) for one in pairs],
    }


def memory(clocks: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the memory of the process with most of it, and how it grows with the number of its documents."""
    readings = []
    for clock in clocks:
        numbers = np.flatnonzero(clock[:, 2])
        chosen = numbers[np.unique(np.linspace(0, len(numbers) - 1, READINGS).astype(int))]
        readings.append([{"documents": int(n) + 1, "gb": float(clock[n, 2])} for n in chosen])
    largest = max(readings, key=lambda of_one: max(one["gb"] for one in of_one))
    # The first documents fill caches, so growth is that of the second half.
    half = largest[len(largest) // 2 :]
    growth = 0.0
    if len(half) > 1:
        growth = float(np.polyfit([one["documents"] for one in half], [one["gb"] for one in half], 1)[0])
    return {"memory": largest, "peak_gb": max(one["gb"] for one in largest), "gb_per_million_documents": 1e6 * growth}


def _numbers(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(",") if number.strip())


if __name__ == "__main__":
    main()
