"""Measure pairs per second of one process and of Ray workers on a sample, and extrapolate to a large corpus.

Usage: python benchmarks/scale.py PIPELINE SAMPLE... [--workers 2] [--shard-size 50] [--pairs 1e9]
    [--price P] [--output FILE.json]

Both compute the same shards of the sample; the time to load models is reported separately. The extrapolation
multiplies what was measured on this machine. For a cluster, measure one of its machines, with as many workers
as it will have. The price is that of this machine per hour.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from common import make_parser
from spacy.language import Language

from spacy_slmre.extraction.inputs import find_inputs, read_inputs
from spacy_slmre.extraction.outputs import ExtractionResult
from spacy_slmre.extraction.pipelines import load_extraction_pipeline
from spacy_slmre.extraction.ray_engine import WorkerPool, compute_on_ray
from spacy_slmre.extraction.run import compute_in_process, extract_corpus
from spacy_slmre.extraction.shards import ShardResult
from spacy_slmre.extraction.worker import ExtractionJob, extract_documents
from spacy_slmre.relations import report_name
from spacy_slmre.util.system import hardware, versions


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("sample", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker-cpus", type=int)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=float, default=1e9)
    parser.add_argument("--price", type=float)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        alone = one_process(Path(name) / "one.jsonl", args)
        together = with_ray(Path(name) / "ray.jsonl", args)
        same = (Path(name) / "one.jsonl").read_bytes() == (Path(name) / "ray.jsonl").read_bytes()
    together["pairs_per_second"] = together["documents_per_second"] * alone["pairs"] / alone["documents"]
    share = together["pairs_per_second"] / alone["pairs_per_second"]
    hours = args.pairs / together["pairs_per_second"] / 3600

    print(f"{hardware()}; {alone['documents']} documents, {alone['pairs']} pairs")
    print(f"one process (threads: {alone['threads']}): {alone['pairs_per_second']:.1f} pairs/s")
    print(
        f"Ray, {args.workers} workers (cores: {together['cores']} each): "
        f"{together['pairs_per_second']:.1f} pairs/s, {share:.2f} times one process; "
        f"{together['startup_seconds']:.0f} s until the first shard"
    )
    print(f"Identical output: {'yes' if same else 'no (the number of threads may differ, see the guide)'}")
    print(f"{args.pairs:.3g} pairs: {hours:,.0f} hours of this machine")
    if args.price is not None:
        print(f"at {args.price:g} per hour: {hours * args.price:,.0f}")
    if args.output:
        run = {"hardware": hardware(), "versions": versions(), "same_output": same, "machine_hours": hours}
        args.output.write_text(json.dumps({**run, "one_process": alone, "ray": together}, indent=2))


def load(pipeline: str) -> Language:
    """Load the pipeline in a worker."""
    return load_extraction_pipeline(pipeline).nlp


def one_process(output: Path, args: argparse.Namespace) -> dict:
    """Measure this process, with its model in memory and warmed up."""
    loaded = load_extraction_pipeline(args.pipeline)
    job = make_job(output, args, loaded.model_name, loaded.attr)
    list(extract_documents(loaded.nlp, list(read_inputs(job.inputs[:1], loaded.nlp.vocab, io.BytesIO()))[:1]))
    pairs = 0

    def count_pairs(result: ExtractionResult) -> None:
        nonlocal pairs
        if result.doc is not None:
            pairs += getattr(result.doc._, report_name(loaded.attr))["scored"]

    engine = partial(compute_in_process, nlp=loaded.nlp, stdin=io.BytesIO(), on_result=count_pairs)
    start = time.perf_counter()
    counts = extract_corpus(job, {}, engine)
    seconds = time.perf_counter() - start
    return {
        "documents": counts.documents,
        "pairs": pairs,
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "threads": torch.get_num_threads(),
    }


def with_ray(output: Path, args: argparse.Namespace) -> dict:
    """Measure seconds until the first shard is finished, and documents per second from then on."""
    loaded = load_extraction_pipeline(args.pipeline)
    job = make_job(output, args, loaded.model_name, loaded.attr)
    del loaded
    pool = WorkerPool.parse(str(args.workers), args.worker_cpus)
    finished: list[tuple[float, int]] = []

    def timed(job: ExtractionJob, shards: Sequence[int]) -> Iterator[ShardResult]:
        if len(shards) < 4 * args.workers:
            raise SystemExit(
                f"{len(shards)} shards are too few to measure {args.workers} workers: give a larger sample "
                "or a smaller --shard-size."
            )
        start = time.perf_counter()
        for result in compute_on_ray(job, shards, pool=pool):
            finished.append((time.perf_counter() - start, result.documents))
            yield result

    extract_corpus(job, {}, timed)
    # Workers do not start at the same time: measure from when each may have finished its first shard.
    begun = finished[args.workers - 1][0]
    later = finished[args.workers :]
    return {
        "startup_seconds": finished[0][0],
        "documents_per_second": sum(documents for _, documents in later) / (later[-1][0] - begun),
        "cores": pool.resolve([{"CPU": float(os.cpu_count() or 1)}]).cpus,
    }


def make_job(output: Path, args: argparse.Namespace, model_name: str, attr: str) -> ExtractionJob:
    """Describe the extraction of the sample."""
    return ExtractionJob(
        output,
        find_inputs(args.sample),
        partial(load, args.pipeline),
        model_name,
        attr,
        shard_size=args.shard_size,
        batch_size=args.batch_size,
    )


if __name__ == "__main__":
    main()
