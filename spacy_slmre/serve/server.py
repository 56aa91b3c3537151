"""A local web page to try a pipeline: on the loopback address only, one text at a time, in order.

A request names nothing that is loaded or run: it carries a text, and gets HTML. What other pages of the
browser may send is refused by its origin, its host (a name that leads here is no better than another page)
and its content type (a form of another page cannot send JSON).
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from markupsafe import Markup
from spacy.language import Language

from spacy_slmre.documents import RelationDocument
from spacy_slmre.relations import RELATIONS
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.rendering import arcs_figure, template

HOST = "127.0.0.1"
LIMIT = 200_000
"""Most bytes of a request."""
WAITING = 32
"""Most texts that wait for the pipeline."""
# Seconds after which a silent connection is closed, and a browser gets no answer any more.
_SILENCE = 30
_PATIENCE = 600
# Most bytes of a refused request that are read and thrown away, and seconds of silence that end it.
_DRAINED = 64_000_000
_LINGER = 2


class Refused(Exception):
    """A request that gets no answer but this.

    Args:
        status: The HTTP status.
        reason: What the page says.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class LiveServer(ThreadingHTTPServer):
    """Serves the page and its answers; `serve_forever` runs until `shutdown` is called in another thread.

    Args:
        nlp: The pipeline, loaded once; it reads one text at a time.
        port: The port on the loopback address; 0 takes a free one.
        options: How the relations are drawn.
        attr: Where the pipeline writes them: `doc._.<attr>`.
        example: The text that the page begins with.
        limit: Most bytes of a request.

    Raises:
        ValueError: The port is taken or may not be used.
    """

    daemon_threads = True
    # Another server on the same port is an error, not somebody who shares it.
    allow_reuse_port = False

    def __init__(
        self,
        nlp: Language,
        port: int = 0,
        options: ViewOptions | None = None,
        *,
        attr: str = RELATIONS,
        example: str = "",
        limit: int = LIMIT,
    ) -> None:
        # One worker: texts are read in the order in which they came, however many ask.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pipeline")
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Port {port} cannot be used ({error}): give another one, or 0 for any."
            ) from error
        self.nlp = nlp
        self.options = options or ViewOptions()
        self.attr = attr
        self.example = example
        self.limit = limit
        self.address = f"http://{HOST}:{self.server_address[1]}/"
        self._waiting = 0
        self._lock = threading.Lock()

    def answer(self, text: str) -> str:
        """HTML of the relations in a text, when its turn has come.

        Raises:
            Refused: Too many wait, the pipeline takes too long, or it failed on this text.
        """
        with self._lock:
            if self._waiting >= WAITING:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING} texts are waiting already: try again."
                )
            self._waiting += 1
        future = self._worker.submit(self._read, text)
        future.add_done_callback(self._done)
        try:
            return future.result(timeout=_PATIENCE)
        except Exception as error:  # whatever a component raises is told, and the next text is read
            # A component can raise a TimeoutError too: then the text has been read.
            if isinstance(error, NotYet) and not future.done():
                future.cancel()
                raise Refused(HTTPStatus.GATEWAY_TIMEOUT, f"No answer within {_PATIENCE} seconds.") from None
            reason = f"The pipeline failed on this text. {type(error).__name__}: {error}"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from error

    def _read(self, text: str) -> str:
        doc = self.nlp(text)
        document = RelationDocument.from_doc(doc, "text", self.attr)
        return arcs_figure([document], self.options)

    def _done(self, _: object) -> None:
        with self._lock:
            self._waiting -= 1

    def server_close(self) -> None:
        """Let go of the port; texts that wait get no answer."""
        super().server_close()
        self._worker.shutdown(wait=False, cancel_futures=True)


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "spacy-slmre"
    sys_version = ""
    timeout = _SILENCE

    def do_GET(self) -> None:
        self._guarded(self._page)

    def do_POST(self) -> None:
        self._guarded(self._relations)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: texts and addresses are nobody's business, and failures are told to the page."""

    def _guarded(self, respond: Callable[[], None]) -> None:
        try:
            self._check_sender()
            respond()
        except Refused as refused:
            self._refuse(refused)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the browser has left

    def _refuse(self, refused: Refused) -> None:
        # What came of the body is not used: the connection cannot be used again.
        self.close_connection = True
        try:
            self._send(refused.status, "application/json", json.dumps({"error": refused.reason}))
            # A client that is still sending reads the answer only if nothing is reset: what it sends is
            # thrown away until it stops, up to a bound.
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            until, drained = time.monotonic() + _SILENCE, 0
            while drained < _DRAINED and time.monotonic() < until:
                chunk = self.connection.recv(65_536)
                if not chunk:
                    break
                drained += len(chunk)
        except OSError:
            pass  # the browser has left, or is silent

    def _check_sender(self) -> None:
        port = self.server.server_address[1]
        names = {HOST, "localhost"}
        # Browsers leave out the port that is usual.
        hosts = {f"{name}:{port}" for name in names} | (names if port == HTTP_PORT else set())
        if self.headers.get("Host", "").lower() not in hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"This page is at {self.server.address} only.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
            raise Refused(HTTPStatus.FORBIDDEN, f"Requests of other pages ({origin}) are refused.")
        if (
            self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
            and self.command == "POST"
        ):
            raise Refused(HTTPStatus.FORBIDDEN, "Requests of other pages are refused.")

    def _page(self) -> None:
        if self.path != "/":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing but the page at /.")
        nonce = secrets.token_urlsafe(16)
        options = self.server.options
        body = template("live.jinja").render(
            title=options.title,
            theme=options.theme,
            example=self.server.example,
            css=Markup(template("style.css").render()),
            limit=self.server.limit,
            script=Markup(template("live.js").render()),
            nonce=nonce,
        )
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(HTTPStatus.OK, "text/html", body, {"Content-Security-Policy": policy})

    def _relations(self) -> None:
        if self.path != "/relations":
            raise Refused(HTTPStatus.NOT_FOUND, "Texts are sent to /relations.")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'Send JSON: {"text": "…"}.')
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "The length of the request is missing.")
        if len(length) > 12 or int(length) > self.server.limit:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The text is longer than {self.server.limit} bytes."
            )
        try:
            request = json.loads(self.rfile.read(int(length)))
            text = request["text"]
            text.encode("utf-8")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, 'Send JSON: {"text": "…"}.') from None
        self._send(HTTPStatus.OK, "application/json", json.dumps({"html": self.server.answer(text)}))

    def _send(self, status: HTTPStatus, kind: str, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
