from __future__ import annotations

import dataclasses
import pickle
import sqlite3
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from spacy_slmre.llm.anthropic_chat import AnthropicChat
from spacy_slmre.llm.chat import ChatPrompt, Unanswered
from spacy_slmre.llm.openai_chat import OpenAIChat
from spacy_slmre.util.errors import ServiceError
from spacy_slmre.util.extras import MissingExtraError
from tests.llm.conftest import ChatServer, failure


def prompt(question: str = "Who?") -> ChatPrompt:
    return ChatPrompt([{"role": "system", "content": "Say it."}, {"role": "user", "content": question}])


def model(server: ChatServer, **settings) -> OpenAIChat:
    options = {"name": "some-model", "base_url": server.url, "api_key_env": "TEST_KEY", "cache": None}
    return OpenAIChat(**{**options, "max_retries": 2, "backoff": 0.01, "timeout": 5.0, **settings})


def only(answers) -> str:
    ((answer,),) = answers
    return answer


# -- requests ------------------------------------------------------------------------------------------


def test_chat_completions_request(server: ChatServer) -> None:
    chat = model(server, extra_body={"seed": 7}, extra_headers={"X-Team": "a"})
    assert chat([[prompt()]]) == [["place of birth"]]
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret" and headers["x-team"] == "a"
    assert body == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Say it."}, {"role": "user", "content": "Who?"}],
        "temperature": 0.0,
        "max_tokens": 64,
        "seed": 7,
    }
    assert dataclasses.astuple(chat.usage) == (1, 0, 100, 3, 0, 0)


def test_anthropic_request(server: ChatServer) -> None:
    chat = AnthropicChat(name="some-model", base_url=server.address, api_key_env="TEST_KEY", cache=None)
    assert chat([[prompt()]]) == [["place of birth"]]
    ((path, headers, body),) = server.requests
    assert path == "/v1/messages"
    assert headers.get("authorization") == "Bearer secret" or headers["x-api-key"] == "secret"
    assert "anthropic-version" in headers
    assert body["system"] == "Say it." and body["messages"] == [{"role": "user", "content": "Who?"}]
    assert (chat.usage.input_tokens, chat.usage.output_tokens) == (105, 3)


def test_fields_can_be_omitted(server: ChatServer) -> None:
    extra_body = {"max_completion_tokens": 9}
    model(server, temperature=None, max_tokens=None, extra_body=extra_body)([[prompt()]])
    body = server.requests[0][2]
    assert body.keys() == {"model", "messages", "max_completion_tokens"}


def test_netrc_login_does_not_replace_the_key(server, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    model(server)([[prompt()]])
    assert server.requests[0][1]["authorization"] == "Bearer secret"


def test_plain_prompts_of_other_tasks_are_answered(server: ChatServer) -> None:
    assert model(server)([["Which entities?"]]) == [["place of birth"]]
    assert server.requests[0][2]["messages"] == [{"role": "user", "content": "Which entities?"}]


def test_answers_keep_their_order_with_concurrent_requests(server: ChatServer) -> None:
    server.answer = lambda question: f"answer {question}"
    server.delay = 0.05
    questions = [[prompt(f"{doc}.{pair}") for pair in range(doc)] for doc in (5, 0, 6)]
    answers = model(server, concurrency=4)(questions)
    assert answers == [[f"answer {doc}.{pair}" for pair in range(doc)] for doc in (5, 0, 6)]
    assert 2 <= server.max_active <= 4


def test_equal_prompts_are_sent_once(server: ChatServer) -> None:
    assert model(server)([[prompt(), prompt()], [prompt()]]) == [["place of birth"] * 2, ["place of birth"]]
    assert len(server.requests) == 1


# -- transient failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        (200, {}, b"{"),
        (200, {}, b""),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": 5}}]}'),
        failure(500),
        failure(529, "overloaded"),
        failure(429, "slow down"),
    ],
)
def test_transient_failures_are_retried(server: ChatServer, broken) -> None:
    server.script = [broken, broken]
    assert only(model(server)([[prompt()]])) == "place of birth"
    assert len(server.requests) == 3


@pytest.mark.parametrize("value", ["1", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_header_is_respected(server: ChatServer, value) -> None:
    value = value if isinstance(value, str) else value()
    server.script = [failure(429, "slow down", Retry_After=value)]
    assert only(model(server)([[prompt()]])) == "place of birth"
    first, second = server.times
    assert second - first > 0.5  # without the header, it is 0.02 at most


def test_no_retry_if_the_service_asks_for_a_long_wait(server: ChatServer) -> None:
    server.script = [failure(429, "slow down", Retry_After="3600")]
    answer = only(model(server)([[prompt()]]))
    assert isinstance(answer, Unanswered) and "429: slow down" in answer.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("broken", [failure(500, "out of order"), (200, {}, b"<html>")])
def test_failed_prompt_stays_unanswered_and_the_run_continues(server: ChatServer, broken) -> None:
    server.always = broken
    chat = model(server, concurrency=1)
    first = only(chat([[prompt("a")]]))
    assert isinstance(first, Unanswered) and first == "" and len(server.requests) == 3
    assert ("out of order" in first.reason) or ("sent an invalid response" in first.reason)
    server.always = None
    assert only(chat([[prompt("b")]])) == "place of birth"


def test_slow_server_times_out(server: ChatServer) -> None:
    server.delay = 0.5
    answer = only(model(server, timeout=0.05, max_retries=1)([[prompt()]]))
    assert isinstance(answer, Unanswered) and "timed out" in answer.reason
    assert len(server.requests) == 2


def test_unreachable_server_leaves_prompts_unanswered(server: ChatServer) -> None:
    chat = model(server, base_url="http://127.0.0.1:9", max_retries=1, backoff=0.01)
    answer = only(chat([[prompt()]]))
    assert isinstance(answer, Unanswered) and "is unreachable" in answer.reason


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"message": {"content": ""}, "finish_reason": "length"}, "reached its token limit"),
        ({"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}, "I cannot"),
    ],
)
def test_reply_without_text_is_unanswered(server: ChatServer, choice: dict, reason: str) -> None:
    import json

    server.always = (200, {}, json.dumps({"choices": [choice]}).encode())
    answer = only(model(server)([[prompt()]]))
    assert isinstance(answer, Unanswered) and reason in answer.reason
    assert len(server.requests) == 1


def test_empty_text_is_an_answer(server: ChatServer) -> None:
    server.answer = lambda question: ""
    answer = only(model(server)([[prompt()]]))
    assert answer == "" and not isinstance(answer, Unanswered)


def test_bad_request_affects_one_prompt_only(server: ChatServer) -> None:
    server.script = [failure(400, "context_length_exceeded")]
    first, second = model(server, concurrency=1)([[prompt("a"), prompt("b")]])[0]
    assert isinstance(first, Unanswered) and "context_length_exceeded" in first.reason
    assert second == "place of birth"


def test_prompts_that_are_too_long_are_not_sent(server: ChatServer) -> None:
    long, short = model(server, context_length=20)([[prompt("word " * 50), prompt()]])[0]
    assert isinstance(long, Unanswered) and "model.context_length is 20" in long.reason
    assert short == "place of birth" and len(server.requests) == 1


# -- failures that end a run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            failure(401, "bad key"),
            r"401: bad key\nThe service denied access. The request was sent with the key in \$TEST_KEY",
        ),
        (failure(403, "not you"), "denied access"),
        (failure(404, "no such model"), "no such model\nCheck model.base_url and model.name"),
        (failure(429, "You exceeded your quota", "insufficient_quota"), "no credit left"),
        (failure(400, "Your credit balance is too low to access the API"), "no credit left"),
        ((301, {"Location": "/elsewhere"}, b""), "Check model.base_url"),
    ],
)
def test_errors_that_affect_every_prompt_end_the_run(server: ChatServer, broken, message: str) -> None:
    server.always = broken
    with pytest.raises(ServiceError, match=message) as caught:
        model(server, concurrency=2)([[prompt(f"{n}") for n in range(50)]])
    assert len(server.requests) < 10
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "attempts"), [(failure(529, "overloaded"), 2), ((200, {}, b'{"content": 5}'), 2), (failure(400), 1)]
)
def test_anthropic_errors_are_classified_alike(server: ChatServer, broken, attempts: int) -> None:
    settings = {"name": "x", "base_url": server.address, "api_key_env": "TEST_KEY", "cache": None}
    chat = AnthropicChat(**settings, max_retries=1, backoff=0.01)
    server.always = broken
    assert isinstance(only(chat([[prompt()]])), Unanswered) and len(server.requests) == attempts
    server.always = failure(401, "bad key")
    with pytest.raises(ServiceError, match="denied access"):
        chat([[prompt()]])


def test_many_failures_in_a_row_end_the_run(server: ChatServer) -> None:
    server.always = failure(500, "down")
    prompts = [[prompt(f"{n}") for n in range(30)]]
    with pytest.raises(ServiceError, match=r"5 consecutive prompts were not answered.*500: down"):
        model(server, max_failures=5, max_retries=0, concurrency=2)(prompts)
    assert len(server.requests) < 12
    answers = model(server, max_failures=None, max_retries=0)(prompts)
    assert all(isinstance(answer, Unanswered) for answer in answers[0])


def test_missing_key_raises_before_the_first_request(server: ChatServer, monkeypatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    chat = model(server)
    for attempt in (chat.load, lambda: chat([[prompt()]])):
        with pytest.raises(ServiceError, match="needs an API key: set the environment variable TEST_KEY"):
            attempt()
    assert not server.requests


@pytest.mark.parametrize("api", [OpenAIChat, AnthropicChat])
def test_no_key_is_sent_to_a_server_without_keys(server: ChatServer, monkeypatch, api) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    chat = api(name="x", base_url=server.address, api_key_env=None, cache=None)
    assert chat([[prompt()]]) == [["place of birth"]]
    assert not [value for value in server.requests[0][1].values() if "secret" in value or "no key" in value]
    assert "authorization" not in server.requests[0][1]


def test_missing_package_raises_with_the_command_that_installs_it(server: ChatServer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spacy-slmre\[llm\]'"):
        model(server).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "is not a URL"),
        ({"name": ""}, r"model\.name is empty"),
        ({"max_retries": -1}, r"model\.max_retries = -1, but it must be at least 0"),
        ({"timeout": 0.0}, r"model\.timeout = 0\.0, but it must be above 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenAIChat(**{"name": "x", **settings})
    with pytest.raises(ValueError, match="requires a number"):
        AnthropicChat(name="x", max_tokens=None)


# -- cache ---------------------------------------------------------------------------------------------


def test_cached_answers_need_no_request_and_no_key(server, tmp_path: Path, monkeypatch) -> None:
    cache = str(tmp_path / "deep" / "answers.sqlite")
    server.answer = lambda question: question
    assert model(server, cache=cache)([[prompt("a"), prompt("b")]]) == [["a", "b"]]
    monkeypatch.delenv("TEST_KEY")
    again = model(server, cache=cache)
    assert again([[prompt("b")], [prompt("a")]]) == [["b"], ["a"]]
    assert len(server.requests) == 2 and again.usage.cached == 2
    assert again.pending([prompt("a"), prompt("c"), prompt("c")]) == [prompt("c")]
    # Anything that may change an answer needs a new request.
    monkeypatch.setenv("TEST_KEY", "secret")
    for other in ({"temperature": 1.0}, {"extra_body": {"seed": 1}}):
        model(server, cache=cache, **other)([[prompt("a")]])
    assert len(server.requests) == 4


def test_interrupted_run_keeps_its_answers(server: ChatServer, tmp_path: Path) -> None:
    cache = str(tmp_path / "answers.sqlite")
    prompts = [[prompt(f"{n}") for n in range(4)]]
    server.script = [None, None, failure(401)]
    with pytest.raises(ServiceError):
        model(server, cache=cache, concurrency=1)(prompts)
    sent = len(server.requests)
    assert model(server, cache=cache)(prompts) == [["place of birth"] * 4]
    assert len(server.requests) - sent <= 2


def test_failures_are_not_cached(server: ChatServer, tmp_path: Path) -> None:
    chat = model(server, cache=str(tmp_path / "answers.sqlite"), max_retries=0)
    server.script = [failure(500)]
    assert isinstance(only(chat([[prompt()]])), Unanswered)
    assert only(chat([[prompt()]])) == "place of birth"


def test_cache_contains_no_prompts(server: ChatServer, tmp_path: Path) -> None:
    model(server, cache=str(tmp_path / "answers.sqlite"))([[prompt("A private sentence.")]])
    assert b"private" not in (tmp_path / "answers.sqlite").read_bytes()


def test_automatic_cache_is_in_the_cache_folder(server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPACY_SLMRE_CACHE", str(tmp_path))
    model(server, cache="auto")([[prompt()]])
    with sqlite3.connect(tmp_path / "answers.sqlite") as connection:
        assert [row[0] for row in connection.execute("SELECT answer FROM answers")] == ["place of birth"]
    connection.close()


def test_file_that_is_not_a_cache_is_refused(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes, not a database. " * 10)
    with pytest.raises(ValueError, match=r"notes\.txt\" cannot be used as an answer cache"):
        model(server, cache=str(tmp_path / "notes.txt"))([[prompt()]])
    assert not server.requests and (tmp_path / "notes.txt").read_text().startswith("These")


def test_models_can_be_pickled(server: ChatServer) -> None:
    chat = model(server)
    chat([[prompt()]])
    assert only(pickle.loads(pickle.dumps(chat))([[prompt()]])) == "place of birth"


# -- keys stay secret ----------------------------------------------------------------------------------


def test_key_with_a_line_break_is_refused_and_not_shown(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-live-abcdef\nsecond")
    with pytest.raises(ServiceError, match="TEST_KEY contains line breaks") as caught:
        model(server)([[prompt()]])
    assert "sk-live" not in str(caught.value) and not server.requests
    with pytest.raises(ValueError, match=r'"X-Team" contains line breaks'):
        model(server, extra_headers={"X-Team": "a\nb"})


@pytest.mark.parametrize("status", [400, 401])
def test_key_quoted_by_the_service_is_not_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-live-abcdef")
    server.always = failure(status, "Incorrect API key provided: sk-live-abcdef")
    chat = model(server, extra_headers={"X-Proxy": "password-1"})
    if status == 401:
        with pytest.raises(ServiceError, match=r"provided: \*\*\*") as caught:
            chat([[prompt()]])
        assert "sk-live" not in str(caught.value)
    else:
        answer = only(chat([[prompt()]]))
        assert isinstance(answer, Unanswered) and answer.reason.endswith("provided: ***")
        assert (chat.usage.failed, chat.usage.unreachable) == (1, 0)
