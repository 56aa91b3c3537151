"""One request to a service, sent as often as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)

from spacy_slmre.llm.replies import Failure, Passing, Reply, failure_of, unreadable

CONNECT_TIMEOUT = 10.0
LONGEST_BACKOFF = 60.0


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Sends requests; any number of threads may use it at a time.

    Attributes:
        session: Has headers and connections.
        url: Where to.
        read: Reads the reply in the JSON of an answer; any LookupError, TypeError, ValueError or
            AttributeError means that it is not what the API promises.
        key_variable: Environment variable of the key, for messages.
        timeout: Seconds without a sign of life after which a request has failed.
        tries: How often a request is sent, at most.
        backoff: Seconds before the second try; they double from try to try.
        longest_wait: Where the service asks for a longer wait (in seconds), there is no further try.
        stop: When it is set, nothing more is sent.
    """

    session: requests.Session
    url: str
    read: Callable[[Any], Reply]
    key_variable: str | None
    timeout: float
    tries: int
    backoff: float
    longest_wait: float
    stop: threading.Event

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        """The reply to a request.

        Raises:
            Failure: There is none, for this request.
            ServiceError: There will be none for any.
        """
        attempts = Retrying(
            retry=retry_if_exception(self._passes),
            wait=self._wait,
            stop=stop_after_attempt(self.tries) | stop_when_event_set(self.stop),
            sleep=sleep_using_event(self.stop),
            reraise=True,
        )
        return attempts(self._send, body)

    def _send(self, body: Mapping[str, Any]) -> Reply:
        if self.stop.is_set():
            raise Failure("the run was stopped")
        try:
            response = self.session.post(
                self.url, json=body, timeout=(CONNECT_TIMEOUT, self.timeout), allow_redirects=False
            )
        except requests.RequestException as error:
            raise Passing(f"{self.url} could not be reached ({type(error).__name__}: {error})") from error
        if response.status_code != 200:
            raise failure_of(response, self.url, self.key_variable)
        try:
            return self.read(response.json())
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise unreadable(response, self.url) from error

    def _passes(self, error: BaseException) -> bool:
        return isinstance(error, Passing) and (error.wait or 0.0) <= self.longest_wait

    def _wait(self, state: RetryCallState) -> float:
        assert state.outcome is not None
        backoff = wait_exponential_jitter(initial=self.backoff, max=LONGEST_BACKOFF, jitter=self.backoff)
        return max(backoff(state), getattr(state.outcome.exception(), "wait", None) or 0.0)


def open_session(headers: Mapping[str, str], connections: int) -> requests.Session:
    """A session that sends these headers, and keeps connections open."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update(headers)
    # Without one, requests would put a login from ~/.netrc in the place of the key.
    session.auth = _leave_as_it_is
    return session


def _leave_as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
