"""Workers: they run documents through a pipeline and compute shards."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from preshed.maps import PreshMap
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from spacy_slmre.documents import set_provenance
from spacy_slmre.extraction.inputs import InputDocument, read_inputs
from spacy_slmre.extraction.outputs import ExtractionResult, write_results
from spacy_slmre.extraction.shards import ShardFolder, ShardResult
from spacy_slmre.facts import LEVELS
from spacy_slmre.relations import LABELS, describe_unanswered
from spacy_slmre.util.errors import ServiceError, describe
from spacy_slmre.util.io import shard_name

MAX_ATTEMPTS = 3
"""A shard is skipped after it has crashed its worker this many times."""
# Maximum capacity of the string store's hash map, relative to the number of strings.
_MAX_CAPACITY = 8


def extract_documents(
    nlp: Language, documents: Iterable[InputDocument], *, batch_size: int = 64, model_name: str | None = None
) -> Iterator[ExtractionResult]:
    """Run documents through a pipeline and yield one result for each, in order; a failure affects only its document.

    Args:
        nlp: The pipeline. Its error handlers are replaced.
        documents: Documents to process.
        batch_size: Documents per batch.
        model_name: Name of the model to record in each document.

    Raises:
        ServiceError: A remote service is unavailable.
    """
    _raise_errors(nlp)
    waiting: deque[InputDocument] = deque()
    reading: list[Exception] = []

    def contents() -> Iterator[str | Doc]:
        """Yield the documents that can be processed, and keep all documents until their results arrive."""
        try:
            for document in documents:
                waiting.append(document)
                if _input_error(nlp, document) is None:
                    yield _content(nlp, document)
        except Exception as error:  # an error of the input, not of the pipeline
            reading.append(error)
            raise

    def unreadable() -> Iterator[ExtractionResult]:
        while waiting and (error := _input_error(nlp, waiting[0])) is not None:
            yield ExtractionResult(waiting.popleft().id, error=error)

    def result(doc: Doc | str) -> ExtractionResult:
        id = waiting.popleft().id
        if isinstance(doc, str):
            return ExtractionResult(id, error=doc)
        if model_name is not None:
            set_provenance(doc, id, model_name)
        error = describe_unanswered(doc)
        return ExtractionResult(id, doc if error is None else None, error)

    remaining = contents()
    while True:
        try:
            for doc in nlp.pipe(remaining, batch_size=batch_size):
                yield from unreadable()
                # Components of other packages may drop documents or return something else.
                if not isinstance(doc, Doc) or doc.text != _text(waiting[0]):
                    break
                yield result(doc)
        except ServiceError:
            raise  # every other document would fail, too
        except Exception:
            if reading:
                raise
        if not waiting:
            return
        # Process the batch again one by one, so that only the documents that caused the failure are lost.
        while waiting:
            yield from unreadable()
            if waiting:
                yield result(_run_single(nlp, _content(nlp, waiting[0])))


def _input_error(nlp: Language, document: InputDocument) -> str | None:
    if isinstance(document.content, str) and len(document.content) > nlp.max_length:
        return (
            f"{len(document.content)} characters are more than nlp.max_length ({nlp.max_length}); split the text, for "
            "instance into chapters"
        )
    return document.error


def _content(nlp: Language, document: InputDocument) -> str | Doc:
    if document.labels is None or not isinstance(document.content, str):
        return cast(str | Doc, document.content)
    doc = nlp.make_doc(document.content)
    setattr(doc._, LABELS, document.labels)
    return doc


def _text(document: InputDocument) -> str | None:
    return document.content.text if isinstance(document.content, Doc) else document.content


def _run_single(nlp: Language, content: str | Doc) -> Doc | str:
    try:
        return nlp(content)
    except ServiceError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _raise_errors(nlp: Language) -> None:
    nlp.default_error_handler = raise_error
    for _, component in nlp.pipeline:
        # `nlp.set_error_handler` fails for spaCy's parser.
        with suppress(AttributeError):
            component.set_error_handler(raise_error)  # type: ignore[attr-defined]


@contextmanager
def forget_words(nlp: Language) -> Iterator[None]:
    """Free the memory of new words at the end, for instance of a shard; its documents become invalid."""
    with nlp.memory_zone():
        yield
    strings: Any = nlp.vocab.strings
    # The hash map keeps the slots of deleted strings.
    if strings._map.capacity > _MAX_CAPACITY * len(strings):
        compact = PreshMap()
        for key, value in strings._map.items():
            compact[key] = value
        strings._map = compact


@dataclass(frozen=True)
class ExtractionJob:
    """What workers need to know; they may be on other machines.

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
        level: What outputs contain, see `write_results`.
        stdin: A file with a copy of standard input; None if it is read as a stream.
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
    level: str = LEVELS[0]
    stdin: Path | None = None

    @property
    def reads_stdin(self) -> bool:
        """Whether standard input is read."""
        return any(path == "-" for path, _ in self.inputs)

    @property
    def is_stream(self) -> bool:
        """Whether standard input is read as a stream, which cannot be split beforehand."""
        return self.reads_stdin and self.stdin is None


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
        if len(list(self.folder.attempts.glob(f"{shard_name(number)}.*"))) >= MAX_ATTEMPTS:
            return None
        shard = self.folder.shards[number]
        if self._next_shard != number:
            self._documents = self._read(self.job.stdin or io.BytesIO(), number)
        self._next_shard = None
        with forget_words(self.nlp):
            result = self._compute(number, islice(self._documents, shard.documents))
        self._next_shard = number + 1
        return result

    def outcome(self, number: int) -> dict[str, Any]:
        """Compute a shard for another process; return its counts, an "error", or {} if it has crashed too often."""
        try:
            result = self.compute(number)
        except (ValueError, OSError) as error:
            return {"error": describe(error)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {} if result is None else asdict(result)

    def compute_stream(self, stdin: BinaryIO) -> Iterator[ShardResult]:
        """Read documents from inputs that include standard input, and compute them shard by shard."""
        documents = self._read(stdin)
        for number in count():
            with forget_words(self.nlp):
                if (first := next(documents, None)) is None:
                    return
                result = self._compute(number, chain([first], islice(documents, self.job.shard_size - 1)))
            yield result

    def _read(self, stdin: BinaryIO | Path, shard: int | None = None) -> Iterator[InputDocument]:
        job = self.job
        plan: dict[str, Any] = {}
        if shard is not None:
            plan = {"start": self.folder.shards[shard].start, "counts": self.folder.counts_from(shard)}
        return read_inputs(job.inputs, self.nlp.vocab, stdin, job.text_field, job.id_field, **plan)

    def _compute(self, number: int, documents: Iterable[InputDocument]) -> ShardResult:
        job, counts = self.job, {"documents": 0, "failed": 0, "relations": 0}

        def add(result: ExtractionResult) -> None:
            counts["documents"] += 1
            counts["failed"] += result.doc is None
            counts["relations"] += 0 if result.doc is None else len(getattr(result.doc._, job.attr))
            if self._on_result is not None:
                self._on_result(result)

        results = extract_documents(self.nlp, documents, batch_size=job.batch_size, model_name=job.model_name)
        prefix = f"{shard_name(number)}.{socket.gethostname()}.{os.getpid()}."
        attempt = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.attempts))
        try:
            file = attempt / f"shard{job.output.suffix}"
            write_results(results, file, job.attr, job.level, add)
            size = self.folder.store(number, file)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
        return ShardResult(number, bytes=size, **counts)
