from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import spacy
from spacy.language import Language

LABELS = ["place of birth", "employer", "sibling"]
Response = tuple[int, dict[str, str], bytes]


class ChatServer:
    """A local server with both APIs: `answer` returns texts, `script` and `always` replace responses."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.times: list[float] = []
        self.answer: Callable[[str], str] = lambda question: "place of birth"
        self.script: list[Response | None] = []
        self.always: Response | None = None
        self.delay = 0.0
        self.active = self.max_active = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with server._lock:
                    server.requests.append((self.path, headers, body))
                    server.times.append(time.monotonic())
                    server.active += 1
                    server.max_active = max(server.max_active, server.active)
                    scripted = server.script.pop(0) if server.script else server.always
                time.sleep(server.delay)
                status, headers, data = scripted or server.reply(self.path, body)
                with server._lock:
                    server.active -= 1
                try:
                    self.send_response(status)
                    for name, value in {
                        "Content-Type": "application/json",
                        **headers,
                        "Content-Length": str(len(data)),
                    }.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except ConnectionError:
                    self.close_connection = True  # the client gave up

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._http = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.address}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def reply(self, path: str, body: dict[str, Any]) -> Response:
        text = self.answer(body["messages"][-1]["content"])
        if path.endswith("/messages"):
            data: dict[str, Any] = {
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 100, "cache_read_input_tokens": 5, "output_tokens": 3},
            }
        else:
            data = {
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 3},
            }
        return 200, {"Content-Type": "application/json"}, json.dumps(data).encode()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def failure(status: int, message: str = "", kind: str = "", **headers: str) -> Response:
    error = {"error": {"message": message, "type": kind, "code": kind}}
    return (status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(error).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", "secret")
    running = ChatServer()
    yield running
    running.close()


@pytest.fixture
def make_model(server: ChatServer) -> Callable[..., dict[str, Any]]:
    """Return a function that makes the config block of a model for the local server."""

    def make(api: str = "OpenAI", **settings: Any) -> dict[str, Any]:
        return {
            "@llm_models": f"spacy-slmre.{api}.v1",
            "name": "some-model",
            "base_url": server.url,
            "api_key_env": "TEST_KEY",
            "cache": None,
            "max_retries": 2,
            "backoff": 0.01,
            "timeout": 5.0,
            **settings,
        }

    return make


@pytest.fixture
def make_nlp(blank: Callable[[], Language]) -> Callable[..., Language]:
    """Return a function that makes a pipeline with entities and an `llm` component named "relations"."""

    def make(model: dict[str, Any], with_entities: bool = True, **task: Any) -> Language:
        nlp = blank() if with_entities else spacy.blank("en")
        block = {"@llm_tasks": "spacy-slmre.RelationClassification.v1", **task}
        if "schema" not in task:
            block.setdefault("labels", LABELS)
        nlp.add_pipe("llm", name="relations", config={"task": block, "model": model})
        return nlp

    return make
