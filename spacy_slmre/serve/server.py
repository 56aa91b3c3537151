"""A local web page for trying a pipeline, which processes one text at a time.

A request sends a text and receives HTML. `spacy_slmre.serve.local` has the safety rules.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from http import HTTPStatus
from typing import Any

from spacy.language import Language

from spacy_slmre.documents import RelationDocument
from spacy_slmre.relations import RELATIONS
from spacy_slmre.serve.local import MAX_BYTES, LocalHandler, LocalServer, PageError
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.rendering import arcs_figure

MAX_WAITING = 32
"""Maximum number of texts waiting for the pipeline."""
# Seconds until the browser gets an error.
_ANSWER_TIMEOUT = 600


class LiveServer(LocalServer):
    """Serves the page and its requests.

    Args:
        nlp: The pipeline.
        port: Port on the loopback address; 0 for any free port.
        options: Drawing options.
        attr: Relations are read from `doc._.<attr>`.
        example: Initial text on the page.
        max_bytes: Maximum size of a request in bytes.

    Raises:
        ValueError: The port is not available.
    """

    def __init__(
        self,
        nlp: Language,
        port: int = 0,
        options: ViewOptions | None = None,
        *,
        attr: str = RELATIONS,
        example: str = "",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        # One worker, so that texts are processed in the order of their requests.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pipeline")
        super().__init__(_LiveHandler, port, options, max_bytes)
        self.nlp = nlp
        self.attr = attr
        self.example = example
        self._waiting = 0
        self._lock = threading.Lock()

    def find_relations(self, text: str) -> str:
        """Process a text and return its relations as HTML.

        Raises PageError if too many texts are waiting, or if the pipeline fails or takes too long.
        """
        with self._lock:
            if self._waiting >= MAX_WAITING:
                reason = f"{MAX_WAITING} texts are already waiting. Try again later."
                raise PageError(HTTPStatus.SERVICE_UNAVAILABLE, reason)
            self._waiting += 1
        future = self._worker.submit(self._run_pipeline, text)
        future.add_done_callback(self._done)
        try:
            return future.result(timeout=_ANSWER_TIMEOUT)
        except Exception as error:  # components can raise any error
            # A TimeoutError can also come from a component, but then the future is done.
            if isinstance(error, FutureTimeout) and not future.done():
                future.cancel()
                reason = f"No answer within {_ANSWER_TIMEOUT} seconds."
                raise PageError(HTTPStatus.GATEWAY_TIMEOUT, reason) from None
            reason = f"The pipeline failed on this text. {type(error).__name__}: {error}"
            raise PageError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from error

    def _run_pipeline(self, text: str) -> str:
        document = RelationDocument.from_doc(self.nlp(text), "text", self.attr)
        return arcs_figure([document], self.options)

    def _done(self, _: object) -> None:
        with self._lock:
            self._waiting -= 1

    def server_close(self) -> None:
        """Release the port and drop waiting texts."""
        super().server_close()
        self._worker.shutdown(wait=False, cancel_futures=True)


class _LiveHandler(LocalHandler):
    server: LiveServer

    def page(self) -> str:
        return self.render("live", __package__, example=self.server.example, max_bytes=self.server.max_bytes)

    def answer(self) -> dict[str, Any]:
        expected = 'Send JSON: {"text": "…"}.'
        if self.path != "/relations":
            raise PageError(HTTPStatus.NOT_FOUND, "Send texts to /relations.")
        try:
            text = self.read_json(expected)["text"]
            text.encode("utf-8")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PageError(HTTPStatus.BAD_REQUEST, expected) from None
        return {"html": self.server.find_relations(text)}
