from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_slmre.relations import install_extensions
from spacy_slmre.serve.local import LocalServer
from spacy_slmre.serve.server import LiveServer


class Meeting:
    """Relates the first two words of a text; records texts, and whether two are processed at once."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.at_once = 0
        self._now = 0

    def __call__(self, doc: Doc) -> Doc:
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        time.sleep(0.05)
        self.read.append(doc.text)
        self._now -= 1
        if doc.text.startswith("late"):
            raise TimeoutError("the knowledge base was silent")
        if doc.text.startswith("fail"):
            raise RuntimeError("cannot <b>read</b> this")
        if len(doc) > 1:
            doc.set_ents([Span(doc, i, i + 1, "PER") for i in (0, 1)])
            doc._.relations = [(doc.ents[0], doc.ents[1], "met", 0.5)]
        return doc


@pytest.fixture(scope="module")
def meeting() -> Meeting:
    install_extensions()
    return Meeting()


@pytest.fixture(scope="module")
def server(meeting: Meeting) -> Iterator[LiveServer]:
    nlp = spacy.blank("en")
    Language.component("test_meeting", func=meeting)
    nlp.add_pipe("test_meeting")
    with LiveServer(nlp, example="Ann Bo", max_bytes=1000) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def ask(
    server: LocalServer, method: str = "POST", path: str = "/relations", body: object = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data if method == "POST" else None, sent)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_page_and_relations_are_served(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, page = ask(server, "GET", "/")
    assert status == 200 and "Ann Bo</textarea>" in page and "<script nonce=" in page
    status, answer = ask(server, body={"text": "Ann Bo"})
    assert status == 200 and "Ann – met – Bo, score 0.50" in json.loads(answer)["html"]
    status, answer = ask(server, body={"text": "<script>alert(1)</script> b"})
    assert status == 200 and "<script" not in json.loads(answer)["html"]


def test_failure_is_reported_and_the_next_text_is_processed(server: LiveServer) -> None:
    status, answer = ask(server, body={"text": "fail here"})
    assert status == 422 and "RuntimeError: cannot <b>read</b> this" in json.loads(answer)["error"]
    assert ask(server, body={"text": "Ann Bo"})[0] == 200
    assert ask(server, body={"text": ""})[0] == 200


def test_simultaneous_requests_are_processed_one_by_one(server: LiveServer, meeting: Meeting) -> None:
    texts = [f"Ann{number} Bo" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: ask(server, body={"text": text}), texts))
    for text, (status, answer) in zip(texts, answers, strict=True):
        assert status == 200 and text.split()[0] in json.loads(answer)["html"]
    assert meeting.at_once == 1 and set(texts) <= set(meeting.read)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_requests_from_other_pages_are_refused(
    server: LiveServer, meeting: Meeting, headers: dict, status: int
) -> None:
    before = len(meeting.read)
    assert ask(server, body={"text": "Ann Bo"}, **headers)[0] == status
    assert len(meeting.read) == before
    port = server.server_address[1]
    assert ask(server, body={"text": "Ann Bo"}, Origin=f"http://localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "x" * 2000}, 413),
        (b"{", 400),
        (b"[" * 900, 400),
        ({"text": 3}, 400),
        ({"pipeline": "os.system"}, 400),
        (b'{"text": "\\ud800"}', 400),
    ],
)
def test_malformed_bodies_are_refused(server: LiveServer, body: object, status: int) -> None:
    found, answer = ask(server, body=body)
    assert found == status and json.loads(answer)["error"]


def test_text_far_above_the_limit_gets_an_error(server: LiveServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        status, answer = ask(server, body={"text": "x" * 5_000_000})
        assert status == 413 and "longer than 1000 bytes" in json.loads(answer)["error"]
    assert ask(server, body={"text": "Ann Bo"})[0] == 200
    assert capfd.readouterr().err == ""


def test_client_that_disconnects_early_causes_no_traceback(
    server: LiveServer, capfd: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /relations HTTP/1.1\r\nHost: example.org\r\nContent-Length: 9000000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(server.server_address) as client:
            # With this option, closing resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(head + b"x" * 100_000)
    assert ask(server, body={"text": "Ann Bo"})[0] == 200
    assert capfd.readouterr().err == ""


def test_timeout_in_a_component_is_a_failure_of_the_pipeline(server: LiveServer) -> None:
    status, answer = ask(server, body={"text": "late answer"})
    assert status == 422 and "TimeoutError: the knowledge base was silent" in json.loads(answer)["error"]


@pytest.mark.parametrize(("port", "status"), [(80, 200), (5055, 403)])
def test_default_port_may_be_omitted(
    server: LiveServer, port: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.server_address
    monkeypatch.setattr(server, "server_address", (address[0], port))
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", "/", headers={"Host": "localhost"})
    assert connection.getresponse().status == status
    connection.close()


def test_other_paths_and_methods_are_refused(server: LiveServer) -> None:
    assert ask(server, "GET", "/../etc/passwd")[0] == 404
    assert ask(server, "POST", "/")[0] == 404
    assert ask(server, "PUT", "/relations")[0] == 501
    assert ask(server, "OPTIONS", "/relations")[0] == 501


def test_port_in_use_raises_an_error(server: LiveServer) -> None:
    with pytest.raises(ValueError, match="Choose another port"):
        LiveServer(spacy.blank("en"), server.server_address[1])
