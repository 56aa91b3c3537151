"""Compute shards in several processes on this machine.

A worker that dies is replaced and its shard is computed again; if this process dies, its workers end, too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from spacy.language import Language

from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.extraction.shards import ShardResult
from spacy_slmre.extraction.worker import MAX_ATTEMPTS, ExtractionJob, ShardWorker


def compute_in_processes(
    job: ExtractionJob, shards: Sequence[int], *, nlp: Language, n_process: int, log: Callable[[str], None] = print
) -> Iterator[ShardResult]:
    """Compute shards in worker processes and yield their results as they finish.

    Args:
        job: The job. Standard input must have been copied to a file.
        shards: Shard numbers.
        nlp: The pipeline. Where processes are forked, the workers use it; otherwise each loads its own.
        n_process: Number of workers.
        log: Reports workers that died.

    Raises:
        ExtractionError: A worker reported an error, or the workers die again and again.
    """
    # A forked process cannot use a GPU that this one uses.
    method = "spawn" if torch.cuda.is_initialized() else multiprocessing.get_start_method()
    context: Any = multiprocessing.get_context(method)
    n_process = min(n_process, len(shards))
    if n_process < 2:
        log("There is only one shard, so only one process is used. Set a smaller shard size.")
    waiting = deque(shards)
    workers: dict[Connection, _Worker] = {}
    deaths = 0

    def start() -> None:
        worker = _Worker(context, job, nlp if method == "fork" else None, max(1, torch.get_num_threads() // n_process))
        workers[worker.connection] = worker
        worker.give(waiting.popleft())

    try:
        for _ in range(n_process):
            start()
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]
                outcome = worker.outcome()
                if outcome is None:
                    del workers[worker.connection]
                    waiting.appendleft(worker.shard)
                    deaths += 1
                    log(f"A worker process ended unexpectedly ({worker.exit_reason()}).")
                    # A shard that kills its workers is given up after MAX_ATTEMPTS, which counts as an outcome.
                    if deaths > MAX_ATTEMPTS * n_process:
                        raise ExtractionError(
                            "The worker processes end as soon as they start, for example because memory ran out. "
                            "Finished shards are kept. Repeat the command with fewer processes to resume."
                        )
                    start()
                    continue
                if "error" in outcome:
                    raise ExtractionError(outcome["error"])
                deaths = 0
                if waiting:
                    worker.give(waiting.popleft())
                else:
                    del workers[worker.connection]
                    worker.stop()
                if outcome:
                    yield ShardResult(**outcome)
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """A worker process, its connection and the shard that it computes."""

    def __init__(self, context: Any, job: ExtractionJob, nlp: Language | None, threads: int) -> None:
        self.shard = -1
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_work, args=(job, nlp, threads, remote), daemon=True)
        self.process.start()
        # Otherwise, reading would block forever if the worker dies.
        remote.close()

    def give(self, shard: int) -> None:
        """Send a shard to the worker; `outcome` tells whether the worker has died."""
        self.shard = shard
        with suppress(OSError):
            self.connection.send(shard)

    def outcome(self) -> dict[str, Any] | None:
        """Return the outcome of the shard, or None if the worker has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def exit_reason(self) -> str:
        """Describe why the worker died."""
        self.process.join()
        code = self.process.exitcode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def _work(job: ExtractionJob, nlp: Language | None, threads: int, connection: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process stops its workers
    # A forked process has torch's thread pool without its threads, and would wait for them forever.
    torch.set_num_threads(threads if nlp is None else 1)
    try:
        worker = ShardWorker(job, job.load() if nlp is None else nlp)
    except (ValueError, OSError) as error:
        connection.recv()
        connection.send({"error": str(error)})
        return
    while True:
        connection.send(worker.outcome(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
