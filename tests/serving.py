"""Serve apps on a free port, and send requests to them."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from spacy_slmre.serve.server import PageServer


@contextmanager
def serving(app: FastAPI) -> Iterator[PageServer]:
    with PageServer(app) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(30)
        assert not thread.is_alive()


def request(
    server: PageServer, method: str = "POST", path: str = "/relations", body: object = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data if method == "POST" else None, sent)
    answer = connection.getresponse()
    try:
        return answer, answer.read().decode()
    finally:
        connection.close()


def ask(
    server: PageServer, method: str = "POST", path: str = "/relations", body: object = None, **headers: str
) -> tuple[int, str]:
    answer, content = request(server, method, path, body, **headers)
    return answer.status, content
