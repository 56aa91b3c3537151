"""Who may send requests to an app with a page, and how errors are answered."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Body
from fastapi.responses import HTMLResponse

from spacy_slmre.serve.pages import make_app, page_response
from spacy_slmre.serve.server import PageServer
from spacy_slmre.visual.options import ViewOptions
from tests.serving import ask, request, serving

received: list[Any] = []


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    app = make_app(max_bytes=1000, timeout=0.5)

    @app.get("/")
    def page() -> HTMLResponse:
        values = {"example": "<b>Ann</b>", "max_bytes": 1000, "needs_key": False}
        return page_response("live", "spacy_slmre.serve", ViewOptions(), **values)

    @app.post("/echo")
    def echo(data: Any = Body()) -> Any:  # noqa: B008 (how FastAPI declares it)
        received.append(data)
        if data == "fail":
            raise RuntimeError("a secret text")
        return data

    with serving(app) as server:
        yield server


def echo(server: PageServer, body: object = "hello", **headers: str) -> tuple[int, str]:
    return ask(server, path="/echo", body=body, **headers)


def test_page_is_escaped_and_may_only_run_its_own_script(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    answer, page = request(server, "GET", "/")
    assert answer.status == 200 and "&lt;b&gt;Ann&lt;/b&gt;</textarea>" in page
    policy = answer.headers["Content-Security-Policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert nonce and f'<script nonce="{nonce}">' in page and policy.startswith("default-src 'none'")
    assert request(server, "GET", "/")[0].headers["Content-Security-Policy"] != policy
    assert answer.headers["Cache-Control"] == "no-store" and "server" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Host": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_requests_from_other_pages_are_refused(server: PageServer, headers: dict, status: int) -> None:
    before = len(received)
    found, answer = echo(server, **headers)
    assert found == status and json.loads(answer)["error"]
    assert len(received) == before


def test_requests_of_the_own_page_are_answered(server: PageServer) -> None:
    for host in ("127.0.0.1", "localhost"):
        address = f"{host}:{server.server_address[1]}"
        headers = {"Host": address, "Origin": f"http://{address}", "Sec-Fetch-Site": "same-origin"}
        assert echo(server, **headers) == (200, '"hello"')
    assert echo(server, Content_Type="application/json; charset=utf-8")[0] == 200
    assert ask(server, "GET", "/", Host="localhost")[0] == 200  # the default port is omitted


@pytest.mark.parametrize("body", [b"{", b"[" * 900, b"", b"\xff"])
def test_malformed_json_is_refused(server: PageServer, body: bytes) -> None:
    before = len(received)
    status, answer = echo(server, body=body)
    assert status in (400, 422) and json.loads(answer)["error"]
    assert len(received) == before


def test_body_above_the_limit_gets_an_error(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    for size in (1000, 5_000_000):
        status, answer = echo(server, body="x" * size)
        assert (status, json.loads(answer)) == (413, {"error": "The request is longer than 1000 bytes."})
    assert echo(server, body="x" * 998)[0] == 200
    assert capfd.readouterr().err == ""


def test_body_without_a_length_is_limited_too(server: PageServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(server.server_address, timeout=10) as client:
        client.sendall(head + b"200\r\n" + b"x" * 512 + b"\r\n200\r\n" + b"x" * 512 + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_body_that_does_not_arrive_gets_an_error(server: PageServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with socket.create_connection(server.server_address, timeout=10) as client:
        began = time.monotonic()
        client.sendall(head)
        assert client.recv(4096).startswith(b"HTTP/1.1 504 ")
        assert 0.4 < time.monotonic() - began < 5


def test_client_that_disconnects_early_causes_no_traceback(
    server: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
    for sent in (head[:50], head, head + b"x" * 100, head.replace(b"900", b"9000000") + b"x" * 100_000):
        with socket.create_connection(server.server_address) as client:
            # With this option, closing resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(sent)
    assert echo(server)[0] == 200
    assert capfd.readouterr().err == ""


def test_bug_in_the_app_is_an_error_without_its_text(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    status, answer = echo(server, body="fail")
    assert status == 500 and "RuntimeError" in answer and "secret" not in answer
    assert echo(server)[0] == 200


def test_other_paths_and_methods_are_refused(server: PageServer) -> None:
    for method, path, status in [("GET", "/../etc/passwd", 404), ("GET", "/docs", 404), ("POST", "/", 405)]:
        found, answer = ask(server, method, path)
        assert found == status and json.loads(answer)["error"]
    assert ask(server, "PUT", "/echo")[0] == 405


def test_port_in_use_raises_an_error(server: PageServer) -> None:
    with pytest.raises(ValueError, match="Choose another port"):
        PageServer(make_app(), port=server.server_address[1])
