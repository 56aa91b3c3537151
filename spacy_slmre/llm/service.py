"""Chat models behind HTTP: keys, concurrent requests, retries, the cache. Each API is a subclass."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from spacy_slmre.label_parser import whole_characters
from spacy_slmre.llm.answer_cache import AnswerCache
from spacy_slmre.llm.chat import ChatPrompt, Unanswered, estimate_prompt_tokens
from spacy_slmre.llm.replies import Failure, Passing, Reply, ServiceError
from spacy_slmre.llm.sending import Sender, open_session

_SECRET = 6
"""Least characters of what is taken for a secret: shorter ones may stand in a message by chance."""


@dataclass(frozen=True)
class Request:
    """What is sent, the key by which its answer is known, and how many tokens the prompt has, roughly."""

    key: str
    body: Mapping[str, Any]
    tokens: int


@dataclass
class Usage:
    """What a model was asked so far, by this object.

    Attributes:
        requests: Requests that were answered.
        cached: Prompts that the cache answered.
        input_tokens: Tokens read, as the service counted them.
        output_tokens: Tokens written, hidden thoughts included, as the service counted them.
        failed: Requests that were refused for what is in them.
        unreachable: Requests that got no answer for reasons that may pass: network, limits, errors of the
            service.
    """

    requests: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    failed: int = 0
    unreachable: int = 0


@dataclass(kw_only=True)
class ChatService(ABC):
    """A chat model behind HTTP, as a model for spacy-llm. Nothing is contacted before the first prompt.

    A request that fails for good leaves its prompt unanswered, and the others go on. What would fail for
    every prompt (a refused key, no credit, no such model) ends the run.

    Attributes:
        name: The model's name at the service.
        endpoint: Address of the API, for instance "http://localhost:8000/v1".
        key_variable: Environment variable that holds the key; None where no key is asked for.
        temperature: None leaves it to the service (some models refuse the field).
        max_tokens: Most tokens of an answer; None leaves it to the service (some models refuse the field).
        extra: Further fields of the request.
        headers: Further headers.
        concurrency: Requests at a time.
        timeout: Seconds without a sign of life after which a request has failed.
        tries: How often a prompt is sent, at most.
        backoff: Seconds before the second try; they double from try to try. Where the service names a time
            (Retry-After), that one is kept.
        longest_wait: Where the service names more seconds than these, there is no further try.
        most_failures: So many prompts unanswered in a row end the run; None lets it go on.
        cache: File of answers; "auto" lies in the user's cache folder, None keeps none.
        context_length: Longer prompts (in estimated tokens) are not sent, and stay unanswered.
        input_price: US dollars for a million tokens read, for estimates; None where not known.
        output_price: US dollars for a million tokens written.

    Raises:
        ValueError: A setting is out of its range.
    """

    name: str
    endpoint: str
    key_variable: str | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = 64
    extra: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    concurrency: int = 8
    timeout: float = 60.0
    tries: int = 6
    backoff: float = 1.0
    longest_wait: float = 120.0
    most_failures: int | None = 50
    cache: str | None = "auto"
    context_length: int = 32_768
    input_price: float | None = None
    output_price: float | None = None
    usage: Usage = field(default_factory=Usage, init=False, repr=False)
    _failed_in_a_row: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("model.name is empty: give the name of the model as the service knows it.")
        address = urlsplit(self.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(
                f'model.endpoint = "{self.endpoint}" is no address of an API, such as https://host/v1.'
            )
        for setting in ("concurrency", "tries", "max_tokens", "most_failures", "context_length"):
            given = getattr(self, setting)
            if given is not None and given < 1:
                raise ValueError(f"model.{setting} = {given}, but it must be at least 1.")
        for setting in ("timeout", "backoff", "longest_wait"):
            if getattr(self, setting) <= 0:
                raise ValueError(f"model.{setting} = {getattr(self, setting)}, but it must be above 0.")
        for header, value in (self.headers or {}).items():
            if not value.isprintable():
                raise ValueError(
                    f'model.headers: the value of "{header}" has line breaks or control characters.'
                )

    # -- what an API adds --------------------------------------------------------------------------

    @property
    @abstractmethod
    def url(self) -> str:
        """Where requests go."""

    @abstractmethod
    def body(self, prompt: ChatPrompt) -> dict[str, Any]:
        """The request for a prompt."""

    @abstractmethod
    def authorization(self, key: str | None) -> dict[str, str]:
        """Headers that carry the key."""

    @abstractmethod
    def read(self, data: Any) -> Reply:
        """The reply in the JSON of an answer; any LookupError, TypeError or ValueError is a malformed one."""

    # -- answering ---------------------------------------------------------------------------------

    def __call__(
        self, prompts: typing.Iterable[typing.Iterable[Any]]
    ) -> typing.Iterable[typing.Iterable[Any]]:
        """Answer the prompts of several documents, all of them together.

        Returns:
            For each prompt its answer as it was written, or `Unanswered`.

        Raises:
            ServiceError: No prompt would be answered, or too many in a row were not.
            ValueError: The cache cannot be used.
        """
        asked = [[self._request(ChatPrompt.of(prompt)) for prompt in some] for some in prompts]
        wanted = {request.key: request for some in asked for request in some}
        answers, remaining = self._known(wanted)
        self.usage.cached += sum(not isinstance(answer, Unanswered) for answer in answers.values())
        if remaining:
            self._fetch(remaining, answers)
        return [[answers[request.key] for request in some] for some in asked]

    def ready(self) -> None:
        """Check key and cache now rather than at the first prompt. Nothing is contacted.

        Raises:
            ServiceError: There is no key.
            ValueError: The cache cannot be used.
        """
        self._key()
        if (cache := self._cache()) is not None:
            cache.check()

    def pending(self, prompts: Iterable[ChatPrompt]) -> list[ChatPrompt]:
        """Those of some prompts that would have to be sent: each once, and without what the cache has."""
        wanted = {self._request(prompt).key: prompt for prompt in prompts}
        _, remaining = self._known({key: self._request(prompt) for key, prompt in wanted.items()})
        return [wanted[request.key] for request in remaining]

    def _request(self, prompt: ChatPrompt) -> Request:
        body = {
            key: value
            for key, value in {**self.body(prompt), **(self.extra or {})}.items()
            if value is not None
        }
        content = json.dumps([self.url, body], sort_keys=True)
        return Request(hashlib.sha256(content.encode()).hexdigest(), body, estimate_prompt_tokens(prompt))

    def _known(self, wanted: Mapping[str, Request]) -> tuple[dict[str, str], list[Request]]:
        """What needs no request: answers by key, and the requests that remain."""
        cache = self._cache()
        answers = cache.find(wanted) if cache is not None else {}
        for key, request in wanted.items():
            if key not in answers and request.tokens > self.context_length:
                answers[key] = Unanswered(
                    f"the prompt has about {request.tokens} tokens, model.context_length is "
                    f"{self.context_length}"
                )
        return answers, [request for key, request in wanted.items() if key not in answers]

    def _fetch(self, wanted: list[Request], answers: dict[str, str]) -> None:
        headers = {**self.authorization(self._key()), **(self.headers or {})}
        cache, stop = self._cache(), threading.Event()
        if cache is not None:
            cache.check()
        with open_session(headers, self.concurrency) as session:
            send = Sender(
                session=session,
                url=self.url,
                read=self.read,
                key_variable=self.key_variable,
                timeout=self.timeout,
                tries=self.tries,
                backoff=self.backoff,
                longest_wait=self.longest_wait,
                stop=stop,
            )
            pool = ThreadPoolExecutor(min(self.concurrency, len(wanted)), "spacy-slmre-requests")
            try:
                futures = {pool.submit(self._ask, send, one, cache): one for one in wanted}
                for future in as_completed(futures):
                    answers[futures[future].key] = self._count(future.result())
            except BaseException as error:
                # Those that wait for another try give up; what is on its way still gets into the cache.
                stop.set()
                if isinstance(error, ServiceError):
                    raise ServiceError(self._redacted(str(error))) from None
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _count(self, result: Reply | Failure) -> str:
        if isinstance(result, Reply):
            self.usage.requests += 1
            self.usage.input_tokens += result.input_tokens
            self.usage.output_tokens += result.output_tokens
            answer = self._answer(result)
        else:
            self.usage.unreachable += isinstance(result, Passing)
            self.usage.failed += not isinstance(result, Passing)
            answer = Unanswered(self._redacted(str(result)))
        if not isinstance(answer, Unanswered):
            self._failed_in_a_row = 0
            return answer
        self._failed_in_a_row += 1
        if self.most_failures is not None and self._failed_in_a_row >= self.most_failures:
            failures, self._failed_in_a_row = self._failed_in_a_row, 0
            raise ServiceError(
                f"The last {failures} prompts got no answer, the last one since {answer.reason}. What was "
                "answered is in the cache, where there is one: the same run goes on from there. To go on "
                "whatever happens, set model.most_failures to null."
            )
        return answer

    def _answer(self, reply: Reply) -> str:
        if reply.text is None:
            return Unanswered(f"the model wrote no text ({reply.ending})")
        if reply.cut_off and not reply.text.strip():
            return Unanswered(
                f"the model used up its tokens before it wrote any text ({reply.ending}): allow for more"
            )
        return whole_characters(reply.text)

    def _ask(self, send: Sender, request: Request, cache: AnswerCache | None) -> Reply | Failure:
        """One prompt; runs in a thread of its own."""
        try:
            reply = send(request.body)
        except Failure as failure:
            return failure
        answer = self._answer(reply)
        if cache is not None and not isinstance(answer, Unanswered):
            cache.keep(request.key, answer)
        return reply

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ServiceError(
                f"{self.name} at {self.endpoint} needs a key: put it into the environment variable "
                f"{self.key_variable}. Where none is needed, set model.key_variable to null."
            )
        if not (key.isascii() and key.isprintable()):
            raise ServiceError(
                f"The key in the environment variable {self.key_variable} has line breaks or characters that "
                "no key has: copy it again."
            )
        return key

    def _redacted(self, message: str) -> str:
        """A message without key and headers, which a service or a library may have quoted."""
        secrets = [*(self.headers or {}).values(), os.environ.get(self.key_variable or "", "").strip()]
        for secret in secrets:
            if len(secret) >= _SECRET:
                message = message.replace(secret, "***")
        return message

    def _cache(self) -> AnswerCache | None:
        if self.cache is None:
            return None
        if self.cache == "auto":
            from spacy_slmre.models.causal_lm.loading import cache_folder

            return AnswerCache(cache_folder() / "answers.sqlite")
        return AnswerCache(self.cache)

    def __str__(self) -> str:
        return f"{self.name} at {self.endpoint}"
