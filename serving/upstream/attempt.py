"""One HTTP request to a provider. Its answer is checked: it must be a completion, and complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncStream

from serving.errors import ModelUnavailable, UpstreamFailed
from serving.upstream.breaker import CircuitOpen, Permit
from serving.upstream.connection import Connection
from serving.upstream.failures import Failure

Event = dict[str, Any]
# Everything that a provider, and the way to it, can cause. The last two come from malformed JSON,
# the transport's own where the client reads an error's body. Anything else is a bug of ours.
PROVIDER_ERRORS = (Failure, openai.OpenAIError, httpx2.HTTPError, ValueError, RecursionError)
_END: Any = object()  # a stream without a single event


@dataclass(frozen=True)
class Payload:
    """What is sent: the provider's name for the model, whether the answer is streamed, the body."""

    model: str
    streams: bool
    content: bytes


class Attempt:
    """One HTTP request to the provider. Its result is told to the breaker and counted once, however
    it ends."""

    def __init__(
        self, provider: Connection, payload: Payload, count: Callable[[str], None]
    ) -> None:
        self._provider = provider
        self._payload = payload
        self._count = count
        self._key = ""
        self._permit: Permit | None = None
        self._stream: AsyncStream[object] | None = None
        self._first: Event = {}
        self._open: set[int] = set()  # choices without a finish reason
        self._seen_choice = False

    async def begin(self) -> None:
        """Send it and wait for the first event of its answer.

        Raises:
            Failure: the provider, or the way to it, failed.
            ModelUnavailable: there is no key, or the circuit is open.
        """
        provider = self._provider
        self._key = provider.key.read().get_secret_value()
        try:
            self._permit = provider.breaker.enter()
        except CircuitOpen as stop:
            raise ModelUnavailable(
                f"provider '{provider.name}' has failed {provider.breaker.failures} times in "
                "a row; nothing is sent to it for a while",
                retry_after_s=stop.retry_after_s,
            ) from None
        try:
            answer = await provider.openai.post(
                "/chat/completions",
                cast_to=object,
                content=self._payload.content,
                options={
                    "headers": {
                        "Authorization": f"Bearer {self._key}",
                        "Content-Type": "application/json",
                    }
                },
                stream=self._payload.streams,
                stream_cls=AsyncStream[object],
            )
            if isinstance(answer, AsyncStream):
                self._stream = answer
                answer = await anext(answer, _END)
            self._first = self._event(answer)
            if self._stream is None:
                self._check_end()
            self._permit.answers()
        except PROVIDER_ERRORS as error:
            failure = self._failed(error)
            await self._close_stream()
            raise failure from None
        except BaseException:  # cancelled, most likely
            await self.close()
            raise

    async def events(self) -> AsyncGenerator[Event, None]:
        """The answer's events.

        Raises:
            ServingError: the answer broke off, or ended without being finished.
        """
        yield self._first
        try:
            if self._stream is not None:
                async for event in self._stream:
                    yield self._event(event)
                self._check_end()
        except PROVIDER_ERRORS as error:
            failure = self._failed(error)
            self._provider.log.warning(
                "upstream_broke_off", model=self._payload.model, result=failure.result
            )
            # Whatever it was: the provider has done work, and the status can no longer be changed.
            raise UpstreamFailed(f"{failure.error.message}, in the middle of its answer") from None
        self._finish("ok", Permit.success)

    async def close(self) -> None:
        """Close the stream; if it had not ended, the request was cancelled."""
        self._finish("cancelled", Permit.neither)
        await self._close_stream()

    async def _close_stream(self) -> None:
        if self._stream is not None:
            await self._stream.close()

    def _event(self, event: object) -> Event:
        """Check one event and note which choices it opens and finishes."""
        if event is _END:
            raise self._provider.explain.no_answer("its answer is empty")
        if isinstance(event, list) and event:  # Gemini's errors
            event = event[0]
        if not isinstance(event, dict):
            raise self._provider.explain.no_answer("its answer is no completion")
        if event.get("error"):
            raise self._provider.explain.event(event, self._payload.model, self._key)
        choices = event.get("choices")
        if not isinstance(choices, list):
            if self._payload.streams and choices is None:
                return {**event, "choices": []}  # a provider's own event, such as a ping
            raise self._provider.explain.no_answer("its answer has no choices")
        for choice in choices:
            if not _is_choice(choice, self._payload.streams):
                raise self._provider.explain.no_answer("its answer is no completion")
            self._seen_choice = True
            index = choice.get("index", 0)
            if choice.get("finish_reason") is None:
                self._open.add(index)
            else:
                self._open.discard(index)
        return event

    def _check_end(self) -> None:
        if self._open or not self._seen_choice:
            raise self._provider.explain.no_answer("its answer ended before it was finished")

    def _failed(self, error: Exception) -> Failure:
        if isinstance(error, Failure):
            failure = error
        else:
            failure = self._provider.explain.failure(error, self._payload.model, self._key)
        self._finish(failure.result, Permit.failure if failure.trips else Permit.refused)
        return failure

    def _finish(self, result: str, tell: Callable[[Permit], None]) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            tell(permit)
            self._count(result)


def _is_choice(choice: object, streams: bool) -> bool:
    """True if a choice has what later code relies on; all else is passed on as it is."""
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("index", 0), int)
        and isinstance(choice.get("finish_reason"), (str, type(None)))
        and isinstance((choice.get("delta") or {}) if streams else choice.get("message"), dict)
    )
