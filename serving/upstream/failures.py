"""What a provider's failure means for our caller, for a retry and for the circuit breaker.

Error bodies as the providers send them:

- OpenAI: `{"error": {"message", "type", "param", "code"}}`; a refused key is repeated in the
  message, partly masked (platform.openai.com/docs/guides/error-codes).
- Anthropic: `{"type": "error", "error": {"type", "message"}, "request_id"}`, or without the outer
  `type`; 529 `overloaded_error`, which also comes as the first event of a stream with status 200;
  a spending limit that is reached is a 429 without `retry-after`
  (docs.anthropic.com/en/api/errors).
- Gemini: a list, `[{"error": {"code", "message", "status", "details"}}]`; a refused key is a 400
  with the reason `API_KEY_INVALID`, and how long to wait is in the details, `retryDelay`, not in a
  header (github.com/n4ze3m/page-assist issues 406 and 418, cequence-io/openai-scala-client 109;
  cloud.google.com/apis/design/errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
import openai

from serving.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServingError,
    UpstreamFailed,
    UpstreamMisconfigured,
)
from serving.upstream.backoff import retry_after

# The `result` label of an attempt's metric, besides `ok` and `cancelled`.
Result = Literal[
    "client_error", "rate_limited", "misconfigured", "server_error", "timeout", "connection",
    "no_answer",
]  # fmt: skip

MAX_MESSAGE = 500
OVERLOADED_RETRY_S = 5.0
# A 429 of these kinds lasts until somebody pays.
_SPENT = {"insufficient_quota", "enforced_spend_limit_reached", "billing_hard_limit_reached"}
_TRANSIENT = {408, 409}
# Statuses of an error inside a stream, which has none of its own.
_STATUS_BY_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
}
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{6,}|\bAIza[\w*-]{8,}|Bearer\s+\S+")


@dataclass(eq=False)
class Failure(Exception):
    """One attempt that failed. `retry`: another may succeed; `trips`: it counts for the breaker;
    `retry_after_s`: the wait that the provider asks for."""

    error: ServingError
    result: Result
    retry: bool = False
    trips: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True)
class _Detail:
    """An error body, whatever its dialect."""

    message: str = ""
    kind: str = ""
    code: str = ""
    param: str | None = None
    status: int | None = None
    reasons: frozenset[str] = frozenset()
    retry_after_s: float | None = None


class Explainer:
    """Turns a provider's failures into ours.

    Args:
        provider: its name, for messages.
        timeout_s: the longest silence that is accepted, for messages.
    """

    def __init__(self, provider: str, timeout_s: float) -> None:
        self._name = f"provider '{provider}'"
        self._timeout_s = timeout_s

    def failure(self, error: Exception, model: str, key: str) -> Failure:
        """What an exception of the `openai` client means.

        Args:
            model: the model's name at the provider.
            key: taken out of the message.
        """
        if isinstance(error, openai.APITimeoutError):
            return Failure(
                UpstreamFailed(f"{self._name} was silent for {self._timeout_s:g} s"),
                "timeout",
                retry=True,
                trips=True,
            )
        if isinstance(error, (openai.APIConnectionError, httpx2.HTTPError)):
            return Failure(
                UpstreamFailed(f"the connection to {self._name} failed"),
                "connection",
                retry=True,
                trips=True,
            )
        if isinstance(error, openai.APIStatusError):
            headers = error.response.headers
            retry = None if headers.get("x-should-retry") != "false" else False
            return self._by_status(
                error.status_code, _detail(error.body), model, key, retry_after(headers), retry
            )
        if isinstance(error, openai.APIError):  # an error event inside a stream
            return self.event(error.body, model, key)
        return self.no_answer("its answer is not valid")

    def event(self, body: object, model: str, key: str) -> Failure:
        """What an error inside a stream means."""
        detail = _detail(body)
        status = detail.status or _STATUS_BY_TYPE.get(detail.kind) or 500
        return self._by_status(status, detail, model, key, None, None)

    def no_answer(self, why: str) -> Failure:
        """The provider answered with something that is no completion."""
        error = UpstreamFailed(f"{self._name} failed: {why}")
        return Failure(error, "no_answer", retry=True, trips=True)

    def _by_status(
        self,
        status: int,
        detail: _Detail,
        model: str,
        key: str,
        asked_s: float | None,
        retry: bool | None,
    ) -> Failure:
        """`asked_s` is the wait that the headers ask for, `retry` what they say about retries."""
        asked_s = detail.retry_after_s if asked_s is None else asked_s
        said = _scrub(detail.message, key)
        because = f": {said}" if said else ""
        if status in (401, 402, 403) or detail.reasons & {"API_KEY_INVALID", "API_KEY_EXPIRED"}:
            what = "account" if status == 402 else "key or its rights"
            return Failure(
                UpstreamMisconfigured(f"{self._name} refused this installation's {what}"),
                "misconfigured",
            )
        if status == 404:
            return Failure(
                UpstreamMisconfigured(f"{self._name} has no model '{model}' for this installation"),
                "misconfigured",
            )
        if status == 429:
            spent = bool({detail.kind, detail.code} & _SPENT)
            what = "spending limit of this installation" if spent else "rate limit"
            return Failure(
                RateLimited(f"{self._name}: its {what} is reached", retry_after_s=asked_s),
                "rate_limited",
                retry=retry is not False and not spent,
                retry_after_s=asked_s,
            )
        if status >= 500 or status in _TRANSIENT:
            busy = status in (503, 529)
            text = f"{self._name} is overloaded" if busy else f"{self._name} failed ({status})"
            wait_s = OVERLOADED_RETRY_S if asked_s is None else asked_s
            return Failure(
                Overloaded(text, retry_after_s=wait_s)
                if busy
                else UpstreamFailed(text, retry_after_s=asked_s),
                "server_error",
                retry=retry is not False,
                trips=status >= 500,
                retry_after_s=asked_s,
            )
        if status < 400:
            return self.no_answer(f"status {status}")
        return Failure(_refusal(status, detail, f"{self._name} refused the request{because}"),
                       "client_error")  # fmt: skip


def _refusal(status: int, detail: _Detail, message: str) -> ServingError:
    """What the caller did wrong, in the provider's words."""
    if detail.code == "context_length_exceeded" or "prompt is too long" in detail.message:
        return ContextLengthExceeded(message, param=detail.param)
    if status == 413:
        return BodyTooLarge(message)
    return InvalidRequest(message, param=detail.param)


def _detail(body: object) -> _Detail:
    """Read an error body of any dialect, with or without its outer object. Anything else says
    nothing."""
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping) and isinstance(body.get("error"), (Mapping, str)):
        body = body["error"]
    if isinstance(body, str):
        return _Detail()  # a page of HTML, or a proxy's text: nothing for our caller
    if not isinstance(body, Mapping):
        return _Detail()
    code, details = body.get("code"), body.get("details")
    listed = [item for item in details if isinstance(item, Mapping)] if isinstance(
        details, list) else []  # fmt: skip
    if isinstance(details, Mapping):  # Anthropic's
        code = details.get("error_code", code)
    param = body.get("param")
    return _Detail(
        message=_text(body.get("message")),
        kind=_text(body.get("type")),
        code=_text(code),
        param=param if isinstance(param, str) else None,
        status=code if isinstance(code, int) and 400 <= code < 600 else None,
        reasons=frozenset(_text(item.get("reason")) for item in listed),
        retry_after_s=next((s for s in map(_retry_delay, listed) if s is not None), None),
    )


def _retry_delay(item: Mapping[str, Any]) -> float | None:
    """Google's `RetryInfo`: `{"retryDelay": "34.07s"}`."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)s", _text(item.get("retryDelay")))
    return float(found[1]) if found else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _scrub(message: str, key: str) -> str:
    """A provider's message without keys and not too long."""
    if key:
        message = message.replace(key, "[key]")
    return _LOOKS_LIKE_A_KEY.sub("[key]", message)[:MAX_MESSAGE].strip()
