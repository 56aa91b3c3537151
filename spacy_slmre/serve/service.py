"""The HTTP service of a pipeline: relations of texts as JSON, and a page to try it.

GET  /           the page
POST /relations  {"text": "…"} or {"texts": ["…", …]}, optionally labels and a threshold  →  {"documents": [{…}, …]}
GET  /labels     the labels of the pipeline
GET  /health     whether the service answers, and how many texts are waiting
GET  /metrics    numbers and times of requests and texts, in the format of Prometheus
GET  /openapi.json
"""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spacy_slmre import documents
from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.pipelines import ExtractionPipeline
from spacy_slmre.serve.metrics import ServiceMetrics
from spacy_slmre.serve.pages import make_app, page_response
from spacy_slmre.serve.settings import ServiceSettings
from spacy_slmre.serve.worker import PipelineWorker, QueueFullError
from spacy_slmre.util.errors import ServiceError
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.rendering import arcs_figure

_BEARER = HTTPBearer(auto_error=False, description="Only if the service was started with an API key.")


class RelationsRequest(BaseModel):
    """One text or several, and how to label their relations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = Field(None, description="One text.")
    texts: list[str] = Field([], description="Several texts, instead of one.")
    labels: list[str | dict[str, Any]] | None = Field(
        None,
        min_length=1,
        description='Labels instead of those of the pipeline: names, or objects with a "name" and optionally '
        '"wording", "definition", "types", "symmetric", "inverse", "max_per_head" and "max_per_tail".',
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Minimum probability of a relation, instead of all thresholds of the pipeline.",
    )
    html: bool = Field(False, description="Also draw the relations.")

    @model_validator(mode="before")
    @classmethod
    def _check_characters(cls, data: Any) -> Any:
        try:
            json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("The request has an unpaired surrogate, which is not a valid character.") from None
        return data

    @model_validator(mode="after")
    def _check_texts(self) -> RelationsRequest:
        if (self.text is None) != bool(self.texts):
            raise ValueError('Send either "text" or "texts", which must not be empty.')
        return self


class RelationsResponse(BaseModel):
    """The documents of a request."""

    documents: list[dict[str, Any]] = Field(
        description="One document for each text, in order; the ids are the numbers of the texts. "
        + inspect.cleandoc(documents.__doc__ or "")
    )
    html: str | None = Field(None, description="The picture, if it was asked for.")


class Health(BaseModel):
    """State of the service."""

    status: str
    model: str | None
    waiting: int = Field(description="Number of texts that wait or are processed.")


class ErrorResponse(BaseModel):
    """Why a request failed."""

    error: str


def make_service(
    pipeline: ExtractionPipeline,
    settings: ServiceSettings | None = None,
    *,
    options: ViewOptions | None = None,
    example: str = "",
) -> FastAPI:
    """Make the app that serves a pipeline.

    Args:
        pipeline: The pipeline, with loaded weights.
        settings: Limits, allowed hosts and API key.
        options: Drawing options.
        example: Initial text on the page.

    Raises:
        ValueError: The API key is missing.
    """
    settings, options = settings or ServiceSettings(), options or ViewOptions()
    api_key = settings.read_api_key()
    metrics = ServiceMetrics()
    worker = PipelineWorker(
        pipeline, max_waiting=settings.max_waiting, batch_size=settings.batch_size, on_batch=metrics.count_batch
    )
    metrics.waiting.set_function(lambda: worker.n_waiting)

    @asynccontextmanager
    async def run_worker(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(worker.run())
        yield
        task.cancel()  # all requests are answered
        with suppress(asyncio.CancelledError):
            await task

    def check_key(sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> None:
        given = sent.credentials if sent else ""
        if api_key is not None and not secrets.compare_digest(given.encode(), api_key.encode()):
            reason = 'Send the API key of this service, as the header "Authorization: Bearer KEY".'
            raise HTTPException(401, reason, {"WWW-Authenticate": "Bearer"})

    app = make_app(
        hosts=settings.known_hosts,
        max_bytes=settings.max_bytes,
        timeout=settings.timeout,
        observe=metrics.count_request,
        title="spacy-slmre",
        description="Relations between the entities of texts.",
        lifespan=run_worker,
    )
    protected: dict[str, Any] = {"dependencies": [Depends(check_key)], "responses": {401: {"model": ErrorResponse}}}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        values = {"example": example, "max_bytes": settings.max_bytes, "needs_key": api_key is not None}
        return page_response("live", __package__, options, **values)

    @app.post(
        "/relations",
        response_model=RelationsResponse,
        dependencies=protected["dependencies"],
        responses={status: {"model": ErrorResponse} for status in (400, 401, 403, 413, 415, 422, 429, 503, 504)},
    )
    async def find_relations(data: RelationsRequest, request: Request) -> Response:
        """Find the relations of texts. An error in one text is reported in its place."""
        texts = data.texts if data.text is None else [data.text]
        if len(texts) > settings.max_texts:
            raise HTTPException(422, f"texts: {len(texts)} texts, but at most {settings.max_texts} are allowed.")
        try:
            answer = worker.submit(texts, data.labels, data.threshold)
            await _wait_unless_disconnected(answer, request)
            if answer.cancelled():
                return Response(status_code=499)  # nobody reads it
            found = answer.result()
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from error
        except ServiceError as error:
            raise HTTPException(503, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        content: dict[str, Any] = {"documents": [document.to_dict() for document in found]}
        if data.html:
            content["html"] = await run_in_threadpool(arcs_figure, found, options)
        return JSONResponse(content)

    # Read once, because a request with a threshold replaces those of the component for a while.
    decoding = pipeline.pipe.decoding if pipeline.can_change else None

    @app.get("/labels", **protected)
    def labels() -> dict[str, Any]:
        """Return the labels of the pipeline and its thresholds."""
        if decoding is None:
            return pipeline.make_schema().to_dict()
        thresholds = {"threshold": decoding.threshold, "label_thresholds": dict(decoding.label_thresholds)}
        return {**pipeline.make_schema().to_dict(), **thresholds}

    @app.get("/health")
    async def health() -> Health:
        """Tell that the service answers."""
        return Health(status="ok", model=pipeline.model_name, waiting=worker.n_waiting)

    @app.get("/metrics", **protected)
    async def get_metrics() -> Response:
        """Return metrics in the format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _wait_unless_disconnected(answer: asyncio.Future[list[RelationDocument]], request: Request) -> None:
    """Wait for an answer; it is canceled if the client disconnects or its time is over."""
    disconnected = asyncio.ensure_future(request.receive())
    waiting: set[asyncio.Future[Any]] = {answer, disconnected}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        disconnected.cancel()
        answer.cancel()  # without effect on a finished one
