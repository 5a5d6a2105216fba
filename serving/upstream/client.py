"""One provider: its connections, key, limits, retries and circuit; all its models share them.

A request: 1. waits for a turn (`slots`); 2. passes the circuit (`breaker`); 3. is sent by the
official `openai` client; 4. until its first event has come, a failure that may pass is followed by
a wait (`backoff`) and another attempt; 5. its events are passed on and its end is checked: an
answer without a finish reason is a failure.

The `openai` client's own retries are off: each attempt has to meet the circuit and be counted.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2
import msgspec
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from serving.api.guess import prompt_tokens
from serving.catalogue.providers import Provider
from serving.engine.interface import Tally
from serving.errors import InvalidRequest, ModelUnavailable
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.upstream.attempt import Attempt, Payload
from serving.upstream.backoff import wait_s
from serving.upstream.breaker import STATES, Breaker, State
from serving.upstream.connection import Connection
from serving.upstream.failures import Explainer, Failure
from serving.upstream.form import Event, Form, Reading
from serving.upstream.key import ProviderKey
from serving.upstream.slots import WAIT_S, Slots
from serving.wire.messages import Standing


class ProviderClient:
    """Sends requests to one provider.

    Args:
        name: the provider's name, as in `providers:`.
        routers: how many routers share `max_concurrency`.
        slot_wait_s: how long a request waits for its turn, in seconds.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        routers: int,
        metrics: RouterMetrics,
        log: Log,
        rng: random.Random,
        slot_wait_s: float = WAIT_S,
    ) -> None:
        self.name = name
        self.provider = provider
        self.routers = routers
        self._metrics = metrics
        self._log = log.bind(provider=name)
        self._rng = rng
        limit = math.ceil(provider.max_concurrency / routers)
        self._slots = Slots(limit, name, wait_s=slot_wait_s)
        self._connection = Connection(
            name,
            openai=_open(provider, limit),
            key=ProviderKey(name, provider),
            breaker=Breaker(
                provider.breaker_failures, provider.breaker_s, on_change=self._on_circuit
            ),
            explain=Explainer(name, provider.timeout_s),
            log=self._log,
        )
        self._retired = False
        self._gauge = metrics.upstream_in_flight.labels(name)
        metrics.upstream_waiting.labels(name).set_function(lambda: self._slots.waiting)
        self._on_circuit("closed")

    @property
    def in_flight(self) -> int:
        return self._slots.taken

    @property
    def waiting(self) -> int:
        return self._slots.waiting

    @asynccontextmanager
    async def exchange(
        self, form: Form, standing: Standing, tally: Tally
    ) -> AsyncIterator[tuple[AsyncIterator[Event], Reading]]:
        """Send one request and give the events of its answer (those of the stream, or the whole
        answer as one) and what reads them into `tally`. `standing` is where it stands among others
        that wait for a turn.

        Leaving the block before their end closes the connection, which is how a provider is told
        to stop.

        Raises:
            ServingError: on entering, the provider has not answered; from the events, the answer
                broke off.
        """
        try:
            # Before any attempt: text that cannot be encoded is the caller's fault, not the
            # provider's.
            content = msgspec.json.encode(form.body)
        except UnicodeEncodeError:
            raise InvalidRequest("the text is not valid Unicode") from None
        payload = Payload(form, form.body["model"], content, prompt_tokens(content))
        async with self._slots.turn(standing, payload.prompt_tokens, tally):
            self._gauge.inc()
            try:
                attempt = await self._begin(payload, tally)
                try:
                    async with aclosing(attempt.events()) as events:
                        yield events, attempt.reading
                finally:
                    await attempt.close()
            finally:
                self._gauge.dec()

    def state(self) -> str:
        """`ready`, or why a request would fail now."""
        circuit = self._connection.breaker.state
        if circuit != "closed":
            return f"circuit_{circuit}"
        try:
            self._connection.key.read()
        except ModelUnavailable:
            return "no_key"
        return "ready"

    def retire(self) -> None:
        """Remove its gauges: it gets no new requests. A client that replaces it sets them again."""
        self._retired = True
        for state in STATES:
            self._metrics.upstream_circuit.remove(self.name, state)
        self._metrics.upstream_in_flight.remove(self.name)
        self._metrics.upstream_waiting.remove(self.name)

    async def close(self) -> None:
        """Close the connections when the last request has ended."""
        while self._slots.taken or self._slots.waiting:
            await asyncio.sleep(0.05)
        await self._connection.openai.close()

    async def _begin(self, payload: Payload, tally: Tally) -> Attempt:
        """The first attempt whose answer begins."""
        number = 0
        while True:
            reading = payload.form.reading(tally, streams=payload.form.streams)
            attempt = Attempt(self._connection, payload, reading, self._count)
            try:
                await attempt.begin()
                return attempt
            except Failure as failure:
                wait = None
                if failure.retry and number < self.provider.max_retries:
                    wait = wait_s(number, failure.retry_after_s, self._rng)
                self._log.warning(
                    "upstream_attempt_failed",
                    model=payload.model,
                    result=failure.result,
                    error=failure.error.code,
                    attempt=number + 1,
                    retry_in_s=None if wait is None else round(wait, 3),
                )
                if wait is None:
                    raise failure.error from None
            number += 1
            self._metrics.upstream_retries.labels(self.name).inc()
            await asyncio.sleep(wait)

    def without_usage(self, model: str) -> None:
        """Count and log an answer that did not say how many tokens it used."""
        self._metrics.upstream_without_usage.labels(self.name).inc()
        self._log.warning("upstream_without_usage", model=model)

    def _count(self, result: str) -> None:
        self._metrics.upstream_attempts.labels(self.name, result).inc()

    def _on_circuit(self, state: State) -> None:
        if self._retired:
            return
        for known in STATES:
            self._metrics.upstream_circuit.labels(self.name, known).set(known == state)
        if state != "closed":
            self._log.warning("upstream_circuit", state=state)


def _open(provider: Provider, connections: int) -> AsyncOpenAI:
    """The official client, with a pool that has a connection for every turn."""
    timeout = httpx2.Timeout(provider.timeout_s, connect=provider.connect_timeout_s)
    limits = httpx2.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0
    )
    client = AsyncOpenAI(
        base_url=provider.base_url,
        api_key="given with each request",
        admin_api_key="",
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAsyncHttpxClient(
            limits=limits,
            timeout=timeout,
            follow_redirects=False,  # a redirected key is a lost key
        ),
    )
    if provider.dialect != "openai":
        # The client reads them from OpenAI's own variables; other providers must not see them.
        client.organization = client.project = None
    return client
