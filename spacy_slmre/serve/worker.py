"""Process the texts of many requests with one pipeline in one thread, in batches.

While the pipeline is busy, requests wait in a queue. Then those with the same threshold as the first are processed
together, so the more requests wait, the larger the batches are, and a single one never waits for others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.inputs import InputDocument
from spacy_slmre.extraction.pipelines import ExtractionPipeline

Labels = list[Any] | None


class QueueFullError(Exception):
    """Too many texts are waiting.

    Attributes:
        seconds: Estimated time until the waiting texts are processed.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} texts are already waiting. Try again in {seconds} seconds.")
        self.seconds = seconds


@dataclass(frozen=True, eq=False)
class Job:
    """The texts of a request.

    Attributes:
        labels: Labels of these texts; None for those of the pipeline.
        threshold: Threshold of all labels; None for those of the pipeline.
        answer: Gets a document for each text, or a ValueError; canceled if nobody waits for it any more.
    """

    texts: Sequence[str]
    labels: Labels
    threshold: float | None
    answer: asyncio.Future[list[RelationDocument]]


class PipelineWorker:
    """Processes texts in the order of their requests. All methods must be called in one event loop.

    Args:
        pipeline: The pipeline, with loaded weights.
        max_waiting: Maximum number of texts that wait or are processed.
        batch_size: Texts that are processed together; a request with more texts is one batch.
        on_batch: Called with the documents of each batch.
    """

    def __init__(
        self,
        pipeline: ExtractionPipeline,
        *,
        max_waiting: int = 256,
        batch_size: int = 32,
        on_batch: Callable[[list[RelationDocument]], None] = lambda documents: None,
    ) -> None:
        self.pipeline = pipeline
        self.max_waiting = max_waiting
        self.batch_size = batch_size
        self._on_batch = on_batch
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._arrived = asyncio.Event()
        self._seconds, self._n_texts = 0.0, 0

    @property
    def n_waiting(self) -> int:
        """Number of texts that wait or are processed."""
        waiting = (job for job in self._waiting if not job.answer.done())
        return sum(len(job.texts) for jobs in (waiting, self._running) for job in jobs)

    def submit(
        self, texts: Sequence[str], labels: Labels = None, threshold: float | None = None
    ) -> asyncio.Future[list[RelationDocument]]:
        """Let texts be processed.

        Returns:
            The documents in the order of the texts. A text that fails has a document with its error. The result is a
            ValueError if the labels are invalid, or a ServiceError if a remote service is unavailable. Cancel it if it
            is no longer needed.

        Raises:
            QueueFullError: Too many texts are waiting.
            ValueError: The component cannot change its labels or its threshold.
        """
        self.pipeline.check_changes(labels, threshold)
        if (waiting := self.n_waiting) + len(texts) > self.max_waiting:
            per_text = self._seconds / self._n_texts if self._n_texts else 0.0
            raise QueueFullError(waiting, max(1, math.ceil(waiting * per_text)))
        job = Job(texts, labels, threshold, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return job.answer

    async def run(self) -> None:
        """Process what is submitted, until the task is canceled."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pipeline") as thread:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await self._run_batch(thread)

    async def _run_batch(self, thread: ThreadPoolExecutor) -> None:
        jobs = self._running = self._take_batch()
        if not jobs:
            return
        began = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(thread, self._process, jobs)
        except Exception as error:
            results = [error] * len(jobs)
        finally:
            self._running = []
        self._seconds += time.monotonic() - began
        self._n_texts += sum(len(job.texts) for job in jobs)
        self._on_batch([document for result in results if isinstance(result, list) for document in result])
        for job, result in zip(jobs, results, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    def _take_batch(self) -> list[Job]:
        """Remove the first job and those that can be processed with it; canceled ones are dropped."""
        jobs = [job for job in self._waiting if not job.answer.done()]
        batch: list[Job] = []
        n_texts = 0
        for job in jobs:
            if not batch or (job.threshold == batch[0].threshold and n_texts + len(job.texts) <= self.batch_size):
                batch.append(job)
                n_texts += len(job.texts)
        self._waiting = deque(job for job in jobs if job not in batch)
        return batch

    def _process(self, jobs: list[Job]) -> list[list[RelationDocument] | Exception]:
        """Return the documents of each job, or its error; runs in the thread of the pipeline."""
        results: list[list[RelationDocument] | Exception] = []
        errors = [self._check_labels(job.labels) for job in jobs]
        valid = [job for job, error in zip(jobs, errors, strict=True) if error is None]
        inputs = [
            InputDocument(str(number), text, labels=job.labels)
            for job in valid
            for number, text in enumerate(job.texts, 1)
        ]
        documents = iter(self.pipeline.extract(inputs, threshold=jobs[0].threshold, batch_size=len(inputs) or 1))
        for job, error in zip(jobs, errors, strict=True):
            results.append(error or list(islice(documents, len(job.texts))))
        return results

    def _check_labels(self, labels: Labels) -> ValueError | None:
        try:
            if labels is not None:
                self.pipeline.make_schema(labels)
        except ValueError as error:
            return ValueError(f"labels: {error}")
        return None
