"""Check and measure on one NVIDIA GPU what otherwise only runs on CPUs.

Usage: bash benchmarks/gpu.sh [--output gpu.json] [--limit 460] [--only nf4,attention] [--dry-run]
       python scripts/readme_table.py --gpu gpu.json

The checks run one after the other in a separate process. A check that fails or takes too long is recorded with its
error, and the others run in a new process. A check that is expected to take longer than what is left of --limit is
skipped. Results are written after each check. Models have the shapes of published ones with random weights, and are
made on the GPU, so nothing is downloaded; the packaged model is used, too, if it is installed. With --dry-run,
everything is tiny and runs on the CPU, as a test of this script.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from speed.tables import gpu_tables, show

from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.system import hardware, versions

LIMIT = 460
CHECKS = {
    "nf4": 25,
    "equality": 40,
    "optimizers": 20,
    "attention": 30,
    "tune_0.5B": 50,
    "scoring_0.5B": 25,
    "keep_4bit": 30,
    "tune_3B": 90,
    "scoring_3B": 40,
    "updates": 30,
    "flex_attention": 60,
}
"""Checks with the seconds that they are expected to take. After "_" comes the shape of the model."""


class Worker:
    """A process that runs checks, until it is stopped."""

    def __init__(self, dry: bool, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_work, args=(remote, dry, folder), daemon=True)
        self._process.start()
        remote.close()

    def run(self, name: str, seconds: float | None) -> dict[str, Any]:
        """Run a check, for at most this time, and return its result."""
        try:
            self._connection.send(name)
            if not self._connection.poll(seconds):
                return {"status": "failed", "error": f"stopped after {seconds:.0f} s", "rows": []}
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return {"status": "failed", "error": f"the process ended with {self._process.exitcode}", "rows": []}

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _work(connection: Connection, dry: bool, folder: Path) -> None:
    # Only here: the process that starts the checks needs neither models nor kernels.
    from speed import gpu_kernels, gpu_models
    from speed.gpu_run import Run

    while True:
        name = connection.recv()
        run = Run(dry, folder)
        result: dict[str, Any] = {"status": "passed"}
        try:
            _find_check(name, gpu_kernels, gpu_models)(run)
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            result = {"status": "failed", "error": " ".join(message.split())[:600]}
        else:
            if run.problems:
                result = {"status": "failed", "error": "; ".join(run.problems)}
        connection.send({**result, "rows": run.rows})
        run.free()


def _find_check(name: str, *modules: Any) -> Callable[[Any], None]:
    """Return the function of a check, with the shape in its name as an argument."""
    start, _, shape = name.rpartition("_")
    if start in ("tune", "scoring"):
        return partial(_find_check(start, *modules), name=shape)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def main() -> None:
    """Run the checks and write their results."""
    args = _parse()
    begun = time.monotonic()
    device = torch.device("cpu" if args.dry_run else "cuda:0")
    if not args.dry_run and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU. Use --dry-run to test this script on a CPU.")
    results: dict[str, Any] = {
        "machine": hardware(device),
        "date": datetime.date.today().isoformat(),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "dry_run": args.dry_run,
        "checks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        worker: Worker | None = None
        for name in args.only or CHECKS:
            expected = CHECKS[name]
            left = args.limit - (time.monotonic() - begun)
            if not args.dry_run and left < expected:
                result: dict[str, Any] = {"status": "skipped", "error": f"{left:.0f} s left", "rows": []}
            else:
                worker = worker or Worker(args.dry_run, Path(folder))
                started = time.monotonic()
                # The first check includes the start of the process.
                result = worker.run(name, None if args.dry_run else min(left, 60 + 2 * expected))
                result["seconds"] = time.monotonic() - started
            if result["status"] == "failed" and worker is not None:
                worker.stop()  # after an error, the state of the GPU is unknown
                worker = None
            results["checks"][name] = result
            print(f"{name}: {result['status']} {result.get('error', '')}", flush=True)
            if args.output:
                atomic_write(args.output, json.dumps(results, indent=1))
        if worker is not None:
            worker.stop()
    for table in gpu_tables(results):
        show(table)
    if failed := [name for name, result in results["checks"].items() if result["status"] == "failed"]:
        raise SystemExit(f"Failed: {', '.join(failed)}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for everything (default: {LIMIT})")
    parser.add_argument("--only", type=_names, help=f"checks, separated by commas: {', '.join(CHECKS)}")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CHECKS]:
        raise argparse.ArgumentTypeError(f"unknown checks: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    main()
