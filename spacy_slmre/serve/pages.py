"""The common part of all apps with a page: who may send requests, what is sent with an answer, and pages themselves.

Requests from other pages in the browser are refused by their host (which protects against DNS rebinding), their origin
and their content type (forms cannot send JSON). Pages may only run their own script.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from markupsafe import Markup
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spacy_slmre.serve.settings import LOCAL_HOSTS
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import stylesheet, template

Observer = Callable[[str, int, float], None]
"""Called with the path of a request, the status of its answer, and the seconds between."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(
    *,
    hosts: Collection[str] = LOCAL_HOSTS,
    max_bytes: int = 200_000,
    timeout: float = 300.0,
    observe: Observer = lambda path, status, seconds: None,
    **options: Any,
) -> FastAPI:
    """Make an app that answers errors as {"error": "…"}.

    Args:
        hosts: Names in the Host header that are allowed, in lower case; "*" allows all.
        max_bytes: Maximum size of a request in bytes.
        timeout: Seconds until a request gets an error.
        observe: Called after each answer.
        options: Options of FastAPI.
    """
    # FastAPI's pages of documentation load their scripts from other hosts.
    app = FastAPI(docs_url=None, redoc_url=None, **options)
    app.add_middleware(RequestRules, hosts=hosts, max_bytes=max_bytes, timeout=timeout, observe=observe)
    app.add_exception_handler(StarletteHTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_bug)
    return app


def page_response(name: str, package: str, options: ViewOptions, **values: Any) -> HTMLResponse:
    """Render a page's template `name`.jinja with its script `name`.js."""
    nonce = secrets.token_urlsafe(16)
    html = template(f"{name}.jinja", package).render(
        title=options.title,
        theme=options.theme,
        css=stylesheet(),
        script=Markup(template(f"{name}.js", package).render()),
        nonce=nonce,
        **values,
    )
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})


class RequestRules:
    """ASGI middleware that refuses requests from other pages, and those that are too long or take too long."""

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], max_bytes: int, timeout: float, observe: Observer
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, n_bytes, began = 0, 0, time.monotonic()

        async def receive_limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                raise HTTPException(413, f"The request is longer than {self.max_bytes} bytes.")
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
                self.observe(scope["path"], status, time.monotonic() - began)
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
            async with asyncio.timeout(self.timeout):
                await self.app(scope, receive_limited, send_with_headers)
        except HTTPException as error:
            await _error(error.status_code, error.detail)(scope, receive, send_with_headers)
        except TimeoutError:
            if status:
                raise  # the answer has begun
            reason = f"No answer within {self.timeout:g} seconds."
            await _error(504, reason)(scope, receive, send_with_headers)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("Host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in self.hosts and "*" not in self.hosts:
            raise HTTPException(403, f'Requests to the host "{name}" are refused.')
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
        is_foreign = origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}")
        if is_foreign or (method == "POST" and site not in ("none", "same-origin")):
            raise HTTPException(403, "Requests from other pages are refused.")
        if method == "POST" and headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, 'Send JSON, with the header "Content-Type: application/json".')


def _error(status: int, reason: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


async def _answer_error(request: Request, error: Any) -> JSONResponse:
    return _error(error.status_code, error.detail, error.headers)


async def _answer_invalid(request: Request, error: Any) -> JSONResponse:
    """Name the first problem of a request, without repeating its texts."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(400, f"The request is not valid JSON: {first['ctx']['error']}.")
    place = ".".join(str(part) for part in first["loc"][1:])
    message = first["msg"].removeprefix("Value error, ")
    return _error(422, f"{place}: {message}" if place else message)


async def _answer_bug(request: Request, error: Exception) -> JSONResponse:
    return _error(500, f"Internal error ({type(error).__name__}). See the output of the server.")
