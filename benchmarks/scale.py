"""Pairs a second of one process and of Ray workers on a sample, and what a large corpus would take.

Usage: python benchmarks/scale.py SAMPLE... --pipeline NAME [--workers 2] [--shard-size 50] [--pairs 1e9]
    [--price P] [--output FILE.json]

Both compute the same shards of the sample; the time to load models is told apart. The reckoning multiplies
what was measured here: for a cluster, measure one of its machines, with as many workers as it is to have. A
price is that of this machine for an hour.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from spacy_slmre.extraction.ray_engine import Workers, compute_on_ray, running_ray
from spacy_slmre.extraction.running import extract_by_shard
from spacy_slmre.extraction.shard_work import Job
from spacy_slmre.extraction.shards import ShardFolder, Tally
from spacy_slmre.extraction.sources import find_inputs, read_sources
from spacy_slmre.extraction.writers import make_writer
from spacy_slmre.relations import report_name
from spacy_slmre.util.system import hardware, versions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sample", nargs="+")
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker-cpus", type=int)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=float, default=1e9)
    parser.add_argument("--price", type=float)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    inputs = find_inputs(args.sample)
    workers = Workers.parse(str(args.workers), args.worker_cpus)
    with tempfile.TemporaryDirectory() as name:
        alone = one_process(inputs, Path(name) / "one.jsonl", args)
        together = with_ray(inputs, Path(name) / "ray.jsonl", workers, args)
        same = (Path(name) / "one.jsonl").read_bytes() == (Path(name) / "ray.jsonl").read_bytes()
    pairs_a_document = alone["pairs"] / alone["documents"]
    together["pairs_per_second"] = together["documents_per_second"] * pairs_a_document
    share = together["pairs_per_second"] / alone["pairs_per_second"]
    hours = args.pairs / together["pairs_per_second"] / 3600

    print(f"{hardware()}; {alone['documents']} documents, {alone['pairs']} pairs")
    print(f"one process (threads: {alone['threads']}): {alone['pairs_per_second']:.1f} pairs/s")
    print(
        f"Ray, {args.workers} workers (threads: {together['threads']} each): "
        f"{together['pairs_per_second']:.1f} pairs/s, {share:.2f} times one process; "
        f"{together['startup_seconds']:.0f} s until the first shard"
    )
    print(
        f"The same output, byte for byte: {'yes' if same else 'no (threads may differ, see docs/scale.md)'}"
    )
    print(f"{args.pairs:.3g} pairs: {hours:,.0f} hours of this machine")
    if args.price is not None:
        print(f"at {args.price:g} an hour: {hours * args.price:,.0f}")
    if args.output:
        run = {"hardware": hardware(), "versions": versions(), "same_output": same, "machine_hours": hours}
        args.output.write_text(json.dumps({**run, "one_process": alone, "ray": together}, indent=2))


def one_process(inputs: list[tuple[str, str]], output: Path, args: argparse.Namespace) -> dict:
    """Documents, pairs and pairs a second of this process, with its model in memory and warm."""
    nlp, component = ready_pipeline(args.pipeline)
    report = report_name(component.attr)
    settings = {"batch_size": args.batch_size, "model": model_name(nlp, component)}

    first = list(read_sources(inputs[:1], nlp, io.BytesIO()))[:1]
    list(extract_by_shard(nlp, first, 1, **settings))
    writer, pairs = make_writer(output, component.attr), 0
    start = time.perf_counter()
    sources = read_sources(inputs, nlp, io.BytesIO())
    for result in extract_by_shard(nlp, sources, args.shard_size, **settings):
        writer.write(result)
        if result.doc is not None:
            pairs += getattr(result.doc._, report)["scored"]
    writer.finish()
    seconds = time.perf_counter() - start
    return {
        "documents": writer.written,
        "pairs": pairs,
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "threads": torch.get_num_threads(),
    }


def with_ray(inputs: list[tuple[str, str]], output: Path, workers: Workers, args: argparse.Namespace) -> dict:
    """Seconds until the first shard is done, and documents a second from then on."""
    nlp, component = ready_pipeline(args.pipeline)
    folder = ShardFolder(output)
    folder.begin({}, inputs, args.shard_size, "text", "id")
    if len(folder.shards) < 4 * args.workers:
        raise SystemExit(
            f"{len(folder.shards)} shards for {args.workers} workers say little: give a larger sample, or a "
            f"smaller --shard-size."
        )
    job = Job(
        os.getcwd(),
        output,
        partial(load_ready, args.pipeline),
        component.attr,
        model_name(nlp, component),
        args.batch_size,
    )
    del nlp
    start = time.perf_counter()
    finished: list[tuple[float, int]] = []
    with running_ray(workers, None) as settled:
        for outcome in compute_on_ray(job, range(len(folder.shards)), settled):
            if not isinstance(outcome, Tally):
                raise SystemExit(f"Shard {outcome} was given up.")
            folder.note(outcome)
            finished.append((time.perf_counter() - start, outcome.documents))
    folder.join()
    # Workers do not begin at once: from when each may have done its first shard.
    begun = finished[args.workers - 1][0]
    later = finished[args.workers :]
    return {
        "startup_seconds": finished[0][0],
        "documents_per_second": sum(documents for _, documents in later) / (later[-1][0] - begun),
        "threads": settled.cpus,
    }


if __name__ == "__main__":
    main()
