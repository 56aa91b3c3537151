"""Compute shards with many workers on Ray Data, on this machine or on a cluster.

Ray only transfers shard numbers. Each worker is an actor that loads the pipeline, reads its documents, stores its
results itself, and returns one line of JSON per shard.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.extraction.shards import ShardResult
from spacy_slmre.extraction.worker import ExtractionJob, ShardWorker

if TYPE_CHECKING:
    import numpy as np

# Default number of cores per worker; small models hardly benefit from more.
_CPUS = 4
# Ray keeps metadata for each block in memory, so if there are many shards, each block has several.
_MAX_BLOCKS = 10_000


@dataclass(frozen=True)
class WorkerPool:
    """Number of workers and the resources of each.

    Attributes:
        minimum: Minimum number of workers; None starts as many as fit.
        maximum: Maximum number of workers. Above `minimum`, Ray adds and removes workers as needed.
        cpus: Cores per worker; None divides the available cores evenly.
        gpus: GPUs per worker, possibly a fraction; None means one if there are any.
    """

    minimum: int | None = None
    maximum: int | None = None
    cpus: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus < 1:
            raise ExtractionError(f"worker_cpus must be at least 1, not {self.cpus}.")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus % 1)):
            raise ExtractionError(
                f"worker_gpus must be a whole number or a fraction of one GPU such as 0.5, not {self.gpus}."
            )

    def __str__(self) -> str:
        number = f"{self.minimum}" if self.minimum == self.maximum else f"{self.minimum} to {self.maximum}"
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        plural = ["" if value == 1 else "s" for value in (self.maximum, self.cpus)]
        return f"{number} worker{plural[0]} with {self.cpus} core{plural[1]}{gpus} each"

    @classmethod
    def parse(cls, workers: str | None, cpus: int | None = None, gpus: float | None = None) -> WorkerPool:
        """Create a pool from a number of workers or a range "MIN:MAX".

        Raises:
            ExtractionError: A value is invalid.
        """
        if workers is None:
            return cls(cpus=cpus, gpus=gpus)
        minimum, colon, maximum = workers.partition(":")
        try:
            first, last = int(minimum), int(maximum if colon else minimum)
        except ValueError:
            first = last = 0
        if not 1 <= first <= last:
            raise ExtractionError(
                f'workers must be a number such as 4, or a range MIN:MAX such as 2:16, not "{workers}".'
            )
        return cls(first, last, cpus, gpus)

    def resolve(self, nodes: Sequence[dict[str, float]]) -> WorkerPool:
        """Return a copy in which nothing is None.

        Args:
            nodes: Resources of each machine: "CPU" and, if any, "GPU".
        """
        cores = [int(node.get("CPU", 0)) for node in nodes]
        max_cores = max([1, *cores])
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU") for node in nodes))
        cpus = self.cpus
        if cpus is None and self.maximum is None:
            cpus = min(_CPUS, max_cores)
        elif cpus is None:
            cpus = max(1, min(sum(cores) // (self.maximum or 1), max_cores))
        assert cpus is not None
        if self.maximum is not None:
            return replace(self, cpus=cpus, gpus=gpus)
        fitting = [node_cores // cpus for node_cores in cores]
        if gpus:
            fitting = [
                min(workers, int(node.get("GPU", 0) / gpus)) for workers, node in zip(fitting, nodes, strict=True)
            ]
        number = max(1, sum(fitting))
        return WorkerPool(number, number, cpus, gpus)


def compute_on_ray(
    job: ExtractionJob,
    shards: Sequence[int],
    *,
    pool: WorkerPool,
    address: str | None = None,
    log: Callable[[str], None] = print,
) -> Iterator[ShardResult]:
    """Compute shards on Ray and yield their results as they finish.

    If a worker dies, it is restarted and its shard is computed again. Shards that crash their worker too often are
    skipped.

    Args:
        job: The job; each worker loads its pipeline.
        shards: Shard numbers.
        pool: Number of workers and their resources.
        address: Address of a cluster; None uses RAY_ADDRESS, or starts Ray on this machine.
        log: Reports progress.

    Raises:
        ExtractionError: No cluster answers at the address, a worker cannot start, or Ray fails.
    """
    with _running_ray(pool, address) as resolved:
        log(f"{len(shards)} shards for {resolved}.")
        if len(shards) < (resolved.maximum or 1):
            log("There are fewer shards than workers, so some stay idle. Set a smaller shard size.")
        yield from _compute(job, shards, resolved)


@contextmanager
def _running_ray(pool: WorkerPool, address: str | None) -> Iterator[WorkerPool]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    import ray

    options: dict[str, Any] = {}
    if address == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # More workers than cores are allowed if the user requests them.
        requested = (pool.maximum or 1) * (pool.cpus or 1)
        options = {"num_cpus": max(cores, requested), "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ExtractionError(f'Ray cannot be started or reached at "{address}": {error}') from error
    try:
        yield pool.resolve([node["Resources"] for node in ray.nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Fail immediately if nothing listens at an address; Ray would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ExtractionError(
            f'No Ray cluster answers at "{address}" ({error}). Use the HOST:PORT that `ray start --head` prints, and '
            "run the command on a machine of the cluster."
        ) from error


def _compute(job: ExtractionJob, shards: Sequence[int], pool: WorkerPool) -> Iterator[ShardResult]:
    import ray.data

    assert pool.cpus is not None
    # The command has its own progress bar.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Shards may take a long time, and a cluster may need a long time to provide resources.
    context.execution_no_progress_timeout_s = -1
    # If a worker dies while loading the model, for example because memory runs out, it may succeed elsewhere.
    context.max_consecutive_actor_init_deaths = 3
    # Respect a smaller OMP_NUM_THREADS.
    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(pool.cpus, int(limit)) if limit.isdigit() and int(limit) else pool.cpus
    arguments = {"job": job, "folder": os.getcwd(), "threads": threads, "use_gpu": bool(pool.gpus)}
    blocks = min(len(shards), _MAX_BLOCKS)
    numbers = ray.data.from_items([{"shard": number} for number in shards], override_num_blocks=blocks)
    rows = numbers.map_batches(
        ShardActor,
        fn_constructor_kwargs=arguments,
        batch_size=1,
        batch_format="numpy",
        # Ray Data restarts actors and repeats their tasks without limit, so `ShardWorker` counts attempts. With two
        # tasks per actor, the next shard is already queued when one is finished.
        compute=ray.data.ActorPoolStrategy(
            min_size=pool.minimum, max_size=pool.maximum, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )
    try:
        for row in rows.iter_rows():
            outcome = json.loads(row["outcome"])
            if "error" in outcome:
                raise ExtractionError(outcome["error"])
            if outcome:
                yield ShardResult(**outcome)
    except ray.exceptions.RayError as error:
        raise ExtractionError(
            f"Ray failed: {error}\nFinished shards are kept. Repeat the command to resume."
        ) from error


class ShardActor:
    """A `ShardWorker` as a Ray actor.

    Args:
        job: The job.
        folder: Working directory of the command, for relative paths.
        threads: Number of PyTorch threads.
        use_gpu: Whether the worker may use GPUs.
    """

    def __init__(self, job: ExtractionJob, folder: str, threads: int, use_gpu: bool) -> None:
        self.load_error: str | None = None
        if not use_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads(threads)
        try:
            os.chdir(folder)
            self.worker = ShardWorker(job, job.load())
            self.worker.folder.attempts.stat()
        except OSError as error:
            self.load_error = (
                f"The machine {socket.gethostname()} cannot read {error.filename} ({error.strerror}): "
                "pipeline, inputs and output must have the same path on all machines."
            )
        except ValueError as error:
            # Reported with the first shard, because Ray would endlessly restart an actor that fails here.
            self.load_error = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Compute the shards with the numbers in `batch["shard"]`, of shape `(n,)`.

        Returns:
            For each shard, a JSON object as "outcome": counts, an error, or empty if it crashed workers too often.
        """
        return {"outcome": [json.dumps(self._compute(int(number))) for number in batch["shard"]]}

    def _compute(self, number: int) -> dict[str, Any]:
        if self.load_error is not None:
            return {"error": self.load_error}
        return self.worker.outcome(number)
