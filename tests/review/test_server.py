from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spacy_slmre.review.session import ReviewSession
from spacy_slmre.serve.server import PageServer
from tests.serving import ask

PROBABILITIES = {
    ("Ann", "Acme"): {"employer": 0.55, "no_relation": 0.45},
    ("Bo", "Acme"): {"no_relation": 0.6, "employer": 0.4},
    ("Cy", "img"): {"<b>bold</b>": 0.95},
}


def post(server: PageServer, path: str, **data: Any) -> dict[str, Any]:
    status, answer = ask(server, path=path, body=data)
    assert status == 200, answer
    return json.loads(answer)


def test_pairs_are_shown_drawn_and_decided(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, page = ask(server, "GET", "/")
    assert status == 200 and "<script nonce=" in page and "Ann" not in page
    first = post(server, "/item")
    assert first["item"] == 0 and (first["decided"], first["total"]) == (0, 3)
    assert first["labels"] == ["employer"] and first["is_predicted"] and first["decision"] is None
    # Without a score, which labels that are not among the most probable ones do not have.
    assert "Ann – employer – Acme &amp; Sons" in first["html"] and "score 0.55" not in first["html"]
    assert "Cy" not in first["html"]  # another sentence
    turned = post(server, "/draw", item=0, labels=["spouse"], reversed=True)["html"]
    assert "Acme &amp; Sons – spouse – Ann" in turned and "score 1.00" not in turned
    second = post(server, "/decide", item=0, action="accept", labels=["spouse"], reversed=True)
    assert second["item"] == 1 and second["decided"] == 1 and not second["is_predicted"]
    again = post(server, "/item", item=0)
    assert again["decision"] == "accept" and again["labels"] == ["spouse"] and again["reversed"]
    post(server, "/decide", item=1, action="reject")
    last = post(server, "/decide", item=2, action="reject")
    assert last == {"item": None, "decided": 3, "total": 3}


def test_texts_never_become_markup(server: PageServer) -> None:
    html = post(server, "/item", item=2)["html"]
    assert "&lt;b&gt;bold&lt;/b&gt;" in html and "<b>" not in html and "<img" not in html


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/decide", b"{", 400, "not valid JSON"),
        ("/decide", b"[" * 900, 400, "not valid JSON"),
        ("/decide", [], 400, "A decision is an object"),
        ("/decide", {"item": 3, "action": "reject"}, 400, "no pair with the number 3; the last one is 2"),
        ("/decide", {"item": -1, "action": "reject"}, 400, "no pair with the number -1"),
        ("/decide", {"item": True, "action": "reject"}, 400, "no pair with the number True"),
        ("/decide", {"item": "0", "action": "reject"}, 400, "no pair with the number '0'"),
        ("/decide", {"action": "reject"}, 400, "no pair with the number None"),
        ("/decide", {"item": 0, "action": "delete"}, 400, '"action" is one of accept, reject, skip'),
        ("/decide", {"item": 0}, 400, '"action" is one of'),
        ("/decide", {"item": 0, "action": "accept"}, 400, "at least one"),
        ("/decide", {"item": 0, "action": "accept", "labels": "employer"}, 400, '"labels" is a list'),
        ("/decide", {"item": 0, "action": "accept", "labels": ["\ud800"]}, 400, "names of labels, not"),
        ("/decide", {"item": 0, "action": "accept", "labels": [{}]}, 400, "names of labels, not {}"),
        ("/decide", {"item": 0, "action": "accept", "labels": ["no_relation"]}, 400, "not 'no_relation'"),
        ("/decide", {"item": 0, "action": "accept", "labels": ["employer"], "reversed": 1}, 400, "a boolean"),
        ("/item", {"item": 3}, 400, "no pair with the number 3"),
        ("/draw", {"item": 0, "labels": []}, 400, "at least one"),
        ("/relations", {}, 404, "Not Found"),
    ],
)
def test_malformed_requests_get_one_clear_error_and_lose_nothing(
    server: PageServer, tmp_path: Path, path: str, body: object, status: int, message: str
) -> None:
    post(server, "/decide", item=1, action="reject")
    saved = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(saved) == 2
    found, answer = ask(server, path=path, body=body)
    assert found == status and message in json.loads(answer)["error"]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == saved
    assert post(server, "/item")["decided"] == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
    ],
)
def test_other_pages_cannot_decide(server: PageServer, tmp_path: Path, headers: dict[str, str], status: int) -> None:
    body = {"item": 0, "action": "reject"}
    found, answer = ask(server, path="/decide", body=body, **headers)
    assert found == status and json.loads(answer)["error"]
    assert not list(tmp_path.iterdir())


def test_full_disk_is_reported_and_the_decision_can_be_repeated(
    server: PageServer, session: ReviewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    post(server, "/decide", item=1, action="skip")
    with monkeypatch.context() as patch:
        patch.setattr("spacy_slmre.review.decisions.os.fsync", fail)
        status, answer = ask(server, path="/decide", body={"item": 0, "action": "reject"})
    assert status == 507 and "No space left on device" in json.loads(answer)["error"]
    assert post(server, "/item")["decided"] == 0
    assert post(server, "/decide", item=0, action="reject")["decided"] == 1
    log = session._log.path.read_text("utf-8").splitlines()
    assert [json.loads(line)["item"] for line in log] == [1, 0]
