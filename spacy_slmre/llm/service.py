"""Chat models behind a web API: concurrent requests, retries, usage and the answer cache.

Each API has a subclass that uses the provider's own Python package.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import threading
import time
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from spacy_slmre.documents import replace_surrogates
from spacy_slmre.llm.cache import AnswerCache
from spacy_slmre.llm.chat import ChatPrompt, Unanswered, estimate_prompt_tokens
from spacy_slmre.llm.secrets import redact, secrets_in_fields, secrets_in_headers, secrets_in_url, show_url
from spacy_slmre.util.errors import ServiceError
from spacy_slmre.util.extras import require_extra
from spacy_slmre.util.settings import check_minimum, check_positive, check_types

_CONNECT_TIMEOUT = 10.0
_MAX_BACKOFF = 60.0
_TRANSIENT = (408, 409, 425, 429)
_NO_CREDIT = ("insufficient_quota", "billing_error", "billing_hard_limit_reached", "credit balance is too low")


@dataclass(frozen=True)
class Reply:
    """A model's reply."""

    text: str | None  # None after a refusal, for example
    stop_reason: str
    truncated: bool  # at max_tokens
    input_tokens: int
    output_tokens: int


class RequestError(Exception):
    """A single request failed.

    Attributes:
        transient: Whether the same request may succeed later.
        retry_after: Seconds to wait, as requested by the service.
    """

    def __init__(self, message: str, *, transient: bool, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


@dataclass
class Usage:
    """Usage of a model object so far, with tokens as counted by the service."""

    requests: int = 0  # answered requests
    cached: int = 0  # prompts answered from the cache
    input_tokens: int = 0
    output_tokens: int = 0  # including hidden reasoning
    failed: int = 0  # requests that the service rejected
    unreachable: int = 0  # requests that failed for a transient reason: network, rate limit, server error


@dataclass(kw_only=True, repr=False)
class ChatService(ABC):
    """A spacy-llm model behind a web API. Nothing is sent before the first prompt.

    If a request fails after all retries, its prompt stays unanswered and the run continues. Errors that affect every
    prompt (invalid key, no credit, unknown model) end the run.

    Attributes:
        name: Name of the model at the service.
        base_url: Base URL of the API, as the provider's Python package expects it.
        api_key_env: Environment variable with the API key; None if the server needs no key.
        temperature: Sampling temperature; None omits the field, which some models reject.
        max_tokens: Maximum tokens of an answer; None omits the field, which some models reject.
        extra_body: Additional fields of each request.
        extra_headers: Additional HTTP headers of each request.
        concurrency: Maximum number of simultaneous requests.
        timeout: Seconds to wait for a response.
        max_retries: Maximum number of retries of a failed request.
        backoff: Seconds before the first retry; they double each time. A Retry-After header is respected.
        max_wait: Give up on a request if the service asks to wait for more seconds than this.
        max_failures: End the run after this many consecutive unanswered prompts; None never ends it.
        cache: SQLite file for answers; "auto" uses the user's cache folder, None disables the cache.
        context_length: Prompts with more (estimated) tokens are not sent.
        input_price: US dollars per million prompt tokens, for cost estimates.
        output_price: US dollars per million answer tokens.

    Raises:
        ValueError: A setting is out of range.
    """

    package: ClassVar[str]
    client_class: ClassVar[str]

    name: str
    base_url: str
    api_key_env: str | None
    temperature: float | None = 0.0
    max_tokens: int | None = 64
    extra_body: dict[str, Any] | None = None
    extra_headers: dict[str, str] | None = None
    concurrency: int = 8
    timeout: float = 60.0
    max_retries: int = 5
    backoff: float = 1.0
    max_wait: float = 120.0
    max_failures: int | None = 50
    cache: str | None = "auto"
    context_length: int = 32_768
    input_price: float | None = None
    output_price: float | None = None
    usage: Usage = field(default_factory=Usage, init=False, repr=False)
    _failures_in_a_row: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_types(self, "model")
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f'model.base_url = "{self.address}" is not a URL such as https://host/v1.')
        check_minimum(self, "model", concurrency=1, max_tokens=1, max_failures=1, context_length=1, max_retries=0)
        check_positive(self, "model", names=["timeout", "backoff", "max_wait"])
        for header, value in (self.extra_headers or {}).items():
            if not value.isprintable():
                raise ValueError(f'model.extra_headers: "{header}" contains line breaks or control characters.')

    @abstractmethod
    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """Return the fields of the request for a prompt; None omits a field."""

    @abstractmethod
    def send(self, client: Any, body: dict[str, Any], headers: dict[str, Any]) -> Any:
        """Send a request through the provider's client and return its response object."""

    @abstractmethod
    def read(self, response: Any) -> Reply:
        """Read a response. AttributeError, LookupError, TypeError and ValueError indicate an invalid response."""

    def __call__(self, prompts: typing.Iterable[typing.Iterable[Any]]) -> typing.Iterable[typing.Iterable[Any]]:
        """Answer the prompts of several documents.

        Returns:
            For each document and prompt the answer as generated, or `Unanswered`.

        Raises:
            ServiceError: The service is unusable, or too many consecutive prompts were not answered.
            ValueError: The cache cannot be used.
        """
        chats = [[ChatPrompt.from_any(prompt) for prompt in doc_prompts] for doc_prompts in prompts]
        answers, remaining = self._look_up(prompt for doc_prompts in chats for prompt in doc_prompts)
        self.usage.cached += sum(not isinstance(answer, Unanswered) for answer in answers.values())
        if remaining:
            self._fetch(remaining, answers)
        return [[answers[self._key(prompt)] for prompt in doc_prompts] for doc_prompts in chats]

    def load(self) -> None:
        """Check the provider's package, the API key and the cache without sending anything.

        Raises:
            ServiceError: The package or the key is missing.
            ValueError: The cache cannot be used.
        """
        self._api_key()
        self._sdk()
        if (cache := self._open_cache()) is not None:
            cache.check()

    def pending(self, prompts: Iterable[ChatPrompt]) -> list[ChatPrompt]:
        """Return the prompts that would be sent, without duplicate, cached and too long ones."""
        return list(self._look_up(prompts)[1].values())

    def _look_up(self, prompts: Iterable[ChatPrompt]) -> tuple[dict[str, str], dict[str, ChatPrompt]]:
        """Return the answers that need no request and the remaining prompts, both by key."""
        remaining = {self._key(prompt): prompt for prompt in prompts}
        cache = self._open_cache()
        answers = cache.get(remaining) if cache is not None else {}
        for key, prompt in remaining.items():
            if key not in answers and (tokens := estimate_prompt_tokens(prompt)) > self.context_length:
                limit = f"model.context_length is {self.context_length}"
                answers[key] = Unanswered(f"the prompt has about {tokens} tokens, but {limit}")
        return answers, {key: prompt for key, prompt in remaining.items() if key not in answers}

    def _key(self, prompt: ChatPrompt) -> str:
        content = json.dumps([self.base_url, self._full_body(prompt)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _full_body(self, prompt: ChatPrompt) -> dict[str, Any]:
        fields = {**self.body(prompt), **(self.extra_body or {})}
        return {name: value for name, value in fields.items() if value is not None}

    def _fetch(self, prompts: dict[str, ChatPrompt], answers: dict[str, str]) -> None:
        """Send prompts concurrently and add their answers, both by key."""
        cache, stop = self._open_cache(), threading.Event()
        if cache is not None:
            cache.check()
        with self._client() as client:
            pool = ThreadPoolExecutor(min(self.concurrency, len(prompts)), "spacy-slmre-requests")
            try:
                futures = {
                    pool.submit(self._send_with_retries, client, key, prompt, cache, stop): key
                    for key, prompt in prompts.items()
                }
                for future in as_completed(futures):
                    answers[futures[future]] = self._count(future.result())
            except BaseException as error:
                # Cancel waiting retries; requests in progress still write their answers to the cache.
                stop.set()
                if isinstance(error, ServiceError):
                    raise ServiceError(self._redact(str(error))) from None
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _send_with_retries(
        self, client: Any, key: str, prompt: ChatPrompt, cache: AnswerCache | None, stop: threading.Event
    ) -> Reply | RequestError:
        """Send one prompt and cache its answer. Runs in a thread of the pool."""
        # The providers' packages can also retry, but not after invalid responses, even without credit, and with waits
        # that can be neither configured nor interrupted.
        for retry in range(self.max_retries + 1):
            try:
                reply = self._send_once(client, prompt)
            except RequestError as error:
                delay = min(self.backoff * 2**retry, _MAX_BACKOFF) + random.uniform(0, self.backoff)
                is_last = not error.transient or error.retry_after > self.max_wait or retry == self.max_retries
                if is_last or stop.wait(max(delay, error.retry_after)):
                    return error
            else:
                answer = _answer(reply)
                if cache is not None and not isinstance(answer, Unanswered):
                    cache.put(key, answer)
                return reply
        raise AssertionError("the last attempt returns")

    def _send_once(self, client: Any, prompt: ChatPrompt) -> Reply:
        sdk, response = self._sdk(), None
        # Anthropic's package sends the key in one of two headers, depending on its version.
        omitted = ("Authorization", "X-Api-Key") if self.api_key_env is None else ()
        headers = {**{name: sdk.Omit() for name in omitted}, **(self.extra_headers or {})}
        try:
            response = self.send(client, self._full_body(prompt), headers)
            return self.read(response)
        except sdk.APIStatusError as error:
            raise self._status_error(error) from error
        except sdk.APIConnectionError as error:
            message = f"{self.address} is unreachable: {error.__cause__ or error!r}"
            raise RequestError(message, transient=True) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            shown = error if response is None else self._redact(repr(response))[:100]
            message = f"{self.address} sent an invalid response: {shown}"
            raise RequestError(message, transient=True) from error

    def _status_error(self, error: Any) -> Exception:
        """Classify an HTTP error by its status and message."""
        status = error.status_code
        details = error.body if isinstance(error.body, dict) else {"message": error.body}
        # Before it is shortened, or the beginning of a key might remain.
        message = self._redact(str(details.get("message") or ""))[:500]
        problem = f"{self.address} answered {status}" + (f": {message}" if message else "")
        described = f"{details.get('type')} {details.get('code')} {message}".lower()
        if status == 402 or any(sign in described for sign in _NO_CREDIT):
            return ServiceError(
                f"{problem}\nThe account has no credit left or has reached its limit. Answers received so "
                "far are cached, if the cache is enabled. Repeat the run to continue."
            )
        if status in (401, 403):
            key = f"the key in ${self.api_key_env}" if self.api_key_env else "no key (model.api_key_env = null)"
            return ServiceError(f"{problem}\nThe service denied access. The request was sent with {key}.")
        if status in (404, 405) or 300 <= status < 400:
            return ServiceError(f"{problem}\nCheck model.base_url and model.name.")
        transient = status in _TRANSIENT or status >= 500
        retry_after = _seconds(error.response.headers.get("Retry-After", ""))
        return RequestError(problem, transient=transient, retry_after=retry_after)

    def _count(self, result: Reply | RequestError) -> str:
        """Update the usage and return the answer; end the run after too many consecutive failures."""
        if isinstance(result, Reply):
            self.usage.requests += 1
            self.usage.input_tokens += result.input_tokens
            self.usage.output_tokens += result.output_tokens
            answer = _answer(result)
        else:
            self.usage.unreachable += result.transient
            self.usage.failed += not result.transient
            answer = Unanswered(self._redact(str(result)))
        self._failures_in_a_row = self._failures_in_a_row + 1 if isinstance(answer, Unanswered) else 0
        if isinstance(answer, Unanswered) and self._failures_in_a_row == self.max_failures:
            self._failures_in_a_row = 0
            raise ServiceError(
                f"{self.max_failures} consecutive prompts were not answered. The last reason: {answer.reason}. Answers "
                "received so far are cached, if the cache is enabled. Repeat the run to continue, or set "
                "model.max_failures to null to ignore failures."
            )
        return answer

    def _sdk(self) -> Any:
        with require_extra("llm", type(self).__name__):
            return importlib.import_module(self.package)

    def _client(self) -> Any:
        sdk = self._sdk()
        timeout = sdk.Timeout(self.timeout, connect=_CONNECT_TIMEOUT)
        return getattr(sdk, self.client_class)(
            # With None, the packages would send the key of their default environment variable.
            api_key=self._api_key() or "no key",
            base_url=self.base_url,
            max_retries=0,
            timeout=timeout,
            # A redirect could send the key to another host.
            http_client=sdk.DefaultHttpxClient(timeout=timeout, follow_redirects=False),
        )

    def _api_key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ServiceError(
                f"{self.name} at {self.address} needs an API key: set the environment variable "
                f"{self.api_key_env}, or set model.api_key_env to null if the server needs no key."
            )
        if not (key.isascii() and key.isprintable()):
            raise ServiceError(
                f"The key in the environment variable {self.api_key_env} contains line breaks or characters "
                "that are not allowed in a key. Set it again."
            )
        return key

    def _redact(self, message: str) -> str:
        """Hide all secrets, which some error messages quote."""
        key = os.environ.get(self.api_key_env or "", "").strip()
        fields = {"extra_body": self.extra_body}
        secrets = [key, *secrets_in_url(self.base_url), *secrets_in_headers(self.extra_headers)]
        return redact(message, [*secrets, *secrets_in_fields(fields)])

    @property
    def address(self) -> str:
        """The base URL without secrets."""
        return show_url(self.base_url)

    def _open_cache(self) -> AnswerCache | None:
        if self.cache == "auto":
            from spacy_slmre.models.hub import cache_folder

            return AnswerCache(cache_folder() / "answers.sqlite")
        return AnswerCache(self.cache) if self.cache is not None else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __str__(self) -> str:
        return f"{self.name} at {self.address}"


def _answer(reply: Reply) -> str:
    if reply.text is None:
        return Unanswered(f"the model generated no text ({reply.stop_reason})")
    if reply.truncated and not reply.text.strip():
        return Unanswered("the model reached its token limit before it generated any text; increase the limit")
    return replace_surrogates(reply.text)


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 if it is invalid."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
