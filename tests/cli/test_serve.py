from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from tests.conftest import TEXTS


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no_such_pipeline"], "neither an installed package nor a folder"),
        (["en", "--theme", "blue"], 'must be one of "auto", "light", "dark"'),
        (["en", "--max-texts", "0"], "serve.max_texts = 0, but it must be at least 1"),
        (["en", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY must contain the API key"),
    ],
)
def test_bad_input_gets_one_clear_error(args: list[str], message: str) -> None:
    result = CliRunner().invoke(slmre_cli, ["serve", "--port", "0", *args])
    assert result.exit_code == 1 and message in " ".join(result.output.split())


def test_port_in_use_is_reported_before_the_pipeline_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(slmre_cli, ["serve", "no_such_pipeline", "--port", str(port)])
    assert result.exit_code == 1 and f"Port {port} of 127.0.0.1 is not available" in result.output


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spacy_slmre.serve.server", raising=False)
    # None makes the import system raise ModuleNotFoundError.
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(slmre_cli, ["serve", "en"])
    assert result.exit_code == 1
    assert "slmre serve needs the package uvicorn. Install it with: pip install 'spacy-slmre[serve]'" in result.output


@contextmanager
def served(pipeline: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "spacy", "slmre", "serve", pipeline, "--port", "0"]

    def interruptible() -> None:
        # Background processes of a shell ignore this signal, and so do their children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        assert process.stderr is not None
        addresses = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in process.stderr)
        address = next(found[0] for found in addresses if found)
        try:
            yield process, address
        finally:
            process.kill()


def get(address: str, path: str = "", body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_server_answers_what_it_has_accepted(pipeline: str, signal_number: int) -> None:
    bodies = [{"texts": [f"{text} {number}" for text in TEXTS[:3]]} for number in range(12)]
    with served(pipeline) as (process, address), ThreadPoolExecutor(len(bodies)) as pool:
        assert process.stderr is not None
        assert b"Find relations" in get(address)
        answers = [pool.submit(get, address, "relations", body) for body in bodies]
        end = time.monotonic() + 20
        while b"slmre_waiting_texts 0.0" in get(address, "metrics"):
            assert time.monotonic() < end
        process.send_signal(signal_number)
        failed = []
        for answer, body in zip(answers, bodies, strict=True):
            try:
                found = json.loads(answer.result())["documents"]
            except OSError:  # it had not been accepted
                failed.append(body)
            else:
                assert [document["text"] for document in found] == body["texts"]
        assert len(failed) < len(bodies)
        assert process.stderr.read().splitlines()[-1] == "Stopped."
        assert process.wait(30) == 0
