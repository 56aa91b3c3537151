"""A local web page for trying a pipeline, which processes one text at a time.

The server only listens on the loopback address; a request sends a text and receives HTML. Requests from other pages in
the browser are refused by their origin, their host (which protects against DNS rebinding) and their content type (forms
cannot send JSON).
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from markupsafe import Markup
from spacy.language import Language

from spacy_slmre.documents import RelationDocument
from spacy_slmre.relations import RELATIONS
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import stylesheet, template
from spacy_slmre.visual.rendering import arcs_figure

HOST = "127.0.0.1"
MAX_BYTES = 200_000
"""Maximum size of a request in bytes."""
MAX_WAITING = 32
"""Maximum number of texts waiting for the pipeline."""
# Seconds until an idle connection is closed, and until the browser gets an error.
_CONNECTION_TIMEOUT = 30
_ANSWER_TIMEOUT = 600
# The rest of a refused request is discarded, up to this many bytes or idle seconds.
_MAX_DISCARDED = 64_000_000
_DISCARD_TIMEOUT = 2


class PageError(Exception):
    """A refused or failed request, with an HTTP status and the reason to show on the page."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class LiveServer(ThreadingHTTPServer):
    """Serves the page and its requests; `serve_forever` runs until another thread calls `shutdown`.

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

    daemon_threads = True
    # A second server must not share the port.
    allow_reuse_port = False

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
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Port {port} is not available ({error}). Choose another port, or 0 for any free port."
            ) from error
        self.nlp = nlp
        self.options = options or ViewOptions()
        self.attr = attr
        self.example = example
        self.max_bytes = max_bytes
        self.address = f"http://{HOST}:{self.server_address[1]}/"
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


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "spacy-slmre"
    sys_version = ""
    timeout = _CONNECTION_TIMEOUT

    def do_GET(self) -> None:
        self._respond(self._page)

    def do_POST(self) -> None:
        self._respond(self._relations)

    def log_message(self, format: str, *args: Any) -> None:
        """Disable request logging for privacy."""

    def _respond(self, respond: Callable[[], None]) -> None:
        try:
            self._check_sender()
            respond()
        except PageError as error:
            self._refuse(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client has disconnected

    def _refuse(self, error: PageError) -> None:
        # The connection cannot be reused, because the body may be unread.
        self.close_connection = True
        try:
            self._send(error.status, "application/json", json.dumps({"error": error.reason}))
            # A client that is still sending only reads the response if the connection is not reset, so its data is
            # discarded for a while.
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DISCARD_TIMEOUT)
            until, discarded = time.monotonic() + _CONNECTION_TIMEOUT, 0
            while discarded < _MAX_DISCARDED and time.monotonic() < until:
                chunk = self.connection.recv(65_536)
                if not chunk:
                    break
                discarded += len(chunk)
        except OSError:
            pass  # the client has disconnected or is idle

    def _check_sender(self) -> None:
        port = self.server.server_address[1]
        names = {HOST, "localhost"}
        # Browsers omit the default port.
        hosts = {f"{name}:{port}" for name in names} | (names if port == HTTP_PORT else set())
        if self.headers.get("Host", "").lower() not in hosts:
            raise PageError(HTTPStatus.FORBIDDEN, f"This page is only available at {self.server.address}")
        origin = self.headers.get("Origin")
        foreign = origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}
        site = self.headers.get("Sec-Fetch-Site", "none")
        if foreign or (self.command == "POST" and site not in ("none", "same-origin")):
            raise PageError(HTTPStatus.FORBIDDEN, "Requests from other pages are refused.")

    def _page(self) -> None:
        if self.path != "/":
            raise PageError(HTTPStatus.NOT_FOUND, "The only page is /.")
        nonce = secrets.token_urlsafe(16)
        body = template("live.jinja", "spacy_slmre.serve").render(
            title=self.server.options.title,
            theme=self.server.options.theme,
            example=self.server.example,
            max_bytes=self.server.max_bytes,
            css=stylesheet(),
            script=Markup(template("live.js", "spacy_slmre.serve").render()),
            nonce=nonce,
        )
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(HTTPStatus.OK, "text/html", body, {"Content-Security-Policy": policy})

    def _relations(self) -> None:
        expected = 'Send JSON: {"text": "…"}.'
        if self.path != "/relations":
            raise PageError(HTTPStatus.NOT_FOUND, "Send texts to /relations.")
        if self.headers.get_content_type() != "application/json":
            raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, expected)
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise PageError(HTTPStatus.LENGTH_REQUIRED, "The Content-Length header is missing.")
        if len(length) > 12 or int(length) > self.server.max_bytes:
            reason = f"The text is longer than {self.server.max_bytes} bytes."
            raise PageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        try:
            text = json.loads(self.rfile.read(int(length)))["text"]
            text.encode("utf-8")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PageError(HTTPStatus.BAD_REQUEST, expected) from None
        self._send(HTTPStatus.OK, "application/json", json.dumps({"html": self.server.find_relations(text)}))

    def _send(self, status: HTTPStatus, kind: str, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode("utf-8")
        self.send_response(status)
        sent = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in (sent | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
