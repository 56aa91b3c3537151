"""The safety rules of all local pages: who may send requests, what is answered, and that nothing is logged.

A server only listens on the loopback address. Requests from other pages in the browser are refused by their origin,
their host (which protects against DNS rebinding) and their content type (forms cannot send JSON). Pages may only run
their own script.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from markupsafe import Markup

from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import stylesheet, template

HOST = "127.0.0.1"
MAX_BYTES = 200_000
"""Maximum size of a request in bytes."""
# Seconds until an idle connection is closed.
_CONNECTION_TIMEOUT = 30
# The rest of a refused request is discarded, up to this many bytes or idle seconds.
_MAX_DISCARDED = 64_000_000
_DISCARD_TIMEOUT = 2


class PageError(Exception):
    """A refused or failed request, with an HTTP status and the reason to show on the page."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class LocalServer(ThreadingHTTPServer):
    """Serves one page and its requests; `serve_forever` runs until another thread calls `shutdown`.

    Args:
        handler: Answers the requests.
        port: Port on the loopback address; 0 for any free port.
        options: Theme and title of the page, and drawing options.
        max_bytes: Maximum size of a request in bytes.

    Raises:
        ValueError: The port is not available.
    """

    daemon_threads = True
    # A second server must not share the port.
    allow_reuse_port = False

    def __init__(
        self, handler: type[LocalHandler], port: int, options: ViewOptions | None, max_bytes: int = MAX_BYTES
    ) -> None:
        try:
            super().__init__((HOST, port), handler)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Port {port} is not available ({error}). Choose another port, or 0 for any free port."
            ) from error
        self.options = options or ViewOptions()
        self.max_bytes = max_bytes
        self.address = f"http://{HOST}:{self.server_address[1]}/"


class LocalHandler(BaseHTTPRequestHandler):
    """Answers GET requests with a page, and POST requests, which send JSON, with JSON.

    Subclasses implement `page` and `answer`, which may raise PageError.
    """

    server: LocalServer
    server_version = "spacy-slmre"
    sys_version = ""
    timeout = _CONNECTION_TIMEOUT

    def page(self) -> str:
        """Return the page, usually with `render`."""
        raise NotImplementedError

    def answer(self) -> dict[str, Any]:
        """Return the answer to a request for `self.path`, which `read_json` reads."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Send the page."""
        self._respond(self._send_page)

    def do_POST(self) -> None:
        """Send an answer."""
        self._respond(lambda: self._send(HTTPStatus.OK, "application/json", json.dumps(self.answer())))

    def log_message(self, format: str, *args: Any) -> None:
        """Disable request logging for privacy."""

    def read_json(self, expected: str) -> Any:
        """Return the JSON of a request.

        Args:
            expected: Describes the expected JSON.

        Raises:
            PageError: It is not JSON, has no length, or is too long.
        """
        if self.headers.get_content_type() != "application/json":
            raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, expected)
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise PageError(HTTPStatus.LENGTH_REQUIRED, "The Content-Length header is missing.")
        if len(length) > 12 or int(length) > self.server.max_bytes:
            reason = f"The text is longer than {self.server.max_bytes} bytes."
            raise PageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise PageError(HTTPStatus.BAD_REQUEST, expected) from None

    def render(self, name: str, package: str, **values: Any) -> str:
        """Render a page's template `name`.jinja with its script `name`.js."""
        return template(f"{name}.jinja", package).render(
            title=self.server.options.title,
            theme=self.server.options.theme,
            css=stylesheet(),
            script=Markup(template(f"{name}.js", package).render()),
            nonce=self._nonce,
            **values,
        )

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

    def _send_page(self) -> None:
        if self.path != "/":
            raise PageError(HTTPStatus.NOT_FOUND, "The only page is /.")
        self._nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{self._nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(HTTPStatus.OK, "text/html", self.page(), {"Content-Security-Policy": policy})

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
