"""Workers, which run documents through a pipeline and compute shards."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import BinaryIO

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from spacy_slmre.documents import set_provenance
from spacy_slmre.extraction.inputs import ExtractionError, InputDocument, read_inputs
from spacy_slmre.extraction.outputs import ExtractionResult, write_results
from spacy_slmre.extraction.shards import ShardFolder, ShardResult
from spacy_slmre.facts import LEVELS
from spacy_slmre.relations import describe_unanswered
from spacy_slmre.util.errors import ServiceError

MAX_ATTEMPTS = 3
"""A shard is skipped after it has crashed its worker this many times."""


def extract_documents(
    nlp: Language,
    documents: Iterable[InputDocument],
    *,
    batch_size: int = 64,
    n_process: int = 1,
    model_name: str | None = None,
) -> Iterator[ExtractionResult]:
    """Run documents through a pipeline and yield one result for each, in order; a failure affects only its document.

    Args:
        nlp: The pipeline. Its error handler is replaced.
        documents: Documents to process.
        batch_size: Documents per batch.
        n_process: Number of processes.
        model_name: Name of the model to record in each document.

    Raises:
        ServiceError: A remote service is unavailable.
    """
    handler = _ErrorHandler()
    waiting: dict[int, InputDocument] = {}

    def readable() -> Iterator[tuple[str | Doc, int]]:
        for number, document in enumerate(documents):
            waiting[number] = document
            if isinstance(document.content, str) and len(document.content) > nlp.max_length:
                handler.errors[number] = (
                    f"{len(document.content)} characters are more than nlp.max_length ({nlp.max_length})"
                )
            elif document.content is not None:
                yield document.content, number

    def failures(before: int | None) -> Iterator[ExtractionResult]:
        for number in sorted(number for number in waiting if before is None or number < before):
            document = waiting.pop(number)
            error = document.error or handler.errors.pop(number, None) or _find_error(nlp, document)
            yield ExtractionResult(document.id, error=error)

    _set_error_handler(nlp, handler)
    for doc, number in nlp.pipe(readable(), as_tuples=True, batch_size=batch_size, n_process=n_process):
        # Documents are returned in order, so earlier ones that are still waiting have failed.
        yield from failures(number)
        id = waiting.pop(number).id
        if model_name is not None:
            set_provenance(doc, id, model_name)
        error = describe_unanswered(doc)
        yield ExtractionResult(id, doc if error is None else None, error)
    yield from failures(None)


class _ErrorHandler:
    """Collects errors by document number, except for those in other processes; see `_find_error`."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}

    def __call__(self, name: str | None, component: object, docs: Iterable[Doc] | None, error: Exception) -> None:
        if isinstance(error, ServiceError):
            raise error  # every other document would fail too
        for doc in docs or ():
            # There is no public access to the context of `as_tuples`.
            self.errors[doc._context] = f"{name}: {type(error).__name__}: {error}"


def _set_error_handler(nlp: Language, handler: Callable) -> None:
    nlp.default_error_handler = handler
    for _, component in nlp.pipeline:
        # `nlp.set_error_handler` fails for spaCy's parser.
        with suppress(AttributeError):
            component.set_error_handler(handler)  # type: ignore[attr-defined]


def _find_error(nlp: Language, document: InputDocument) -> str:
    """Reprocess a document that failed in another process to find its error."""
    handler = nlp.default_error_handler
    try:
        _set_error_handler(nlp, raise_error)
        assert document.content is not None
        nlp(document.content)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        _set_error_handler(nlp, handler)
    return "failed in a worker process, but succeeded when processed again"


@dataclass(frozen=True)
class ExtractionJob:
    """What workers need to know, possibly on other machines.

    Attributes:
        output: Output of the run.
        inputs: Files with their formats.
        load: Loads the pipeline in another process.
        model_name: Name of the model to record in each document.
        attr: Relations are read from `doc._.<attr>`.
        text_field: Field or column of the text.
        id_field: Field or column of the id.
        shard_size: Documents per shard.
        batch_size: Documents per batch.
        n_process: Processes per worker.
        level: What outputs contain, see `write_results`.
    """

    output: Path
    inputs: list[tuple[str, str]]
    load: Callable[[], Language]
    model_name: str
    attr: str
    text_field: str = "text"
    id_field: str = "id"
    shard_size: int = 256
    batch_size: int = 64
    n_process: int = 1
    level: str = LEVELS[0]

    @property
    def reads_stdin(self) -> bool:
        """Whether standard input is read, which cannot be split beforehand or read again."""
        return any(path == "-" for path, _ in self.inputs)


class ShardWorker:
    """Computes shards with one pipeline.

    Batches do not span shards: batching affects rounding, so this makes results identical to the last bit, whichever
    worker computes a shard.

    Args:
        job: The job.
        nlp: The pipeline.
        on_result: Called with each result.
    """

    def __init__(
        self, job: ExtractionJob, nlp: Language, on_result: Callable[[ExtractionResult], None] | None = None
    ) -> None:
        self.job = job
        self.nlp = nlp
        self.folder = ShardFolder(job.output)
        self._on_result = on_result
        self._documents: Iterator[InputDocument] = iter(())
        # Number of the shard that `_documents` continues with; consecutive shards are read without seeking.
        self._next_shard: int | None = None

    def compute(self, number: int) -> ShardResult | None:
        """Compute a shard and store its result; return None if it has crashed workers too often.

        Raises:
            ExtractionError: The inputs have changed.
            ServiceError: A remote service is unavailable.
        """
        # A worker that dies leaves the folder of its attempt behind.
        if len(list(self.folder.attempts.glob(f"{number:05}.*"))) >= MAX_ATTEMPTS:
            return None
        shard = self.folder.shards[number]
        if self._next_shard != number:
            self._documents = self._read(io.BytesIO(), number)
        self._next_shard = None
        result = self._compute(number, islice(self._documents, shard.documents), shard.documents)
        self._next_shard = number + 1
        return result

    def compute_stream(self, stdin: BinaryIO) -> Iterator[ShardResult]:
        """Read documents from inputs that include standard input, and compute them shard by shard."""
        documents = self._read(stdin)
        for number in count():
            if (first := next(documents, None)) is None:
                return
            shard = chain([first], islice(documents, self.job.shard_size - 1))
            yield self._compute(number, shard)

    def _read(self, stdin: BinaryIO, shard: int | None = None) -> Iterator[InputDocument]:
        start = {} if shard is None else {"start": self.folder.shards[shard].start}
        job = self.job
        return read_inputs(job.inputs, self.nlp.vocab, stdin, job.text_field, job.id_field, **start)

    def _compute(self, number: int, documents: Iterable[InputDocument], expected: int | None = None) -> ShardResult:
        job, counts = self.job, {"documents": 0, "failed": 0, "relations": 0}

        def counted() -> Iterator[ExtractionResult]:
            for result in extract_documents(
                self.nlp, documents, batch_size=job.batch_size, n_process=job.n_process, model_name=job.model_name
            ):
                counts["documents"] += 1
                counts["failed"] += result.doc is None
                counts["relations"] += 0 if result.doc is None else len(getattr(result.doc._, job.attr))
                if self._on_result is not None:
                    self._on_result(result)
                yield result

        prefix = f"{number:05}.{socket.gethostname()}.{os.getpid()}."
        attempt = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.attempts))
        try:
            file = attempt / f"shard{job.output.suffix}"
            write_results(counted(), file, job.attr, job.level)
            if expected is not None and counts["documents"] != expected:
                raise ExtractionError(
                    f"Shard {number} had {expected} documents when the run started and now has {counts['documents']}: "
                    "the inputs have changed. Start over with overwrite."
                )
            size = self.folder.store(number, file)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
        return ShardResult(number, bytes=size, **counts)
