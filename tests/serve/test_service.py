"""The contract of the endpoints, with a tiny random model and a real server."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from spacy.language import Language

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.pipelines import ExtractionPipeline, prepare_extraction
from spacy_slmre.serve.server import PageServer
from spacy_slmre.serve.service import make_service
from spacy_slmre.serve.settings import ServiceSettings
from tests.conftest import TEXTS
from tests.serve.conftest import LABELS, Gate
from tests.serving import ask, request, serving


def find(server: PageServer, status: int = 200, **body: Any) -> Any:
    """Send a request for relations, and return the documents or the error."""
    found, answer = ask(server, body=body)
    content = json.loads(answer)
    assert found == status, content
    if found != 200:
        return content["error"]
    return [document if "error" in document else rounded(document) for document in content["documents"]]


def expected(nlp: Language, text: str, id: str = "1") -> dict[str, Any]:
    doc = nlp(text)
    doc.user_data["slmre.model"] = "en_test 1.0 slm_relations"
    return rounded(RelationDocument.from_doc(doc, id).to_dict())


def rounded(document: dict[str, Any]) -> dict[str, Any]:
    """Round scores, which depend slightly on the batch."""
    relations = [{**relation, "score": round(relation["score"], 3)} for relation in document["relations"]]
    return {**document, "relations": sorted(relations, key=str)}


def labels_of(document: dict[str, Any]) -> set[str]:
    return {relation["label"] for relation in document["relations"]}


def metric(server: PageServer, name: str) -> float:
    _, text = ask(server, "GET", "/metrics")
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_answers_have_the_form_of_extract(serve: Callable, nlp: Language) -> None:
    with serve() as server:
        assert find(server, text=TEXTS[0]) == [expected(nlp, TEXTS[0])]
        several = find(server, texts=TEXTS)
    assert several == [expected(nlp, text, str(number)) for number, text in enumerate(TEXTS, 1)]
    assert any(document["relations"] for document in several)
    assert rounded(RelationDocument.from_dict(several[0]).to_dict()) == several[0]


def test_page_and_picture(serve: Callable) -> None:
    with serve(example="Ann Lee & Bo") as server:
        status, page = ask(server, "GET", "/")
        assert status == 200 and "Ann Lee &amp; Bo</textarea>" in page and 'id="key"' not in page
        _, answer = ask(server, body={"text": f"{TEXTS[1]} <script>alert(1)</script>", "html": True})
        content = json.loads(answer)
        assert "Marie Curie" in content["html"] and "<script" not in content["html"]
        assert len(content["documents"]) == 1


def test_labels_of_a_request(serve: Callable, nlp: Language) -> None:
    with serve() as server:
        (own,) = find(server, text=TEXTS[4], labels=["rival", "friend"], threshold=0)
        (objects,) = find(server, text=TEXTS[4], labels=[{"name": "rival", "types": [["ORG", "GPE"]]}, "friend"])
        (default,) = find(server, text=TEXTS[4])
    assert labels_of(own) == {"rival", "friend"}
    rivals = [one for one in objects["relations"] if one["label"] == "rival"]
    assert all(one["head"]["type"] == "ORG" and one["tail"]["type"] == "GPE" for one in rivals)
    assert default == expected(nlp, TEXTS[4]) and labels_of(default) <= set(LABELS)


def test_threshold_of_a_request(serve: Callable, nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = nlp.get_pipe("slm_relations")
    monkeypatch.setattr(pipe, "label_thresholds", {"employer": 0.99})
    with serve() as server:
        counts = [len(find(server, text=TEXTS[4], threshold=t)[0]["relations"]) for t in (0, 0.3, 0.5, 1)]
        (employers,) = find(server, text=TEXTS[4], threshold=0)
        assert find(server, text=TEXTS[4]) == [expected(nlp, TEXTS[4])]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert min(one["score"] for one in employers["relations"] if one["label"] == "employer") < 0.99
    assert (pipe.threshold, pipe.label_thresholds) == (0.2, {"employer": 0.99})


def test_an_error_in_one_text_is_reported_in_its_place(
    serve: Callable, nlp: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nlp, "max_length", 100)
    texts = [TEXTS[0], "fail here", "late answer", "x" * 101, TEXTS[1]]
    with serve() as server:
        found = find(server, texts=texts)
        page = json.loads(ask(server, body={"text": "fail here", "html": True})[1])
        assert metric(server, 'slmre_texts_total{outcome="failed"}') == 4
    assert [document["id"] for document in found] == ["1", "2", "3", "4", "5"]
    assert found[1] == {"id": "2", "error": "RuntimeError: cannot <b>read</b> this"}
    assert found[2]["error"] == "TimeoutError: the knowledge base was silent"
    assert "nlp.max_length" in found[3]["error"]
    assert found[0] == expected(nlp, TEXTS[0]) and found[4] == expected(nlp, TEXTS[1], "5")
    assert "cannot &lt;b&gt;read" in page["html"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not valid JSON"),
        ({}, 422, 'Send either "text" or "texts"'),
        ({"text": "a", "texts": ["b"]}, 422, 'Send either "text" or "texts"'),
        ({"texts": []}, 422, 'Send either "text" or "texts"'),
        ([], 422, "valid dictionary"),
        ({"text": 3}, 422, "text: "),
        ({"texts": ["a", None]}, 422, "texts.1: "),
        (b'{"text": "\\ud800"}', 422, "unpaired surrogate"),
        (b'{"text": "a", "labels": ["\\ud800"]}', 422, "unpaired surrogate"),
        ({"text": "a", "pipeline": "os.system"}, 422, "pipeline: "),
        ({"texts": ["a"] * 9}, 422, "texts: 9 texts, but at most 8 are allowed."),
        ({"text": "a", "threshold": 1.5}, 422, "threshold: "),
        ({"text": "a", "threshold": "0.5"}, 422, "threshold: "),
        (b'{"text": "a", "threshold": NaN}', 422, "threshold: "),
        ({"text": "a", "labels": []}, 422, "labels: "),
        ({"text": "a", "labels": "/etc/passwd"}, 422, "labels: "),
        ({"text": "a", "labels": [3]}, 422, "labels.0"),
        ({"text": "a", "labels": ["x", "x"]}, 422, "labels: Labels must be unique"),
        ({"text": "a", "labels": [{"name": "x", "colour": 1}]}, 422, "labels: Unknown keys in the label"),
        ({"text": "a", "labels": [{"name": "x", "types": "PER"}]}, 422, 'labels: "types" of the label "x"'),
    ],
)
def test_invalid_requests_get_one_clear_error(
    serve: Callable, gate: Gate, body: object, status: int, message: str
) -> None:
    with serve(max_texts=8) as server:
        found, answer = ask(server, body=body)
    content = json.loads(answer)
    assert found == status and content.keys() == {"error"} and message in content["error"], content
    assert not gate.texts


def test_bad_labels_do_not_affect_requests_in_the_same_batch(serve: Callable, gate: Gate) -> None:
    with serve() as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(find, server, text="wait")
        assert gate.entered.acquire(timeout=10)
        bad = pool.submit(find, server, 422, text="a", labels=[{"name": "x", "types": "PER"}])
        good = pool.submit(find, server, text=TEXTS[4])
        until(lambda: metric(server, "slmre_waiting_texts") == 3)
        gate.opened.set()
        assert first.result() and '"types" of the label "x"' in bad.result() and good.result()[0]["relations"]


def test_component_without_labels_by_request(nlp: Language, gate: Gate) -> None:
    with serving(make_service(ExtractionPipeline(nlp, "test_gate", "relations"))) as server:
        assert find(server, text="Ann")[0]["text"] == "Ann"
        assert "fixed labels" in find(server, 422, text="Ann", labels=["x"])
        assert "fixed labels" in find(server, 422, text="Ann", threshold=0.5)


def test_labels_health_and_openapi(serve: Callable, nlp: Language) -> None:
    with serve() as server:
        labels = json.loads(ask(server, "GET", "/labels")[1])
        assert [label["name"] for label in labels["labels"]] == LABELS
        assert labels["negative_label"] is None and labels["threshold"] == 0.2 and labels["label_thresholds"] == {}
        health = json.loads(ask(server, "GET", "/health")[1])
        assert health == {"status": "ok", "model": "en_test 1.0 slm_relations", "waiting": 0}
        schema = json.loads(ask(server, "GET", "/openapi.json")[1])
    assert set(schema["paths"]) == {"/relations", "/labels", "/health", "/metrics"}
    fields = schema["components"]["schemas"]["RelationsRequest"]["properties"]
    assert set(fields) == {"text", "texts", "labels", "threshold", "html"}


def test_metrics_count_requests_and_texts(serve: Callable) -> None:
    with serve() as server:
        relations = sum(len(document["relations"]) for document in find(server, texts=TEXTS))
        find(server, 422)
        assert metric(server, 'slmre_requests_total{status="200"}') == 1
        assert metric(server, 'slmre_requests_total{status="422"}') == 1
        assert metric(server, "slmre_request_seconds_count") == 2
        assert metric(server, 'slmre_texts_total{outcome="ok"}') == len(TEXTS)
        assert metric(server, "slmre_relations_total") == relations > 0
        assert metric(server, "slmre_batch_texts_sum") == len(TEXTS)
        assert metric(server, "process_resident_memory_bytes") > 1e6


def test_concurrent_requests_get_their_own_answers(serve: Callable, nlp: Language) -> None:
    texts = [f"Ann Lee number {number} met Bo Lee in Rome." for number in range(24)]
    sent = [
        {"text": text, "labels": [f"label {number % 3}", "friend"] if number % 2 else None, "threshold": 0.1}
        for number, text in enumerate(texts)
    ]
    with serve() as server, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda body: find(server, **body), sent))
    for number, ((document,), body) in enumerate(zip(answers, sent, strict=True)):
        assert document["text"] == texts[number] and document["id"] == "1" and document["relations"]
        assert labels_of(document) <= set(body["labels"] or LABELS)


def test_waiting_requests_are_processed_together(serve: Callable, gate: Gate) -> None:
    with serve(batch_size=4) as server, ThreadPoolExecutor(9) as pool:
        first = pool.submit(find, server, text="wait")
        assert gate.entered.acquire(timeout=10)
        others = [pool.submit(find, server, text="Ann Lee", threshold=0.5 if n < 6 else None) for n in range(8)]
        until(lambda: metric(server, "slmre_waiting_texts") == 9)
        gate.opened.set()
        assert first.result() and all(one.result() for one in others)
        # 1, then 4 and 2 with one threshold, and 2 without.
        assert metric(server, "slmre_batch_texts_count") == 4
        assert metric(server, "slmre_batch_texts_sum") == 9


def test_full_queue_refuses_requests(serve: Callable, gate: Gate) -> None:
    with serve(max_waiting=3, max_texts=3) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(find, server, text="wait")
        assert gate.entered.acquire(timeout=10)
        second = pool.submit(find, server, text="b")
        until(lambda: metric(server, "slmre_waiting_texts") == 2)
        answer, content = request(server, body={"texts": ["c", "d"]})
        assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
        assert "2 texts are already waiting" in json.loads(content)["error"]
        gate.opened.set()
        assert first.result() and second.result()
        assert len(find(server, texts=["c", "d", "e"])) == 3
    assert gate.texts == ["wait", "b", "c", "d", "e"]


def test_time_limit(serve: Callable, gate: Gate) -> None:
    with serve(timeout=0.3) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(find, server, 504, text="wait")
        assert gate.entered.acquire(timeout=10)
        assert find(server, 504, text="never") == first.result() == "No answer within 0.3 seconds."
        assert metric(server, "slmre_waiting_texts") == 1  # the other one was dropped
        gate.opened.set()
        until(lambda: metric(server, "slmre_waiting_texts") == 0)
        assert find(server, text="next")[0]["text"] == "next"
    assert gate.texts == ["wait", "next"]


def test_requests_of_clients_that_disconnect_are_dropped(
    serve: Callable, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    def send(text: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*server.server_address, timeout=10)
        connection.request("POST", "/relations", json.dumps({"text": text}), {"Content-Type": "application/json"})
        return connection

    with serve() as server:
        running = send("wait")
        assert gate.entered.acquire(timeout=10)
        waiting, kept = send("gone"), send("kept")
        until(lambda: metric(server, "slmre_waiting_texts") == 3)
        running.close()
        waiting.close()
        until(lambda: metric(server, "slmre_waiting_texts") == 2)
        gate.opened.set()
        assert kept.getresponse().status == 200
        kept.close()
    assert gate.texts == ["wait", "kept"]
    assert capfd.readouterr().err == ""


def test_api_key(serve: Callable, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", " s3cret\n")
    with serve(api_key_env="TEST_KEY") as server:
        body = {"text": "Ann"}
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            answer, content = request(server, body=body, **wrong)
            assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
            assert "API key" in json.loads(content)["error"] and "s3cret" not in content
        for path in ("/labels", "/metrics"):
            assert ask(server, "GET", path)[0] == 401
            assert ask(server, "GET", path, Authorization="Bearer s3cret")[0] == 200
        assert not gate.texts
        assert ask(server, body=body, Authorization="Bearer s3cret")[0] == 200
        assert ask(server, "GET", "/health")[0] == 200
        assert 'id="key"' in ask(server, "GET", "/")[1]


@pytest.mark.parametrize("key", ["", "  ", "kéy", "two words"])
def test_unusable_api_key_is_an_error(key: str, monkeypatch: pytest.MonkeyPatch, nlp: Language) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(ValueError, match="TEST_KEY must contain the API key"):
        make_service(prepare_extraction(nlp), ServiceSettings(api_key_env="TEST_KEY"))


def test_allowed_hosts(serve: Callable) -> None:
    with serve(allowed_hosts=("Slmre.Example",)) as server:
        assert ask(server, "GET", "/health", Host="slmre.example:80")[0] == 200
        assert ask(server, "GET", "/health", Host="localhost")[0] == 200
        assert ask(server, "GET", "/health", Host="other.example")[0] == 403
        assert ask(server, body={"text": "a"}, Host="slmre.example", Origin="https://slmre.example")[0] == 200
        assert ask(server, body={"text": "a"}, Host="slmre.example", Origin="https://other.example")[0] == 403
    with serve(allowed_hosts=("*",)) as server:
        assert ask(server, "GET", "/health", Host="other.example")[0] == 200
        assert ask(server, body={"text": "a"}, Host="a.example", Origin="https://b.example")[0] == 403


def test_size_limit(serve: Callable, gate: Gate) -> None:
    with serve(max_bytes=100) as server:
        assert find(server, 413, text="x" * 100) == "The request is longer than 100 bytes."
        assert find(server, text="x" * 50)
    assert gate.texts == ["x" * 50]


def test_accepted_requests_are_answered_at_shutdown(serve: Callable, gate: Gate) -> None:
    with ThreadPoolExecutor(4) as pool, serve() as server:
        answers = [pool.submit(find, server, text="wait")]
        assert gate.entered.acquire(timeout=10)
        answers += [pool.submit(find, server, text=text) for text in ("a", "b")]
        until(lambda: metric(server, "slmre_waiting_texts") == 3)
        server.shutdown()
        threading.Timer(0.5, gate.opened.set).start()
        assert sorted(one.result()[0]["text"] for one in answers) == ["a", "b", "wait"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_texts": 0}, "serve.max_texts = 0, but it must be at least 1."),
        ({"max_texts": 10, "max_waiting": 9}, "serve.max_waiting = 9, but it must be at least 10."),
        ({"timeout": 0}, "serve.timeout = 0"),
        ({"timeout": float("nan")}, "serve.timeout = nan"),
        ({"host": ""}, "serve.host is empty"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServiceSettings(**settings)


def test_strings_of_texts_do_not_accumulate(serve: Callable, nlp: Language) -> None:
    with serve() as server:
        find(server, text="warm up")
        before = len(nlp.vocab.strings)
        for number in range(20):
            find(server, text=f"strange{number} words{number * 7}")
        assert len(nlp.vocab.strings) == before
