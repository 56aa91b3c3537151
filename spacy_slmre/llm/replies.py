"""What a service sends back: a reply, or a failure that passes, stays, or ends the run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from requests import Response

TIMEOUT, CONFLICT, TOO_EARLY, TOO_MANY = 408, 409, 425, 429
_NO_CREDIT = (
    "insufficient_quota",
    "billing_error",
    "billing_hard_limit_reached",
    "credit balance is too low",
)


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: The text; None where there is none but a refusal, say.
        ending: Why it stopped there, in the words of the service.
        cut_off: It stopped because it had written as many tokens as it may.
        input_tokens: Tokens read.
        output_tokens: Tokens written.
    """

    text: str | None
    ending: str
    cut_off: bool
    input_tokens: int
    output_tokens: int


class ServiceError(ValueError):
    """No prompt will be answered; the message says why and what to do."""


class Failure(Exception):
    """A request failed, and would again."""


class Passing(Failure):
    """A request failed, and may not if it is sent again.

    Attributes:
        wait: Seconds that the service asks to wait for, where it does.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def failure_of(response: Response, url: str, key_variable: str | None) -> Exception:
    """The failure that a response other than 200 stands for: `ServiceError`, `Passing` or `Failure`."""
    status, told, kinds = response.status_code, *_error_in(response)
    problem = f"{url} answered {status}" + (f": {told}" if told else "")
    if any(sign in text.lower() for sign in _NO_CREDIT for text in (*kinds, told)) or status == 402:
        return ServiceError(
            f"{problem}\nThe account has no credit left, or reached its limit. What was answered so far is "
            "in the cache, where there is one: the same run goes on from there."
        )
    if status in (401, 403):
        key = f"the key in ${key_variable}" if key_variable else "no key, since model.key_variable is null"
        return ServiceError(f"{problem}\nThe service did not let us in. Sent was {key}.")
    if status in (404, 405) or 300 <= status < 400:
        return ServiceError(f"{problem}\nCheck model.endpoint and model.name.")
    if status in (TIMEOUT, CONFLICT, TOO_EARLY, TOO_MANY) or status >= 500:
        return Passing(problem, _wait_in(response))
    return Failure(problem)


def unreadable(response: Response, url: str) -> Passing:
    """The failure of an answer that is not what the API says it is."""
    return Passing(f"{url} sent no such JSON as its API has: {response.text[:100]!r}")


def _error_in(response: Response) -> tuple[str, tuple[str, ...]]:
    """The message and the kinds of an error, as far as it says them."""
    try:
        error: Any = response.json()["error"]
    except (ValueError, LookupError, TypeError):
        return response.text[:200].strip(), ()
    if not isinstance(error, dict):
        return str(error)[:500], ()
    return str(error.get("message") or "")[:500], (str(error.get("type")), str(error.get("code")))


def _wait_in(response: Response) -> float | None:
    """Seconds, from a Retry-After header in seconds or with a date."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
