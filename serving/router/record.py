"""One record per request: its single outcome, its times, its tokens; counted and logged once.

The count happens where the `with` block of `Recorder.request` ends, so no path can miss it or
take it twice. Outcomes: `ok`; `rejected`, refused without an engine having worked on it (bad
input, unknown model, no capacity); `cancelled`, the client left; `error`, everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import ClientLeft, Ended, EngineFailed, ModelUnavailable, ServingError
from serving.observability.logs import Log
from serving.observability.metrics import NO_MODEL, RouterMetrics
from serving.wire.messages import End


class Record:
    """What is known of one request so far. Times are `time.monotonic` seconds."""

    __slots__ = (
        "account",
        "arrived",
        "bytes_in",
        "code",
        "end",
        "endpoint",
        "engine",
        "first_byte",
        "kind",
        "last_byte",
        "model",
        "replica",
        "request_id",
        "retried",
        "status",
        "stream",
    )

    def __init__(self, request_id: str, endpoint: str) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.arrived = time.monotonic()
        self.model = ""
        self.engine = NO_MODEL
        self.kind = NO_MODEL
        self.account = ""
        self.replica = ""
        self.stream = False
        self.retried = False
        self.status = 0
        self.code: str | None = None
        self.first_byte: float | None = None
        self.last_byte: float | None = None
        self.bytes_in = 0
        self.end = End()

    def received(self, size: int) -> None:
        """The body is complete: from here on the time is ours."""
        self.bytes_in = size
        self.arrived = time.monotonic()

    def on_bytes(self) -> None:
        """Bytes of the completion are about to leave."""
        now = time.monotonic()
        if self.first_byte is None:
            self.first_byte = now
        self.last_byte = now


class Recorder:
    """Makes records and turns each into metrics and one log line."""

    def __init__(self, metrics: RouterMetrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    @contextmanager
    def request(self, request_id: str, endpoint: str) -> Iterator[Record]:
        """The record of one request; its outcome is how the block ends."""
        record = Record(request_id, endpoint)
        try:
            yield record
        except (ClientLeft, asyncio.CancelledError, GeneratorExit):
            record.status, record.code = ClientLeft.status, ClientLeft.code
            self._finish(record, "cancelled")
            raise
        except ServingError as error:
            error = error.error if isinstance(error, Ended) else error
            record.status, record.code = error.status, error.code
            self._finish(record, _outcome(error))
            raise
        except BaseException:
            record.status, record.code = ServingError.status, ServingError.code
            self._finish(record, "error")
            raise
        else:
            status = record.status
            self._finish(record, "ok" if status < 400 else "rejected" if status < 500 else "error")

    @contextmanager
    def in_flight(self, record: Record) -> Iterator[None]:
        """The time in which a resolved request occupies its model."""
        gauge = self._metrics.in_flight.labels(record.engine)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def _finish(self, record: Record, outcome: str) -> None:
        now = time.monotonic()
        metrics, model, end = self._metrics, record.engine, record.end
        metrics.requests.labels(model, record.kind, record.endpoint, outcome).inc()
        if model != NO_MODEL:
            metrics.duration.labels(model).observe(now - record.arrived)
            metrics.prompt_tokens.labels(model).inc(end.prompt_tokens)
            metrics.completion_tokens.labels(model).inc(end.completion_tokens)
            if end.queue_s is not None:
                metrics.queue.labels(model).observe(end.queue_s)
        ttft = None
        if record.stream and record.first_byte is not None and record.last_byte is not None:
            ttft = record.first_byte - record.arrived
            metrics.ttft.labels(model).observe(ttft)
            if end.completion_tokens > 1:
                span = record.last_byte - record.first_byte
                metrics.inter_token.labels(model).observe(span / (end.completion_tokens - 1))
        write = self._log.error if outcome == "error" else self._log.info
        write(
            "request",
            request_id=record.request_id,
            endpoint=record.endpoint,
            model=record.model,
            engine=model,
            replica=record.replica,
            account=record.account,
            stream=record.stream,
            outcome=outcome,
            status=record.status,
            code=record.code,
            seconds=round(now - record.arrived, 4),
            ttft_s=None if ttft is None else round(ttft, 4),
            queue_s=None if end.queue_s is None else round(end.queue_s, 4),
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            finish_reason=end.finish_reason,
            retried=record.retried,
        )


def _outcome(error: ServingError) -> str:
    if isinstance(error, EngineFailed):
        return "error"
    if error.status < 500 or isinstance(error, ModelUnavailable):
        return "rejected"
    return "error"
