"""Keys and passwords occur in no message, however they are configured and wherever a service quotes them."""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

from spacy_slmre.extraction.worker import ShardWorker
from spacy_slmre.llm.anthropic_chat import AnthropicChat
from spacy_slmre.llm.chat import ChatPrompt, Unanswered
from spacy_slmre.llm.openai_chat import OpenAIChat
from spacy_slmre.llm.secrets import redact, show_url
from spacy_slmre.llm.service import ChatService
from spacy_slmre.util.errors import ServiceError
from tests.cli.extracting import run
from tests.conftest import TEXTS
from tests.llm.conftest import ChatServer, failure, make_nlp

__all__ = ["make_nlp"]

SECRET = "sk-4f2a9c/d81+7e"
PROMPTS = [[ChatPrompt([{"role": "user", "content": "Hi"}])]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = ChatServer()
    yield running
    running.close()


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "user of the URL": lambda url: {"base_url": url.replace("://", "://ann:sk-4f2a9c%2Fd81%2B7e@")},
    "query of the URL": lambda url: {"base_url": f"{url}?key=sk-4f2a9c%2Fd81%2B7e"},
    "header": lambda url: {"base_url": url, "extra_headers": {"X-Team": SECRET}},
    "bearer header": lambda url: {"base_url": url, "extra_headers": {"X-Auth": f"Bearer {SECRET}"}},
    "field of the body": lambda url: {"base_url": url, "extra_body": {"options": [{"api_key": SECRET}]}},
    "environment": lambda url: {"base_url": url, "api_key_env": "MY_KEY"},
}


def make(kind: type[ChatService], **settings: Any) -> ChatService:
    options = {"name": "m", "api_key_env": None, "cache": None, "max_retries": 0, "backoff": 0.01, "timeout": 5.0}
    return kind(**{**options, **settings})


def shows_part(text: str) -> bool:
    """Whether a text has five characters of the secret, as it is or as in a URL."""
    forms = (SECRET, "sk-4f2a9c%2Fd81%2B7e")
    return any(form[start : start + 5] in text for form in forms for start in range(len(form) - 4))


@pytest.mark.parametrize("kind", [OpenAIChat, AnthropicChat])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("status", [400, 401, 402, 404, 500])
@pytest.mark.parametrize("before", [0, 90, 480, 490, 495])
def test_no_answer_of_a_service_brings_a_secret_to_light(
    kind: type[ChatService],
    place: Callable,
    status: int,
    before: int,
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    server.always = failure(status, f"{'x' * before}{SECRET} was refused", "some_type")
    model = make(kind, **place(server.url))
    with caplog.at_level(logging.INFO, "spacy_slmre"):
        try:
            [[answer]] = model(PROMPTS)
        except ServiceError as error:
            shown = str(error)
        else:
            assert isinstance(answer, Unanswered)
            shown = answer.reason
    assert f"answered {status}" in shown and not shows_part(shown)
    assert not any(
        shows_part(record.getMessage()) for record in caplog.records if record.name.startswith("spacy_slmre")
    )


@pytest.mark.parametrize("kind", [OpenAIChat, AnthropicChat])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_no_description_of_a_model_shows_a_secret(
    kind: type[ChatService], place: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    model = make(kind, **place("https://host.example:8443/v1"))
    for shown in (str(model), repr(model), f"{model!r:.30}", model.address):
        assert not shows_part(shown)
    assert "host.example:8443/v1" in str(model)
    # Only what is shown is redacted: requests have the real values.
    assert pickle.loads(pickle.dumps(model)).base_url == model.base_url


@pytest.mark.parametrize("place", ["user of the URL", "query of the URL"])
def test_an_unreachable_service_and_a_missing_key_do_not_show_the_url(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = PLACES[place]("http://127.0.0.1:9/v1")["base_url"]
    [[answer]] = make(OpenAIChat, base_url=url)(PROMPTS)
    assert "127.0.0.1:9/v1" in answer.reason and "unreachable" in answer.reason and not shows_part(answer.reason)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ServiceError, match="needs an API key") as caught:
        make(OpenAIChat, base_url=url, api_key_env="MY_KEY").load()
    assert not shows_part(str(caught.value))


def test_an_invalid_response_is_shortened_after_it_is_redacted(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    for length in range(60, 100, 3):
        server.always = (200, {"Content-Type": "application/json"}, f'"{"x" * length}{SECRET}"'.encode())
        [[answer]] = make(OpenAIChat, base_url=server.url, api_key_env="MY_KEY")(PROMPTS)
        assert isinstance(answer, Unanswered) and not shows_part(answer.reason)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.example/v1", "https://api.example/v1"),
        ("https://a:b@api.example:1/v1", "https://***@api.example:1/v1"),
        ("https://api.example/v1?key=b", "https://api.example/v1?***"),
        ("https://[::1]:8/v1", "https://[::1]:8/v1"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert show_url(url) == shown


def test_short_values_are_not_hidden_because_they_occur_by_chance() -> None:
    assert redact("The team is on the way", ["team", "", "on"]) == "The team is on the way"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_run_in_which_every_request_failed_is_a_failure_and_stores_no_secret(
    place: Callable,
    status: int,
    server: ChatServer,
    make_nlp: Callable[..., Language],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    server.always = failure(status, f"{SECRET} was refused", "some_type")
    options = {"api_key_env": None, **place(server.url)}
    block = {"@llm_models": "spacy-slmre.OpenAI.v1", "name": "m", "cache": None, "max_retries": 0, "max_failures": None}
    make_nlp({**block, **options}).to_disk(tmp_path / "pipeline")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (TEXTS[0], TEXTS[4])))
    args = (tmp_path / "pipeline", tmp_path / "in.jsonl", "-o", tmp_path / "out.spacy")
    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "_compute", interrupt)
        assert run(*args).exit_code == 130
    interrupted = [file.read_text() for file in (tmp_path / "out.spacy.part").rglob("*.json")]
    assert interrupted and not any(map(shows_part, interrupted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(*args)
    assert result.exit_code == 1 and not shows_part(result.output)
    stored = [file.read_text(errors="replace") for file in (tmp_path / "out.spacy").iterdir()]
    assert stored and not any(map(shows_part, stored))


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
