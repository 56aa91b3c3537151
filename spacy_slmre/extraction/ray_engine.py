"""Shards by many workers at once, with Ray Data: on this machine or on a cluster.

Ray gets the numbers of shards only. Each worker, an actor that has loaded the pipeline, reads its documents
and writes its results by itself; what comes back is a line about each shard.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from spacy_slmre.extraction.shard_work import Job, ShardWorker
from spacy_slmre.extraction.shards import Tally
from spacy_slmre.extraction.sources import ExtractionError

if TYPE_CHECKING:
    import numpy as np

# Cores of a worker where nothing was said: more do not make a small model much faster.
_CPUS = 4
# Ray keeps something of each block in mind: of very many shards, several make a block.
_MOST_BLOCKS = 10_000


@dataclass(frozen=True)
class Workers:
    """How many workers there are, and what each may use.

    Attributes:
        least: Fewest workers; None is as many as fit.
        most: Most workers; if more than `least`, Ray adds and removes some as there is work.
        cpus: Cores a worker; None shares out what there is.
        gpus: GPUs a worker, or a part of one; None is one where there are any.
    """

    least: int | None = None
    most: int | None = None
    cpus: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus < 1:
            raise ExtractionError(f"--worker-cpus {self.cpus}: a worker needs at least one core.")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus % 1)):
            raise ExtractionError(
                f"--worker-gpus {self.gpus}: give a part of a GPU, as 0.5, or a whole number of them."
            )

    def __str__(self) -> str:
        number = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        plural = ["" if value == 1 else "s" for value in (self.most, self.cpus)]
        return f"{number} worker{plural[0]} with {self.cpus} core{plural[1]}{gpus} each"

    @classmethod
    def parse(cls, number: str | None, cpus: int | None = None, gpus: float | None = None) -> Workers:
        """From the command line: a number of workers, or two with a colon between.

        Raises:
            ExtractionError: They are not such numbers.
        """
        if number is None:
            return cls(cpus=cpus, gpus=gpus)
        least, colon, most = number.partition(":")
        try:
            first, last = int(least), int(most if colon else least)
        except ValueError:
            first = last = 0
        if not 1 <= first <= last:
            raise ExtractionError(
                f'--workers "{number}": give a number, as 4, or the fewest and the most, as 2:16.'
            )
        return cls(first, last, cpus, gpus)

    def settled(self, nodes: Sequence[dict[str, float]]) -> Workers:
        """With numbers for all that was left open.

        Args:
            nodes: What each machine has: its "CPU" and, if any, "GPU".
        """
        cores = [int(node.get("CPU", 0)) for node in nodes]
        most_cores = max([1, *cores])
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU") for node in nodes))
        cpus = self.cpus
        if cpus is None and self.most is None:
            cpus = min(_CPUS, most_cores)
        elif cpus is None:
            cpus = max(1, min(sum(cores) // (self.most or 1), most_cores))
        assert cpus is not None
        if self.most is not None:
            return replace(self, cpus=cpus, gpus=gpus)
        places = [node_cores // cpus for node_cores in cores]
        if gpus:
            places = [
                min(place, int(node.get("GPU", 0) / gpus)) for place, node in zip(places, nodes, strict=True)
            ]
        number = max(1, sum(places))
        return Workers(number, number, cpus, gpus)


def check_ray() -> None:
    """See that Ray is there, without importing it.

    Raises:
        ExtractionError: It is not.
    """
    if find_spec("ray") is None:
        raise ExtractionError("--engine ray needs Ray: pip install 'spacy-slmre[ray]'")


@contextmanager
def running_ray(workers: Workers, address: str | None) -> Iterator[Workers]:
    """Ray, started on this machine or found at an address, and the workers that it has room for.

    Args:
        workers: What was asked for.
        address: Of a cluster; None is what RAY_ADDRESS says, or else this machine alone.

    Raises:
        ExtractionError: No cluster answers at the address.
    """
    # Ray would report how it is used to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    import ray

    started: dict[str, Any] = {}
    if address == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # Who asks for more workers than cores gets them.
        asked = (workers.most or 1) * (workers.cpus or 1)
        started = {"num_cpus": max(cores, asked), "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **started)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ExtractionError(f'Ray cannot be started or found at "{address}": {error}') from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield workers.settled(nodes)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens, which Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ExtractionError(
            f'No Ray cluster answers at "{address}" ({error}). Give HOST:PORT as `ray start --head` printed '
            "it, on a machine of the cluster."
        ) from error


class RayWorker:
    """What Ray makes an actor of: it is told numbers of shards, and tells what came of them."""

    def __init__(self, job: Job) -> None:
        self.problem: str | None = None
        try:
            self.worker = ShardWorker(job)
        except (ValueError, OSError) as error:
            # Told with the first shard: an actor that fails here would be tried again without end.
            self.problem = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Compute shards.

        Args:
            batch: "shard": their numbers, (n,).

        Returns:
            "note": what came of each, as JSON.
        """
        return {"note": [json.dumps(self._compute(int(number))) for number in batch["shard"]]}

    def _compute(self, number: int) -> dict[str, Any]:
        if self.problem is not None:
            return {"problem": self.problem}
        try:
            tally = self.worker.compute(number)
        except (ValueError, OSError) as error:
            return {"problem": str(error)}
        return {"lost": number} if tally is None else asdict(tally)


def compute_on_ray(job: Job, numbers: Sequence[int], workers: Workers) -> Iterator[Tally | int]:
    """Compute shards on a Ray that runs; what came of each, as they get done.

    A worker that dies is started again, and what it was at is computed anew.

    Args:
        job: What workers need to know.
        numbers: The shards.
        workers: How many workers, with all numbers settled.

    Yields:
        The tally of a shard, or the number of one that has taken its worker down too often.

    Raises:
        ExtractionError: No shard would fare better, or Ray gives up: it says why.
    """
    import ray.data

    assert workers.cpus is not None
    # As without Ray: who says how many threads there should be is heard.
    told = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(workers.cpus, int(told)) if told.isdigit() and int(told) else workers.cpus
    job = replace(job, threads=threads, gpu=bool(workers.gpus))
    _be_quiet()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A shard may take long, and a cluster may take long to find room.
    context.execution_no_progress_timeout_s = -1
    # One that dies while it loads its model, for want of memory say, may fare better elsewhere.
    context.max_consecutive_actor_init_deaths = 3
    blocks = min(len(numbers), _MOST_BLOCKS)
    shards = ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=blocks)
    notes = shards.map_batches(
        RayWorker,
        fn_constructor_kwargs={"job": job},
        batch_size=1,
        batch_format="numpy",
        # Ray Data restarts actors and tries their tasks again without end; `ShardWorker` counts.
        # Two at a time: one is computed, and the next one waits.
        compute=ray.data.ActorPoolStrategy(
            min_size=workers.least, max_size=workers.most, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    try:
        for row in notes.iter_rows():
            note = json.loads(row["note"])
            if "problem" in note:
                raise ExtractionError(note["problem"])
            yield note["lost"] if "lost" in note else Tally(**note)
    except ray.exceptions.RayError as error:
        raise ExtractionError(
            f"Ray cannot go on: {error}\nWhat is done is kept: the same command goes on from there."
        ) from error


def _be_quiet() -> None:
    """The command shows progress by itself."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
