"""Run an app with uvicorn."""

from __future__ import annotations

import math
import socket
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

# Seconds that a request may take to be answered after the server was asked to stop, in addition to its own limit.
_GRACE = 5


class PageServer:
    """Serves an app; `serve_forever` runs until another thread calls `shutdown`, or until Ctrl+C or SIGTERM.

    Requests that were accepted are then still answered.

    Args:
        app: The app.
        host: Address to listen on.
        port: Port; 0 for any free one.
        timeout: Time limit of requests in seconds.

    Raises:
        ValueError: The port is not available.
    """

    def __init__(self, app: FastAPI, host: str = "127.0.0.1", port: int = 0, timeout: float = 300.0) -> None:
        self._socket = _listen(host, port)
        self.server_address: tuple[str, int] = self._socket.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        self.address = f"http://{name}:{self.server_address[1]}/"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                # For privacy, requests are not logged; only exceptions of the app are.
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=math.ceil(timeout) + _GRACE,
            )
        )

    def serve_forever(self) -> None:
        """Answer requests. Raises KeyboardInterrupt after Ctrl+C."""
        self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """Let `serve_forever` return after the requests that were accepted are answered."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()


def check_port(host: str = "127.0.0.1", port: int = 0) -> None:
    """Raise ValueError if a port is not available, so that this is reported before a pipeline is loaded."""
    _listen(host, port).close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"Port {port} of {host} is not available ({error}). Choose another port, or 0 for any free port."
        ) from error
