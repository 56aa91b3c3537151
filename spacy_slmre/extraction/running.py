"""Documents through a pipeline: a result for each, whatever happens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from spacy_slmre.documents import set_provenance
from spacy_slmre.extraction.sources import ExtractionError, Source
from spacy_slmre.util.errors import ServiceError


@dataclass(frozen=True)
class Result:
    """A document that was read: with its relations, or with what went wrong."""

    id: str
    doc: Doc | None = None
    error: str | None = None


def extract(
    nlp: Language,
    sources: Iterable[Source],
    *,
    batch_size: int = 64,
    n_process: int = 1,
    model: str | None = None,
) -> Iterator[Result]:
    """Run documents through a pipeline: a result for each, in order; one that fails stops no other.

    Args:
        nlp: The pipeline; its error handler is replaced.
        sources: The documents.
        batch_size: Documents a batch.
        n_process: Worker processes.
        model: What finds the relations: it is written on the documents, with their ids.

    Raises:
        ServiceError: A service that the pipeline asks lets no document through.
    """
    handle = _ErrorHandler()
    waiting: dict[int, Source] = {}

    def readable() -> Iterator[tuple[str | Doc, int]]:
        for number, source in enumerate(sources):
            waiting[number] = source
            if isinstance(source.content, str) and len(source.content) > nlp.max_length:
                error = f"{len(source.content)} characters, more than nlp.max_length {nlp.max_length}"
                handle.errors[number] = error
            elif source.content is not None:
                yield source.content, number

    def failed(before: int | None) -> Iterator[Result]:
        for number in sorted(number for number in waiting if before is None or number < before):
            source = waiting.pop(number)
            error = source.error or handle.errors.pop(number, None) or _reason(nlp, source)
            yield Result(source.id, error=error)

    _set_error_handler(nlp, handle)
    for doc, number in nlp.pipe(readable(), as_tuples=True, batch_size=batch_size, n_process=n_process):
        # Documents come in order: those before this one that did not come have failed.
        yield from failed(number)
        id = waiting.pop(number).id
        if model is not None:
            set_provenance(doc, id, model)
        yield Result(id, doc)
    yield from failed(None)


def extract_by_shard(
    nlp: Language,
    sources: Iterable[Source],
    size: int,
    done: int = 0,
    *,
    batch_size: int = 64,
    n_process: int = 1,
    model: str | None = None,
) -> Iterator[Result]:
    """`extract`, with no batch that reaches from one shard into the next.

    What is computed together decides how numbers are rounded: so the results are the same, to the last bit,
    whether one process computes all shards or each is computed elsewhere.

    Args:
        nlp: The pipeline.
        sources: The documents.
        size: Documents a shard.
        done: Documents before these, which count for where shards begin.
        batch_size: Documents a batch.
        n_process: Worker processes; several would start anew with each shard, and so take no account of them.
        model: What finds the relations.
    """
    if n_process > 1:
        yield from extract(nlp, sources, batch_size=batch_size, n_process=n_process, model=model)
        return
    sources = iter(sources)
    left = size - done % size
    while left:
        results = extract(nlp, islice(sources, left), batch_size=batch_size, model=model)
        for result in results:
            left -= 1
            yield result
        left = 0 if left else size


class _ErrorHandler:
    """Notes why documents fail, by number; worker processes get a copy whose notes stay with them."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}

    def __call__(
        self, name: str | None, component: object, docs: Iterable[Doc] | None, error: Exception
    ) -> None:
        if isinstance(error, ServiceError):
            raise error  # no document would fare better
        for doc in docs or ():
            self.errors[doc._context] = f"{name}: {type(error).__name__}: {error}"


def _set_error_handler(nlp: Language, handle: Callable) -> None:
    nlp.default_error_handler = handle
    for _, component in nlp.pipeline:
        # Not by nlp.set_error_handler: spaCy 3.8's parser takes none and would stop it.
        with suppress(AttributeError):
            component.set_error_handler(handle)  # type: ignore[attr-defined]


def _reason(nlp: Language, source: Source) -> str:
    """Why a document failed in a worker process, which cannot say: it is tried again here."""
    handle = nlp.default_error_handler
    try:
        _set_error_handler(nlp, raise_error)
        assert source.content is not None
        nlp(source.content)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        _set_error_handler(nlp, handle)
    return "failed in a worker process, but not when it was tried again alone"


def skip_done(sources: Iterable[Source], done: Iterable[str]) -> Iterator[Source]:
    """The sources that an interrupted run has not written yet; the others are read here and now.

    Raises:
        ExtractionError: The inputs are not those of that run.
    """
    remaining = iter(sources)
    for id in done:
        source = next(remaining, None)
        if source is None or source.id != id:
            found = f'"{source.id}"' if source is not None else "nothing"
            raise ExtractionError(
                f'The interrupted run had the document "{id}" where now there is {found}. Give --restart to '
                "throw its results away."
            )
    return remaining
