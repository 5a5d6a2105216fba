"""One HTTP request to a provider. Its answer is checked: it must be its API's, and complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncStream, Omit

from serving.errors import ModelUnavailable, UpstreamFailed
from serving.upstream.breaker import CircuitOpen, Permit
from serving.upstream.connection import Connection
from serving.upstream.failures import Failure
from serving.upstream.form import Event, Form, NotAnAnswer, Reading

# Everything that a provider, and the way to it, can cause. The last two come from malformed JSON,
# the transport's own where the client reads an error's body. Anything else is a bug of ours.
PROVIDER_ERRORS = (Failure, openai.OpenAIError, httpx2.HTTPError, ValueError, RecursionError)
_END: Any = object()  # a stream without a single event


@dataclass(frozen=True)
class Payload:
    """What is sent: a form, the provider's name for the model, the body as bytes, and about how
    many tokens its prompt has."""

    form: Form
    model: str
    content: bytes
    prompt_tokens: int


class Attempt:
    """One HTTP request to the provider. Its result is told to the breaker and counted once, however
    it ends. `reading` reads its answer."""

    def __init__(
        self,
        provider: Connection,
        payload: Payload,
        reading: Reading,
        count: Callable[[str], None],
    ) -> None:
        self.reading = reading
        self._provider = provider
        self._payload = payload
        self._count = count
        self._key = ""
        self._permit: Permit | None = None
        self._stream: AsyncStream[object] | None = None
        self._first: Event = {}

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
                self._payload.form.path,
                cast_to=object,
                content=self._payload.content,
                options={"headers": self._headers()},
                stream=self._payload.form.streams,
                stream_cls=AsyncStream[object],
            )
            if isinstance(answer, AsyncStream):
                self._stream = answer
                answer = await anext(answer, _END)
            self._first = self._event(answer)
            self.reading.begin(self._payload.prompt_tokens)
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

    def _headers(self) -> dict[str, str | Omit]:
        form = self._payload.form
        headers = {**form.headers, "Content-Type": "application/json"}
        if form.own_key:
            return {**headers, "Authorization": Omit(), form.own_key: self._key}
        return {**headers, "Authorization": f"Bearer {self._key}"}

    def _event(self, event: object) -> Event:
        """Check one event."""
        if event is _END:
            raise self._provider.explain.no_answer("its answer is empty")
        if isinstance(event, list) and event:  # Gemini's errors
            event = event[0]
        if not isinstance(event, dict):
            raise self._provider.explain.no_answer("its answer is no JSON object")
        if error := self.reading.error(event):
            raise self._provider.explain.event({"error": error}, self._payload.model, self._key)
        try:
            taken = self.reading.take(event)
        except NotAnAnswer as error:
            raise self._provider.explain.no_answer(str(error)) from None
        self.reading.follow(taken)
        return taken

    def _check_end(self) -> None:
        if not self.reading.finished:
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
